// Package dump lists what the kernel has of links, addresses and routes, whole.
//
// It never decides what to list: the caller brings the call of netlink.
package dump

import (
	"errors"

	"github.com/vishvananda/netlink"

	"muster/state"
)

// tries is how often a list is begun. Two processes that did nothing but make and
// remove bridges interrupted it up to eight times in a row.
const tries = 100

// Whole returns a list that no change fell into. The kernel hands out long lists in
// parts, and what changes in between leaves out entries or repeats them: netlink
// returns those lists with netlink.ErrDumpInterrupted. They are asked for again; one
// that never gets through is state.ErrUnavailable.
func Whole[T any](list func() ([]T, error)) ([]T, error) {
	for range tries {
		entries, err := list()
		if err == nil {
			return entries, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, err
		}
	}
	return nil, state.Errorf(state.ErrUnavailable, "the interfaces of this machine change faster than they can be listed: %w", netlink.ErrDumpInterrupted)
}

// Addresses returns the addresses of the given family (netlink.FAMILY_ALL for both)
// on the link, or on all links when it is nil, by the rules of Whole.
func Addresses(link netlink.Link, family int) ([]netlink.Addr, error) {
	return Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, family) })
}
