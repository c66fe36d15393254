package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"muster/node/network/dump"
	"muster/state"
)

// CheckExternal refuses interfaces for bridge.external_interfaces that serve the machine
// itself: taken into a bridge, its addresses would no longer be reached. An interface that
// does not exist yet is none of them.
func CheckExternal(names []string) error {
	for _, name := range names {
		link, err := netlink.LinkByName(name)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := unconfigured(link); err != nil {
			return err
		}
	}
	return nil
}

// checkPorts is CheckExternal for the interfaces of the plan that are not in its bridge
// yet. All of them must exist.
func (n *Networks) checkPorts(p *plan) error {
	if len(p.external) == 0 {
		return nil
	}
	bridge := 0
	if link, err := netlink.LinkByName(p.name); err == nil && link.Attrs().Alias == n.alias(p.name) {
		bridge = link.Attrs().Index
	}
	for _, name := range p.external {
		link, err := netlink.LinkByName(name)
		if isNotFound(err) {
			return state.Errorf(state.ErrInvalid, "bridge.external_interfaces: no interface %q on this member", name)
		}
		if err != nil {
			return err
		}
		if bridge != 0 && link.Attrs().MasterIndex == bridge {
			continue
		}
		if err := unconfigured(link); err != nil {
			return err
		}
	}
	return nil
}

// unconfigured refuses a link that carries addresses or is part of something else already.
// Addresses that the kernel makes by itself (fe80::/10) don't count.
func unconfigured(link netlink.Link) error {
	name := link.Attrs().Name
	if link.Attrs().Flags&net.FlagLoopback != 0 {
		return state.Errorf(state.ErrInvalid, "bridge.external_interfaces: %q is the loopback interface: choose another", name)
	}
	if index := link.Attrs().MasterIndex; index != 0 {
		master := fmt.Sprintf("another interface (%d)", index)
		if other, err := netlink.LinkByIndex(index); err == nil {
			master = fmt.Sprintf("%q", other.Attrs().Name)
		}
		return state.Errorf(state.ErrInvalid, "bridge.external_interfaces: interface %q is part of %s already: choose another", name, master)
	}
	addresses, err := dump.Addresses(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		if address.IP.IsGlobalUnicast() {
			return state.Errorf(state.ErrInvalid,
				"bridge.external_interfaces: interface %q carries the address %s: only unconfigured network interfaces can be bridged; remove its addresses or choose another",
				name, address.IPNet)
		}
	}
	return nil
}

// setPorts puts the plan's interfaces into the bridge, and lets those go that were put
// there before. A file keeps what was taken, so that a port that somebody else put there
// is left alone; it is written before the first change.
func (n *Networks) setPorts(bridge netlink.Link, p *plan) error {
	taken, err := n.takenPorts(p.name)
	if err != nil {
		return err
	}
	if len(taken) == 0 && len(p.external) == 0 {
		return nil
	}
	both := slices.Compact(slices.Sorted(slices.Values(slices.Concat(taken, p.external))))
	if err := n.noteTaken(p.name, both); err != nil {
		return err
	}
	for _, name := range both {
		port, err := netlink.LinkByName(name)
		wanted := slices.Contains(p.external, name)
		switch {
		case isNotFound(err) && !wanted:
			continue
		case err != nil:
			return fmt.Errorf("find interface %q: %w", name, err)
		case wanted:
			if err := netlink.LinkSetMaster(port, bridge); err != nil {
				return state.Errorf(state.ErrConflict, "bridge.external_interfaces: put %q into the bridge: %w", name, err)
			}
			if err := netlink.LinkSetUp(port); err != nil {
				return fmt.Errorf("bring %q up: %w", name, err)
			}
		case port.Attrs().MasterIndex == bridge.Attrs().Index:
			if err := netlink.LinkSetNoMaster(port); err != nil {
				return fmt.Errorf("take %q out of the bridge: %w", name, err)
			}
		}
	}
	return n.noteTaken(p.name, p.external)
}

func (n *Networks) takenPorts(network string) ([]string, error) {
	data, err := os.ReadFile(n.path(network, "ports"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return strings.Fields(string(data)), nil
}

func (n *Networks) noteTaken(network string, names []string) error {
	return n.write(network, "ports", []byte(strings.Join(names, "\n")+"\n"))
}

// setRoutes makes the plan's routes to the bridge and removes others of this kind. Routes
// of the kernel and those that people add have another protocol.
func setRoutes(bridge netlink.Link, p *plan) error {
	index := bridge.Attrs().Index
	wanted := map[string]bool{}
	for _, subnet := range p.routes {
		wanted[subnet.String()] = true
		_, dst, err := net.ParseCIDR(subnet.String())
		if err != nil {
			return err
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: index, Dst: dst, Protocol: unix.RTPROT_STATIC}); err != nil {
			return fmt.Errorf("route %s to the bridge: %w", subnet, err)
		}
	}
	filter := &netlink.Route{LinkIndex: index, Protocol: unix.RTPROT_STATIC}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		present, err := dump.Whole(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
		})
		if err != nil {
			return err
		}
		for _, route := range present {
			if route.Dst != nil && !wanted[route.Dst.String()] {
				if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("remove the route to %s: %w", route.Dst, err)
				}
			}
		}
	}
	return nil
}
