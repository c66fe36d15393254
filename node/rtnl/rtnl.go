// Package rtnl asks the kernel for whole lists of interfaces, addresses and routes.
//
// The kernel sends a long list in pieces, and says so when the list changed between two
// of them. On a machine on which containers come and go that is nothing unusual, so who
// needs the list asks again. It changes nothing.
package rtnl

import (
	"errors"

	"github.com/vishvananda/netlink"

	"muster/state"
)

// tries is how often a list is asked for. Each attempt takes a fraction of a
// millisecond, so whatever changes more often than that is no ordinary work.
const tries = 50

// Links are the interfaces of this machine.
func Links() ([]netlink.Link, error) { return whole(netlink.LinkList) }

// Addresses are those of the link, and of every link when it is nil.
func Addresses(link netlink.Link, family int) ([]netlink.Addr, error) {
	return whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, family) })
}

// Routes are those of the main table.
func Routes(family int) ([]netlink.Route, error) {
	return whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
}

// whole asks until nothing changed meanwhile.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	for range tries {
		if got, err := list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
	return nil, state.Errorf(state.ErrUnavailable, "the interfaces of this machine change faster than they can be listed: try again")
}
