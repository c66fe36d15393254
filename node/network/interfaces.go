package network

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"muster/node/network/dump"
	"muster/state"
)

// Interface is a network interface of this machine.
type Interface struct {
	Name string
	// Type is "bridge", "physical", "vlan", "bond", "macvlan", "loopback" or
	// "unknown".
	Type string
}

// Interfaces returns the interfaces of this machine that could serve as a
// network, sorted by name; ends of containers are left out.
func Interfaces(_ context.Context) ([]Interface, error) {
	links, err := dump.Whole(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	var list []Interface
	for _, link := range links {
		kind := typeOf(link)
		if kind == "" {
			continue
		}
		list = append(list, Interface{Name: link.Attrs().Name, Type: kind})
	}
	slices.SortFunc(list, func(a, b Interface) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func typeOf(link netlink.Link) string {
	if link.Attrs().Flags&net.FlagLoopback != 0 {
		return "loopback"
	}
	switch link.Type() {
	case "bridge", "vlan", "bond", "macvlan":
		return link.Type()
	case "device":
		return "physical"
	case "veth", "tun", "tuntap", "ifb", "sit", "ip6tnl", "ipip", "gre", "gretap":
		return ""
	}
	return "unknown"
}

// State is how an interface of this machine is.
type State struct {
	Addresses []Address
	HWAddr    string
	MTU       int
	Up        bool
	// Type is "broadcast", "loopback" or "point-to-point".
	Type     string
	Counters Counters
	// Bridge is set for bridges.
	Bridge *BridgeState
}

// Address is an address of an interface.
type Address struct {
	// Family is "inet" or "inet6"; Netmask is the prefix length; Scope is
	// "global", "link" or "local".
	Family, Address, Netmask, Scope string
}

// Counters count since the interface came to be.
type Counters struct {
	BytesReceived, BytesSent, PacketsReceived, PacketsSent int64
}

// BridgeState is what bridges have besides.
type BridgeState struct {
	ID string
	// Ports are the interfaces in the bridge.
	Ports []string
}

// StateOf tells how an interface of this machine is; one that does not exist is
// ErrNotFound.
func StateOf(_ context.Context, name string) (State, error) {
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return State{}, state.Errorf(state.ErrNotFound, "this member has no interface %q", name)
	}
	if err != nil {
		return State{}, err
	}
	attrs := link.Attrs()
	found := State{
		Addresses: []Address{}, HWAddr: attrs.HardwareAddr.String(), MTU: attrs.MTU,
		Up: attrs.Flags&net.FlagUp != 0, Type: "broadcast",
	}
	switch {
	case attrs.Flags&net.FlagLoopback != 0:
		found.Type = "loopback"
	case attrs.Flags&net.FlagPointToPoint != 0:
		found.Type = "point-to-point"
	}
	if statistics := attrs.Statistics; statistics != nil {
		found.Counters = Counters{
			BytesReceived: int64(statistics.RxBytes), BytesSent: int64(statistics.TxBytes),
			PacketsReceived: int64(statistics.RxPackets), PacketsSent: int64(statistics.TxPackets),
		}
	}
	addresses, err := dump.Addresses(link, netlink.FAMILY_ALL)
	if err != nil {
		return State{}, err
	}
	for _, address := range addresses {
		found.Addresses = append(found.Addresses, addressOf(address))
	}
	if link.Type() == "bridge" {
		found.Bridge, err = bridgeState(link)
	}
	return found, err
}

func addressOf(address netlink.Addr) Address {
	family := "inet"
	if address.IP.To4() == nil {
		family = "inet6"
	}
	scope := "global"
	switch netlink.Scope(address.Scope) {
	case netlink.SCOPE_LINK:
		scope = "link"
	case netlink.SCOPE_HOST:
		scope = "local"
	}
	bits, _ := address.Mask.Size()
	return Address{Family: family, Address: address.IP.String(), Netmask: strconv.Itoa(bits), Scope: scope}
}

func bridgeState(link netlink.Link) (*BridgeState, error) {
	links, err := dump.Whole(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	bridge := &BridgeState{ID: "8000." + strings.ReplaceAll(link.Attrs().HardwareAddr.String(), ":", ""), Ports: []string{}}
	for _, port := range links {
		if port.Attrs().MasterIndex == link.Attrs().Index {
			bridge.Ports = append(bridge.Ports, port.Attrs().Name)
		}
	}
	slices.Sort(bridge.Ports)
	return bridge, nil
}
