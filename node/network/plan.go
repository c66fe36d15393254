package network

import (
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"muster/node/network/dump"
	"muster/state"
)

// plan is a network's configuration, read.
type plan struct {
	name     string
	hwaddr   net.HardwareAddr
	mtu      int
	external []string
	v4, v6   netip.Prefix // invalid when there is none
	// routes are the further subnets behind the bridge.
	routes       []netip.Prefix
	v4DHCP       bool
	v6DHCP       bool
	v4NAT, v6NAT bool
	v4Firewall   bool
	v6Firewall   bool
	v4Routing    bool
	v6Routing    bool
	config       state.Config
}

// defaultMTU is a bridge's unless bridge.mtu says otherwise.
const defaultMTU = 1500

// FillDefaults is the configuration of a new network: FillAuto, and the addresses that a
// bridge has unless told otherwise.
func FillDefaults(config state.Config) (state.Config, error) {
	filled := maps.Clone(config)
	if filled == nil {
		filled = state.Config{}
	}
	for _, key := range []string{"ipv4.address", "ipv6.address"} {
		if filled[key] == "" {
			filled[key] = "auto"
		}
	}
	return FillAuto(filled)
}

// FillAuto replaces "auto" by what it stands for on this machine, so that all members of
// a cluster agree. A family without an address stays without one.
func FillAuto(config state.Config) (state.Config, error) {
	filled := maps.Clone(config)
	for key, pick := range map[string]func() (string, error){"ipv4.address": AutoSubnet, "ipv6.address": autoSubnet6} {
		if filled[key] != "auto" {
			continue
		}
		address, err := pick()
		if err != nil {
			return nil, err
		}
		filled[key] = address
		if nat := key[:4] + ".nat"; filled[nat] == "" {
			filled[nat] = "true"
		}
	}
	return filled, nil
}

// AutoSubnet picks an address in a random private /24 that overlaps no address
// and no route of this machine.
func AutoSubnet() (string, error) {
	routes, err := dump.Whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return "", err
	}
	var taken []netip.Prefix
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		if prefix, err := netip.ParsePrefix(route.Dst.String()); err == nil && prefix.Bits() > 0 {
			taken = append(taken, prefix)
		}
	}
	addresses, err := dump.Addresses(nil, netlink.FAMILY_V4)
	if err != nil {
		return "", err
	}
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.IPNet.String()); err == nil {
			taken = append(taken, prefix.Masked())
		}
	}
	for range 256 {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rand.N(256)), byte(rand.N(256)), 1}), 24)
		free := true
		for _, other := range taken {
			free = free && !other.Overlaps(subnet.Masked())
		}
		if free {
			return subnet.String(), nil
		}
	}
	return "", state.Errorf(state.ErrConflict, "no free private subnet found: set ipv4.address yourself")
}

// autoSubnet6 is a random unique local /64 (RFC 4193).
func autoSubnet6() (string, error) {
	bytes := [16]byte{0xfd, 0x42}
	for i := 2; i < 8; i++ {
		bytes[i] = byte(rand.N(256))
	}
	bytes[15] = 1
	return netip.PrefixFrom(netip.AddrFrom16(bytes), 64).String(), nil
}

// planOf reads the configuration; what is wrong is ErrInvalid.
func planOf(network *state.Network) (*plan, error) {
	config := network.Config
	p := &plan{name: network.Name, config: config, mtu: defaultMTU}
	on := func(key string, otherwise bool) bool {
		if config[key] == "" {
			return otherwise
		}
		value, _ := state.ParseBool(config[key])
		return value
	}
	var err error
	if p.v4, err = prefixOf(config, "ipv4.address"); err != nil {
		return nil, err
	}
	if p.v6, err = prefixOf(config, "ipv6.address"); err != nil {
		return nil, err
	}
	p.v4DHCP = p.v4.IsValid() && on("ipv4.dhcp", true)
	p.v6DHCP = p.v6.IsValid() && on("ipv6.dhcp", true)
	p.v4NAT = p.v4.IsValid() && on("ipv4.nat", false)
	p.v6NAT = p.v6.IsValid() && on("ipv6.nat", false)
	p.v4Firewall = on("ipv4.firewall", true)
	p.v6Firewall = on("ipv6.firewall", true)
	p.v4Routing = on("ipv4.routing", true)
	p.v6Routing = on("ipv6.routing", true)
	if value := config["bridge.mtu"]; value != "" {
		if p.mtu, err = strconv.Atoi(value); err != nil {
			return nil, state.Errorf(state.ErrInvalid, "bridge.mtu %q is not a number", value)
		}
	}
	hwaddr := config["bridge.hwaddr"]
	if hwaddr == "" {
		hwaddr = config["volatile.bridge.hwaddr"]
	}
	if hwaddr != "" {
		if p.hwaddr, err = net.ParseMAC(hwaddr); err != nil {
			return nil, state.Errorf(state.ErrInvalid, "bridge.hwaddr %q is not a hardware address", hwaddr)
		}
	}
	for name := range strings.SplitSeq(config["bridge.external_interfaces"], ",") {
		if name = strings.TrimSpace(name); name != "" {
			p.external = append(p.external, name)
		}
	}
	for _, key := range []string{"ipv4.routes", "ipv6.routes"} {
		for subnet := range strings.SplitSeq(config[key], ",") {
			if subnet = strings.TrimSpace(subnet); subnet == "" {
				continue
			}
			prefix, err := netip.ParsePrefix(subnet)
			if err != nil {
				return nil, state.Errorf(state.ErrInvalid, "%s: %q is not a subnet", key, subnet)
			}
			p.routes = append(p.routes, prefix.Masked())
		}
	}
	return p, nil
}

func prefixOf(config state.Config, key string) (netip.Prefix, error) {
	value := config[key]
	if value == "" || value == "none" {
		return netip.Prefix{}, nil
	}
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		return netip.Prefix{}, state.Errorf(state.ErrInvalid, "%s %q: want an address with a prefix length", key, value)
	}
	return prefix, nil
}

func (p *plan) dnsmasq() bool {
	return p.v4.IsValid() || p.v6.IsValid()
}

// overlaps says that a subnet of the plan is already routed elsewhere.
func (p *plan) overlaps() error {
	addresses, err := dump.Addresses(nil, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		link, err := netlink.LinkByIndex(address.LinkIndex)
		if err != nil || link.Attrs().Name == p.name {
			continue
		}
		other, err := netip.ParsePrefix(address.IPNet.String())
		if err != nil {
			continue
		}
		for _, own := range []netip.Prefix{p.v4, p.v6} {
			if own.IsValid() && own.Masked().Overlaps(other.Masked()) {
				return state.Errorf(state.ErrConflict, "%s overlaps %s of interface %q: choose another subnet", own, other, link.Attrs().Name)
			}
		}
	}
	return nil
}
