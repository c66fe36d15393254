package main

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"muster/rpc/rest/api"
)

// filters is what an instance must fit to be shown.
type filters struct {
	tests     []func(api.InstanceFull) bool
	needState bool
}

func (f filters) all(i api.InstanceFull) bool {
	return !slices.ContainsFunc(f.tests, func(test func(api.InstanceFull) bool) bool { return !test(i) })
}

// parseFilters reads the arguments of list.
func parseFilters(args []string) (filters, error) {
	var f filters
	for _, arg := range args {
		key, value, isPair := strings.Cut(arg, "=")
		var test func(api.InstanceFull) bool
		var err error
		switch {
		case !isPair:
			test = nameTest(arg)
		case key == "ipv4" || key == "ipv6":
			test, err = addressTest(value)
			f.needState = true
		case words[key] == nil && !strings.Contains(key, "."):
			err = fmt.Errorf("%q is none of the instance's own words (%s), not ipv4 or ipv6, and no configuration key, which has a dot",
				key, strings.Join(slices.Sorted(maps.Keys(words)), ", "))
		default:
			test = keyTest(key, value)
		}
		if err != nil {
			return f, fmt.Errorf("filter %q: %w", arg, err)
		}
		f.tests = append(f.tests, test)
	}
	return f, nil
}

func nameTest(text string) func(api.InstanceFull) bool {
	// Not every start of a name is a regular expression, and none needs be.
	whole, err := regexp.Compile("^(?:" + text + ")$")
	return func(i api.InstanceFull) bool {
		return strings.HasPrefix(i.Name, text) || (err == nil && whole.MatchString(i.Name))
	}
}

func addressTest(value string) (func(api.InstanceFull) bool, error) {
	var networks []netip.Prefix
	for part := range strings.SplitSeq(value, ",") {
		network, err := netip.ParsePrefix(part)
		if err != nil {
			ip, ipErr := netip.ParseAddr(part)
			if ipErr != nil {
				return nil, fmt.Errorf("%q is neither an address nor a network", part)
			}
			network = netip.PrefixFrom(ip, ip.BitLen())
		}
		networks = append(networks, network.Masked())
	}
	return func(i api.InstanceFull) bool {
		return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return hasAddress(i, n) })
	}, nil
}

// words are the instance's own properties that can be filtered by.
var words = map[string]func(api.InstanceFull) string{
	"type":         func(i api.InstanceFull) string { return string(i.Type) },
	"status":       func(i api.InstanceFull) string { return i.Status },
	"architecture": func(i api.InstanceFull) string { return i.Architecture },
	"location":     func(i api.InstanceFull) string { return i.Location },
	"project":      func(i api.InstanceFull) string { return i.Project },
	"name":         func(i api.InstanceFull) string { return i.Name },
}

func keyTest(key, value string) func(api.InstanceFull) bool {
	if word, ok := words[key]; ok {
		wanted := strings.Split(strings.ToLower(value), ",")
		return func(i api.InstanceFull) bool { return slices.Contains(wanted, strings.ToLower(word(i))) }
	}
	pattern, err := regexp.Compile("(?i)^(?:" + value + ")$")
	return func(i api.InstanceFull) bool {
		for full, actual := range i.ExpandedConfig {
			if abbreviates(key, full) && (strings.EqualFold(actual, value) || (err == nil && pattern.MatchString(actual))) {
				return true
			}
		}
		return false
	}
}

// abbreviates says whether each part of short starts the same part of full:
// u.stage is user.stage.
func abbreviates(short, full string) bool {
	if short == full {
		return true
	}
	x, y := strings.Split(short, "."), strings.Split(full, ".")
	if len(x) != len(y) {
		return false
	}
	for n := range x {
		// The last part is the key itself and is written out.
		if n == len(x)-1 && x[n] != y[n] {
			return false
		}
		if !strings.HasPrefix(y[n], x[n]) {
			return false
		}
	}
	return true
}
