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
	// Inert says that the key is stored and has no effect yet.
	Inert bool

	check func(value string) error
	// lines says that the value may have several lines. All others end up in
	// files of one line for each key, where a line break would begin another
	// key.
	lines bool
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
		if key.Name == name && !strings.HasSuffix(name, ".") {
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
	if hasControl(name, false) {
		return Errorf(ErrInvalid, "%s %q: control characters are not allowed in it", t.what, name)
	}
	if hasControl(value, key.lines) {
		return Errorf(ErrInvalid, "%s %q: its value has a line break or another control character; take that away", t.what, name)
	}
	if value == "" || key.check == nil {
		return nil
	}
	if err := key.check(value); err != nil {
		return Errorf(ErrInvalid, "%s %q: %w", t.what, name, err)
	}
	return nil
}

// hasControl reports whether the text has characters that break the line it
// stands in. Zero bytes are never allowed: to the kernel they end a string.
func hasControl(text string, lines bool) bool {
	return strings.ContainsFunc(text, func(r rune) bool {
		return r == 0 || !lines && (r < ' ' && r != '\t' || r == 0x7f)
	})
}

// validateAll checks every key, in order, so that the error is the same each
// time.
func (t table) validateAll(config Config) error {
	for _, name := range sortedNames(config) {
		if err := t.validate(name, config[name]); err != nil {
			return err
		}
	}
	return nil
}

// sortedNames are the keys of a map in order, so that of several faults the same
// one is reported each time.
func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
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

// anInteger takes any whole number, as LXD does for keys that have no effect here.
func anInteger(value string) error {
	if _, err := strconv.ParseInt(value, 10, 64); err != nil {
		return Errorf(ErrInvalid, "%q: want a whole number", value)
	}
	return nil
}

func aLabel(value string) error {
	if err := validatePlain("label", value); err != nil {
		return Errorf(ErrInvalid, "%q: want letters, digits, dots, hyphens and underscores: %w", value, err)
	}
	return nil
}

// allOr takes -1, which stands for all, besides what check takes.
func allOr(check func(string) error) func(string) error {
	return func(value string) error {
		if value == "-1" {
			return nil
		}
		return check(value)
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

// onlyFalse is for what muster never does: a key that says so is right, and one
// that asks for it is refused with the reason.
func onlyFalse(reason string) func(string) error {
	return func(value string) error {
		on, err := ParseBool(value)
		if err == nil && on {
			return Errorf(ErrInvalid, "%s: leave it out or set it to false", reason)
		}
		return err
	}
}

// plainAddress reads an address without a zone: a zone may hold any text, and
// means something on one machine only.
func plainAddress(value string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(value)
	return addr, err == nil && addr.Zone() == "" && !addr.Is4In6()
}

func anAddress(value string) error {
	if _, ok := plainAddress(value); !ok {
		return Errorf(ErrInvalid, "%q is not an IP address", value)
	}
	return nil
}

func anIPv4(value string) error {
	if addr, ok := plainAddress(value); !ok || !addr.Is4() {
		return Errorf(ErrInvalid, "%q is not an IPv4 address", value)
	}
	return nil
}

func anIPv6(value string) error {
	if addr, ok := plainAddress(value); !ok || !addr.Is6() {
		return Errorf(ErrInvalid, "%q is not an IPv6 address", value)
	}
	return nil
}

func aHWAddr(value string) error {
	hwaddr, err := net.ParseMAC(value)
	if err != nil || len(hwaddr) != 6 {
		return Errorf(ErrInvalid, "%q: want a hardware address such as 00:16:3e:12:34:56", value)
	}
	// The lowest bit of the first byte is set in addresses of groups (IEEE 802).
	if hwaddr[0]&1 != 0 || hwaddr.String() == "00:00:00:00:00:00" {
		return Errorf(ErrInvalid, "%q is not the address of one interface: make its first byte even, and not all of it zero", value)
	}
	return nil
}

func aDuration(value string) error {
	_, err := ParseExpiry(value, time.Time{})
	return err
}

func aPath(value string) error {
	if !strings.HasPrefix(value, "/") {
		return Errorf(ErrInvalid, "%q: want an absolute path", value)
	}
	return nil
}

// aPathInside is a path within the instance, which may not lead out of it.
func aPathInside(value string) error {
	if slices.Contains(strings.Split(value, "/"), "..") {
		return Errorf(ErrInvalid, "%q: want an absolute path without \"..\"", value)
	}
	return aPath(value)
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
