package lxc

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/state"
)

// addNIC makes an interface and moves it into a running container.
func addNIC(ctx context.Context, c *container, nic runtime.NIC) error {
	inside, namespace, err := inNetwork(c)
	if err != nil {
		return fmt.Errorf("enter the container's network: %w", err)
	}
	defer inside.Close()
	defer func() { _ = namespace.Close() }()
	if _, err := inside.LinkByName(nic.Name); err == nil {
		return state.Errorf(state.ErrExists, "the container has an interface %s already", nic.Name)
	}
	var mac net.HardwareAddr
	if nic.HWAddr != "" {
		if mac, err = net.ParseMAC(nic.HWAddr); err != nil {
			return err
		}
	}
	switch nic.Kind {
	case runtime.NICVeth:
		err = addVeth(nic, mac, int(namespace))
	case runtime.NICMacvlan:
		err = addMacvlan(nic, mac, int(namespace))
	case runtime.NICPhys:
		if err = markPhys(nic); err == nil {
			err = movePhys(nic, mac, int(namespace))
		}
	}
	if err != nil {
		return fmt.Errorf("add interface %s: %w", nic.Name, err)
	}
	if err := bringUp(inside, nic); err != nil {
		return errors.Join(fmt.Errorf("set up interface %s: %w", nic.Name, err), removeNIC(ctx, c, nic))
	}
	return nil
}

func addVeth(nic runtime.NIC, mac net.HardwareAddr, namespace int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = nic.HostName, nic.MTU
	if nic.Parent != "" {
		bridge, err := netlink.LinkByName(nic.Parent)
		if err != nil {
			return fmt.Errorf("bridge %s: %w", nic.Parent, err)
		}
		attrs.MasterIndex = bridge.Attrs().Index
		if attrs.MTU == 0 {
			attrs.MTU = bridge.Attrs().MTU
		}
	}
	// The inner end is made where it belongs and under its own name, so nobody
	// sees it in between.
	err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: nic.Name, PeerHardwareAddr: mac,
		PeerMTU: uint32(attrs.MTU), PeerNamespace: netlink.NsFd(namespace),
	})
	if errors.Is(err, unix.EEXIST) {
		return state.Errorf(state.ErrExists, "the host has an interface %s already", nic.HostName)
	}
	if err != nil {
		return err
	}
	host, err := netlink.LinkByName(nic.HostName)
	if err != nil {
		return err
	}
	if err := hostAddresses(host, nic); err != nil {
		return errors.Join(err, netlink.LinkDel(host))
	}
	return nil
}

// hostAddresses brings the host's end of a veth up, with its addresses.
func hostAddresses(host netlink.Link, nic runtime.NIC) error {
	if err := netlink.LinkSetUp(host); err != nil {
		return err
	}
	for _, text := range nic.HostAddresses {
		address, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := netlink.AddrReplace(host, address); err != nil {
			return fmt.Errorf("give %s to %s: %w", text, nic.HostName, err)
		}
	}
	return nil
}

// settleNICs gives the interfaces that liblxc made what it does not: addresses on
// the host's side.
func (r *Runtime) settleNICs(spec runtime.Spec) error {
	for _, nic := range spec.NICs {
		if len(nic.HostAddresses) == 0 {
			continue
		}
		host, err := netlink.LinkByName(nic.HostName)
		if err != nil {
			return fmt.Errorf("interface %s: %w", nic.HostName, err)
		}
		if err := hostAddresses(host, nic); err != nil {
			return err
		}
	}
	return nil
}

func addMacvlan(nic runtime.NIC, mac net.HardwareAddr, namespace int) error {
	parent, err := netlink.LinkByName(nic.Parent)
	if err != nil {
		return fmt.Errorf("parent %s: %w", nic.Parent, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = nic.Name, nic.MTU, mac
	attrs.ParentIndex, attrs.Namespace = parent.Attrs().Index, netlink.NsFd(namespace)
	return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE})
}

func movePhys(nic runtime.NIC, mac net.HardwareAddr, namespace int) error {
	link, err := netlink.LinkByName(nic.Parent)
	if err != nil {
		return fmt.Errorf("parent %s: %w", nic.Parent, err)
	}
	if err := netlink.LinkSetDown(link); err != nil {
		return err
	}
	if len(mac) > 0 {
		if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
			return err
		}
	}
	if nic.MTU != 0 {
		if err := netlink.LinkSetMTU(link, nic.MTU); err != nil {
			return err
		}
	}
	return netlink.LinkSetNsFd(link, namespace)
}

// bringUp finishes an interface inside the container.
func bringUp(inside *netlink.Handle, nic runtime.NIC) error {
	name := nic.Name
	if nic.Kind == runtime.NICPhys {
		name = nic.Parent
	}
	link, err := inside.LinkByName(name)
	if err != nil {
		return err
	}
	if name != nic.Name {
		if err := inside.LinkSetName(link, nic.Name); err != nil {
			return err
		}
	}
	if err := inside.LinkSetUp(link); err != nil {
		return err
	}
	for _, text := range nic.Addresses {
		address, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := inside.AddrAdd(link, address); err != nil {
			return err
		}
	}
	for _, gateway := range nic.Gateways {
		// A gateway of a routed interface is on no network of ours.
		err := inside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway), Flags: int(netlink.FLAG_ONLINK)})
		if err != nil {
			return err
		}
	}
	return nil
}

// removeNIC takes an interface from a running container. One that is gone
// already is no error: the container may have removed it itself.
func removeNIC(ctx context.Context, c *container, nic runtime.NIC) error {
	if nic.Kind == runtime.NICVeth {
		return removeHostEnd(nic)
	}
	inside, namespace, err := inNetwork(c)
	if err != nil {
		return fmt.Errorf("enter the container's network: %w", err)
	}
	defer inside.Close()
	defer func() { _ = namespace.Close() }()
	link, err := inside.LinkByName(nic.Name)
	if err != nil {
		// It is not there any more.
		return nil
	}
	if nic.Kind == runtime.NICMacvlan {
		return inside.LinkDel(link)
	}
	return errors.Join(moveBack(inside, nic), bringBack(context.WithoutCancel(ctx), nic))
}
