package state

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Key describes one configuration key, for checking it and for the documents.
type Key struct {
	// Name is the key; a name that ends in a dot stands for all keys below it.
	Name string
	// Help is one line for users.
	Help string
	// Default is what an unset key means, in words or as a value.
	Default string
	// Live says that a change takes effect while the instance runs.
	Live bool
	// Member says that the key belongs to one member, not to the cluster.
	Member bool

	check func(value string) error
}

// table is a list of keys with the sentence for those that are known elsewhere
// but not built here.
type table struct {
	what string
	keys []Key
	// missing are keys, or prefixes with a closing dot, that LXD knows and
	// muster does not.
	missing []string
}

// find returns the key, exact names before prefixes.
func (t table) find(name string) (Key, bool) {
	for _, key := range t.keys {
		if key.Name == name {
			return key, true
		}
	}
	for _, key := range t.keys {
		if strings.HasSuffix(key.Name, ".") && strings.HasPrefix(name, key.Name) && len(name) > len(key.Name) {
			return key, true
		}
	}
	return Key{}, false
}

// validate checks one key with its value. The empty value unsets a key and is
// always right for a key that exists.
func (t table) validate(name, value string) error {
	key, ok := t.find(name)
	if !ok {
		for _, missing := range t.missing {
			if name == missing || (strings.HasSuffix(missing, ".") && strings.HasPrefix(name, missing)) {
				return Errorf(ErrInvalid, "%s %q is not supported by muster: leave it out", t.what, name)
			}
		}
		return unknown(t.what, name, t.names())
	}
	if value == "" || key.check == nil {
		return nil
	}
	if err := key.check(value); err != nil {
		return Errorf(ErrInvalid, "%s %q: %w", t.what, name, err)
	}
	return nil
}

// validateAll checks every key, in order, so that the error is the same each
// time.
func (t table) validateAll(config Config) error {
	names := make([]string, 0, len(config))
	for name := range config {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := t.validate(name, config[name]); err != nil {
			return err
		}
	}
	return nil
}

func (t table) names() []string {
	names := make([]string, 0, len(t.keys))
	for _, key := range t.keys {
		names = append(names, key.Name)
	}
	return names
}

// The checkers below say what would be right.

func aBool(value string) error { _, err := ParseBool(value); return err }

func aSize(value string) error { _, err := ParseSize(value); return err }

func aNumber(from, to int64) func(string) error {
	return func(value string) error {
		number, err := strconv.ParseInt(value, 10, 64)
		if err != nil || number < from || number > to {
			return Errorf(ErrInvalid, "%q: want a whole number from %d to %d", value, from, to)
		}
		return nil
	}
}

func oneOf(values ...string) func(string) error {
	return func(value string) error {
		if slices.Contains(values, value) {
			return nil
		}
		return Errorf(ErrInvalid, "%q: want %s", value, strings.Join(values, ", "))
	}
}

func anAddress(value string) error {
	if _, err := netip.ParseAddr(value); err != nil {
		return Errorf(ErrInvalid, "%q is not an IP address", value)
	}
	return nil
}

func aPrefix(value string) error {
	if _, err := netip.ParsePrefix(value); err != nil {
		return Errorf(ErrInvalid, "%q: want an address with a prefix length, such as 10.1.2.1/24", value)
	}
	return nil
}

func anIPv4(value string) error {
	if addr, err := netip.ParseAddr(value); err != nil || !addr.Is4() {
		return Errorf(ErrInvalid, "%q is not an IPv4 address", value)
	}
	return nil
}

func anIPv6(value string) error {
	if addr, err := netip.ParseAddr(value); err != nil || !addr.Is6() {
		return Errorf(ErrInvalid, "%q is not an IPv6 address", value)
	}
	return nil
}

func aHWAddr(value string) error {
	hwaddr, err := net.ParseMAC(value)
	if err != nil || len(hwaddr) != 6 {
		return Errorf(ErrInvalid, "%q: want a hardware address such as 00:16:3e:12:34:56", value)
	}
	return nil
}

func aDuration(value string) error {
	_, err := ParseExpiry(value, time.Time{})
	return err
}

func aPath(value string) error {
	if !strings.HasPrefix(value, "/") || strings.ContainsRune(value, 0) {
		return Errorf(ErrInvalid, "%q: want an absolute path", value)
	}
	return nil
}

func aMode(value string) error {
	if mode, err := strconv.ParseUint(value, 8, 32); err != nil || mode > 0o7777 {
		return Errorf(ErrInvalid, "%q: want octal permission bits such as 0660", value)
	}
	return nil
}

func listOf(check func(string) error) func(string) error {
	return func(value string) error {
		for part := range strings.SplitSeq(value, ",") {
			if err := check(strings.TrimSpace(part)); err != nil {
				return err
			}
		}
		return nil
	}
}
