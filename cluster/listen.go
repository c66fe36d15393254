package cluster

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"muster/state"
	"muster/state/store"
)

// The members of a cluster reach each other at IP addresses with a port. A user may name a
// host in core.https_address: the setting keeps the name, and the member's record has the
// address that the name leads to.

// addressKey is the setting that says where a member listens.
const addressKey = "core.https_address"

// defaultPort is the port of an address that names none.
const defaultPort = "8443"

// resolveTimeout bounds how long looking up a host name may take.
const resolveTimeout = 5 * time.Second

// ReachableAddress turns an address as users write it into one at which other members can reach this one: an IP address with a port. It refuses
// (ErrInvalid) wildcards, unknown host names, and host names that lead to this machine's
// loopback only, as its own name does on Debian. A loopback address that is written as such
// is taken: members on one machine reach each other there.
func ReachableAddress(ctx context.Context, address string) (string, error) {
	if _, _, err := net.SplitHostPort(address); err != nil && address != "" {
		address = net.JoinHostPort(strings.Trim(address, "[]"), defaultPort)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", usable(address)
	}
	if ip := net.ParseIP(host); ip != nil {
		return address, usable(address)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", state.Errorf(state.ErrInvalid, "%s is %q, and the host %q is not known here: write an IP address of this machine, such as 192.0.2.7:%s", addressKey, address, host, port)
	}
	// IPv4 first, as a listener on the name would have it.
	slices.SortStableFunc(found, func(a, b netip.Addr) int { return family(a) - family(b) })
	for _, ip := range found {
		if ip = ip.Unmap(); !ip.IsLoopback() && !ip.IsUnspecified() {
			return net.JoinHostPort(ip.String(), port), nil
		}
	}
	return "", state.Errorf(state.ErrInvalid, "%s is %q, and the host %q leads to %s, at which no other machine reaches this one: write the address at which the members reach each other, such as 192.0.2.7:%s, or correct /etc/hosts", addressKey, address, host, found[0].Unmap(), port)
}

func family(ip netip.Addr) int {
	if ip.Unmap().Is4() {
		return 4
	}
	return 6
}

// named reports whether the address names a host instead of an IP address or none.
func named(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	}
	return host != "" && net.ParseIP(host) == nil
}

// usable refuses addresses at which no other member could reach this one.
func usable(address string) error {
	host, _, err := net.SplitHostPort(address)
	if address == "" || err != nil {
		return state.Errorf(state.ErrInvalid, "the API listens on no address: set %s to one that the other members can reach, such as 192.0.2.7:8443", addressKey)
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		return state.Errorf(state.ErrInvalid, "%s is %q: the members of a cluster need the very address at which they reach each other, such as 192.0.2.7:8443", addressKey, address)
	}
	return nil
}

// Listen opens the API where core.https_address says. A member of a cluster whose
// core.https_address names a host listens where the name leads now, and tells the others
// when that is another address than before; while the name leads nowhere, it stays where
// the others look for it. An empty address is none.
func (c *Cluster) Listen(ctx context.Context) error {
	view := c.store.View()
	address := view.Setting(c.Self(), addressKey)
	if address == "" || c.cfg.Listen == nil {
		return nil
	}
	self, err := view.MemberByID(c.cfg.MemberID)
	if err != nil || self.Address == "" || !named(address) {
		return c.cfg.Listen(ctx, address)
	}
	leads, err := ReachableAddress(ctx, address)
	if err != nil {
		c.log.Error("find where core.https_address leads: this member stays where it was", "address", self.Address, "error", err)
		leads = self.Address
	}
	if err := c.cfg.Listen(ctx, leads); err != nil || leads == self.Address {
		return err
	}
	c.log.Info("this member has another address", "before", self.Address, "now", leads)
	return c.apply(ctx, store.SetSettings{Member: self.Name, Local: map[string]string{addressKey: address}, Address: leads})
}
