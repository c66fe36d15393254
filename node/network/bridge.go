package network

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"muster/node/network/dump"
	"muster/state"
)

// startBridge makes the bridge with its addresses, routes and ports.
func (n *Networks) startBridge(p *plan) error {
	if err := n.checkPorts(p); err != nil {
		return err
	}
	link, err := n.ensureBridge(p)
	if err != nil {
		return err
	}
	if p.hwaddr != nil && !bytes.Equal(link.Attrs().HardwareAddr, p.hwaddr) {
		if err := netlink.LinkSetHardwareAddr(link, p.hwaddr); err != nil {
			return fmt.Errorf("set the hardware address: %w", err)
		}
	}
	if link.Attrs().MTU != p.mtu {
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
	if err := setRoutes(link, p); err != nil {
		return err
	}
	if err := n.setPorts(link, p); err != nil {
		return err
	}
	return forwarding(p)
}

// unmarked is what a bridge is called until it carries its alias. A daemon that is killed
// in between leaves a link that it knows by this name: a bridge under a network's own name
// carries the alias from its first moment.
func (n *Networks) unmarked() string { return "mu" + n.tag + "new" }

// removeUnmarked removes a bridge whose making was cut off.
func (n *Networks) removeUnmarked() error {
	link, err := netlink.LinkByName(n.unmarked())
	if isNotFound(err) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("remove a bridge that was half made: %w", err)
	}
	return nil
}

func (n *Networks) ensureBridge(p *plan) (netlink.Link, error) {
	link, err := netlink.LinkByName(p.name)
	if err == nil {
		if link.Attrs().Alias != n.alias(p.name) {
			return nil, state.Errorf(state.ErrConflict, "this machine already has an interface %q that is not of this server: remove it there, or choose another name", p.name)
		}
		return link, nil
	}
	if !isNotFound(err) {
		return nil, err
	}
	if err := p.overlaps(); err != nil {
		return nil, err
	}
	if err := n.removeUnmarked(); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.unmarked()
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
	link, err = n.mark(p.name)
	if err != nil {
		return nil, errors.Join(err, n.removeUnmarked())
	}
	return link, nil
}

// mark gives the new bridge its alias, and then its name.
func (n *Networks) mark(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(n.unmarked())
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetAlias(link, n.alias(name)); err != nil {
		return nil, fmt.Errorf("mark the bridge as ours: %w", err)
	}
	err = netlink.LinkSetName(link, name)
	if errors.Is(err, unix.EEXIST) {
		return nil, state.Errorf(state.ErrConflict, "this machine already has an interface %q that is not of this server: remove it there, or choose another name", name)
	}
	if err != nil {
		return nil, fmt.Errorf("name the bridge: %w", err)
	}
	return netlink.LinkByName(name)
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
	present, err := dump.Addresses(link, netlink.FAMILY_ALL)
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
	if p.v4Routing && p.v4.IsValid() {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
			return state.Errorf(state.ErrConflict, "turn on forwarding: %w; set ipv4.routing to false to do without", err)
		}
	}
	if p.v6Routing && p.v6.IsValid() {
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
