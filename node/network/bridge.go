package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"muster/node/rtnl"
	"muster/state"
)

// startBridge makes the bridge with its addresses.
func (n *Networks) startBridge(p *plan) error {
	link, err := n.ensureBridge(p)
	if err != nil {
		return err
	}
	if p.mtu > 0 && link.Attrs().MTU != p.mtu {
		if err := netlink.LinkSetMTU(link, p.mtu); err != nil {
			return fmt.Errorf("set the MTU: %w", err)
		}
	}
	// Router advertisements come from us, and a bridge without ports would wait
	// for ever for its address to be checked.
	for key, value := range map[string]string{"accept_ra": "0", "accept_dad": "0", "autoconf": "0"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+p.name+"/"+key, []byte(value), 0o644)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set %s: %w", key, err)
		}
	}
	if err := setAddresses(link, p); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring the bridge up: %w", err)
	}
	for _, name := range p.external {
		port, err := netlink.LinkByName(name)
		if err != nil {
			return state.Errorf(state.ErrInvalid, "bridge.external_interfaces: no interface %q on this member", name)
		}
		if err := netlink.LinkSetMaster(port, link); err != nil {
			return fmt.Errorf("put %s into the bridge: %w", name, err)
		}
	}
	return forwarding(p)
}

func (n *Networks) ensureBridge(p *plan) (netlink.Link, error) {
	link, err := netlink.LinkByName(p.name)
	if err == nil {
		if link.Attrs().Alias != n.alias(p.name) {
			return nil, state.Errorf(state.ErrConflict, "this machine already has an interface %q: choose another name", p.name)
		}
		return link, nil
	}
	if !isNotFound(err) {
		return nil, err
	}
	if err := p.overlaps(); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = p.name
	// A bridge without an address of its own takes its lowest port's, which
	// changes as containers come and go.
	attrs.HardwareAddr = p.hwaddr
	if attrs.HardwareAddr == nil {
		if attrs.HardwareAddr, err = net.ParseMAC(n.NewHWAddr()); err != nil {
			return nil, err
		}
	}
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("make the bridge: %w", err)
	}
	link, err = netlink.LinkByName(p.name)
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetAlias(link, n.alias(p.name)); err != nil {
		_ = netlink.LinkDel(link)
		return nil, fmt.Errorf("mark the bridge as ours: %w", err)
	}
	return link, nil
}

// setAddresses gives the bridge the plan's addresses and takes others away.
func setAddresses(link netlink.Link, p *plan) error {
	wanted := map[string]bool{}
	for _, prefix := range []netip.Prefix{p.v4, p.v6} {
		if !prefix.IsValid() {
			continue
		}
		wanted[prefix.String()] = true
		address, err := netlink.ParseAddr(prefix.String())
		if err != nil {
			return err
		}
		if prefix.Addr().Is6() {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(link, address); err != nil {
			return fmt.Errorf("set address %s: %w", prefix, err)
		}
	}
	present, err := rtnl.Addresses(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, address := range present {
		if !wanted[address.IPNet.String()] && !address.IP.IsLinkLocalUnicast() {
			if err := netlink.AddrDel(link, &address); err != nil {
				return fmt.Errorf("remove address %s: %w", address.IPNet, err)
			}
		}
	}
	return nil
}

func forwarding(p *plan) error {
	if p.v4Routing {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
			return state.Errorf(state.ErrConflict, "turn on forwarding: %w; set ipv4.routing to false to do without", err)
		}
	}
	if p.v6Routing {
		// Interfaces that learn their routes from advertisements go on doing so.
		err := os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return state.Errorf(state.ErrConflict, "turn on forwarding: %w; set ipv6.routing to false to do without", err)
		}
	}
	return nil
}

func (n *Networks) stopBridge(name string) error {
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if link.Attrs().Alias != n.alias(name) {
		return nil
	}
	if err := netlink.LinkDel(link); err != nil && !isNotFound(err) {
		return fmt.Errorf("remove the bridge: %w", err)
	}
	return nil
}

func isNotFound(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV)
}
