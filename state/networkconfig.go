package state

import (
	"net/netip"
	"strconv"
	"strings"
)

// networkKeys are the configuration keys of managed bridges.
var networkKeys = table{
	what: "network key",
	keys: []Key{
		{Name: "bridge.driver", Help: "only native bridges are built", Default: "native", check: oneOf("native")},
		{Name: "bridge.external_interfaces", Help: "unused interfaces of the host to put into the bridge", check: listOf(anInterface)},
		{Name: "bridge.hwaddr", Help: "hardware address of the bridge", Default: "made up", check: aHWAddr},
		{Name: "bridge.mtu", Help: "maximum transfer unit", Default: "1500", check: aNumber(68, 65535)},
		{Name: "dns.domain", Help: "domain of the instances' names", Default: "lxd", check: aDomain},
		{Name: "dns.mode", Help: "whose names the DNS knows: managed, those of the instances; dynamic, those the guests choose; none", Default: "managed", check: oneOf("managed", "dynamic", "none")},
		{Name: "dns.search", Help: "domains to look names up in, separated by commas", Default: "dns.domain", check: listOf(aDomain)},
		{Name: "ipv4.address", Help: "address of the bridge with its prefix; auto picks a free private /24; none", Default: "auto", check: autoOr(aPrefix4)},
		{Name: "ipv4.dhcp", Help: "hand out addresses", Default: "true", check: aBool},
		{Name: "ipv4.dhcp.expiry", Help: "how long a lease holds", Default: "1h", check: aLeaseTime},
		{Name: "ipv4.dhcp.gateway", Help: "gateway to announce", Default: "the bridge", check: anIPv4},
		{Name: "ipv4.dhcp.ranges", Help: "addresses to hand out, FIRST-LAST, separated by commas", Default: "all", check: listOf(aRange(anIPv4))},
		{Name: "ipv4.firewall", Help: "make rules that let the instances through", Default: "true", check: aBool},
		{Name: "ipv4.nat", Help: "hide the instances behind the host's address", Default: "false; true when ipv4.address is auto", check: aBool},
		{Name: "ipv4.routes", Help: "further subnets to route to the bridge, separated by commas", check: listOf(aSubnet(aPrefix4))},
		{Name: "ipv4.routing", Help: "route to and from the bridge", Default: "true", check: aBool},
		{Name: "ipv6.address", Help: "address of the bridge with its prefix; auto picks a unique local /64; none", Default: "auto", check: autoOr(aPrefix6)},
		{Name: "ipv6.dhcp", Help: "answer DHCPv6", Default: "true", check: aBool},
		{Name: "ipv6.dhcp.expiry", Help: "how long a lease holds", Default: "1h", check: aLeaseTime},
		{Name: "ipv6.dhcp.ranges", Help: "addresses to hand out (ipv6.dhcp.stateful), FIRST-LAST, separated by commas", Default: "all", check: listOf(aRange(anIPv6))},
		{Name: "ipv6.dhcp.stateful", Help: "hand out addresses by DHCPv6; without it guests make their own", Default: "false", check: aBool},
		{Name: "ipv6.firewall", Help: "make rules that let the instances through", Default: "true", check: aBool},
		{Name: "ipv6.nat", Help: "hide the instances behind the host's address", Default: "false; true when ipv6.address is auto", check: aBool},
		{Name: "ipv6.routes", Help: "further subnets to route to the bridge, separated by commas", check: listOf(aSubnet(aPrefix6))},
		{Name: "ipv6.routing", Help: "route to and from the bridge", Default: "true", check: aBool},
		{Name: "raw.dnsmasq", Help: "lines added to dnsmasq's configuration", lines: true},
		{Name: "user.", Help: "anything you like", lines: true},
		{Name: "volatile.", Help: "kept by the server"},
	},
	missing: []string{
		"bgp.", "bridge.mode", "dns.zone.", "fan.", "ipv4.nat.address", "ipv4.nat.order", "ipv4.ovn.ranges",
		"ipv6.nat.address", "ipv6.nat.order", "ipv6.ovn.ranges", "maas.", "security.acls", "security.acls.", "tunnel.",
	},
}

// NetworkKeys lists the keys of managed networks.
func NetworkKeys() []Key { return networkKeys.keys }

// ValidateNetworkConfig checks the configuration of a managed bridge, key by key
// and each subnet with what must lie in it.
func ValidateNetworkConfig(config Config) error {
	if err := networkKeys.validateAll(config); err != nil {
		return err
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		if err := validateFamily(config, family); err != nil {
			return err
		}
	}
	if mtu, err := strconv.Atoi(config["bridge.mtu"]); err == nil && mtu < 1280 && config["ipv6.address"] != "none" {
		// RFC 8200, section 5.
		return Errorf(ErrInvalid, "network key \"bridge.mtu\" %d: IPv6 needs 1280 at least; raise it or set ipv6.address to none", mtu)
	}
	return nil
}

func validateFamily(config Config, family string) error {
	address := config[family+".address"]
	within := []string{family + ".dhcp.ranges", family + ".dhcp.gateway"}
	if address == "" || address == "auto" || address == "none" {
		for _, key := range within {
			if config[key] != "" {
				return Errorf(ErrInvalid, "network key %q needs to know the subnet: set %s.address too", key, family)
			}
		}
		return nil
	}
	subnet, err := netip.ParsePrefix(address)
	if err != nil {
		return Errorf(ErrInvalid, "network key \"%s.address\": %w", family, err)
	}
	if err := validateSubnet(config, family, subnet); err != nil {
		return err
	}
	if err := validateGateway(family, subnet); err != nil {
		return err
	}
	for _, key := range within {
		for _, part := range strings.FieldsFunc(config[key], func(r rune) bool { return r == ',' || r == '-' || r == ' ' }) {
			if addr, err := netip.ParseAddr(part); err != nil || !subnet.Contains(addr) {
				return Errorf(ErrInvalid, "network key %q: %s is not in the subnet %s", key, part, subnet.Masked())
			}
		}
	}
	return nil
}

// validateSubnet refuses a subnet that could not serve as it is asked to.
func validateSubnet(config Config, family string, subnet netip.Prefix) error {
	dhcp := config[family+".dhcp"] == ""
	if !dhcp {
		dhcp, _ = ParseBool(config[family+".dhcp"])
	}
	stateful, _ := ParseBool(config[family+".dhcp.stateful"])
	key := family + ".address"
	switch {
	case family == "ipv4" && dhcp && subnet.Bits() > 30:
		return Errorf(ErrInvalid, "network key %q: %s has no addresses to hand out; use a larger subnet or set ipv4.dhcp to false", key, subnet)
	case family == "ipv6" && (!stateful || !dhcp) && subnet.Bits() != 64:
		// RFC 4862: guests make their addresses of 64 bits of their own.
		return Errorf(ErrInvalid, "network key %q: %s is not a /64, in which guests make their own addresses; use one or set ipv6.dhcp.stateful", key, subnet)
	case family == "ipv6" && (subnet.Bits() < 64 || subnet.Bits() > 126):
		return Errorf(ErrInvalid, "network key %q: %s can't be served by DHCPv6; use /64 to /126", key, subnet)
	}
	return nil
}

// validateGateway refuses the addresses of a subnet that no interface can have: its first,
// which is the subnet's own or, in IPv6, that of any router (RFC 4291, section 2.6.1), and
// the last of IPv4, which reaches all. A subnet of two addresses or one has neither (RFC 3021,
// RFC 6164).
func validateGateway(family string, subnet netip.Prefix) error {
	addr := subnet.Addr()
	if addr.BitLen()-subnet.Bits() < 2 {
		return nil
	}
	first := subnet.Masked().Addr()
	what := ""
	switch {
	case addr == first:
		what = "the subnet's own"
	case addr.Is4() && !subnet.Contains(addr.Next()):
		what = "the subnet's broadcast address"
	default:
		return nil
	}
	return Errorf(ErrInvalid, "network key \"%s.address\": %s is %s, which the bridge can't have; use another of the subnet, such as %s",
		family, addr, what, netip.PrefixFrom(first.Next(), subnet.Bits()))
}

func autoOr(check func(string) error) func(string) error {
	return func(value string) error {
		if value == "auto" || value == "none" {
			return nil
		}
		return check(value)
	}
}

func aPrefix4(value string) error {
	prefix, err := netip.ParsePrefix(value)
	if err != nil || !prefix.Addr().Is4() {
		return Errorf(ErrInvalid, "%q: want an IPv4 address with a prefix length, such as 10.1.2.1/24", value)
	}
	return aHostIn(prefix, 8)
}

func aPrefix6(value string) error {
	prefix, err := netip.ParsePrefix(value)
	if err != nil || !prefix.Addr().Is6() || prefix.Addr().Is4In6() {
		return Errorf(ErrInvalid, "%q: want an IPv6 address with a prefix length, such as fd42:1::1/64", value)
	}
	return aHostIn(prefix, 16)
}

// aHostIn refuses a prefix whose address is not one that an interface can have.
func aHostIn(prefix netip.Prefix, shortest int) error {
	addr, bits := prefix.Addr(), prefix.Bits()
	switch {
	case bits < shortest:
		return Errorf(ErrInvalid, "%q: the subnet is too large; use /%d or smaller", prefix, shortest)
	case addr.IsLoopback() || addr.IsMulticast() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() || addr.Is4() && addr.As4()[0] >= 240:
		return Errorf(ErrInvalid, "%q is not an address that a network can have", prefix)
	}
	return nil
}

// aSubnet refuses a prefix that has bits beyond its length: of two readings one
// would be wrong.
func aSubnet(check func(string) error) func(string) error {
	return func(value string) error {
		if err := check(value); err != nil {
			return err
		}
		if prefix, err := netip.ParsePrefix(value); err == nil && prefix != prefix.Masked() {
			return Errorf(ErrInvalid, "%q is an address within a subnet: write %s", value, prefix.Masked())
		}
		return nil
	}
}

func aRange(check func(string) error) func(string) error {
	return func(value string) error {
		first, last, ok := strings.Cut(value, "-")
		if !ok {
			return Errorf(ErrInvalid, "%q: want FIRST-LAST, two addresses", value)
		}
		for _, end := range []string{first, last} {
			if err := check(end); err != nil {
				return err
			}
		}
		from, _ := netip.ParseAddr(first)
		to, _ := netip.ParseAddr(last)
		if to.Less(from) {
			return Errorf(ErrInvalid, "%q ends before it begins", value)
		}
		return nil
	}
}

// aLeaseTime is a time in the words of dnsmasq(8), "dhcp-range".
func aLeaseTime(value string) error {
	if value == "infinite" {
		return nil
	}
	number := value
	if unit := strings.IndexAny(value, "smhdw"); unit == len(value)-1 {
		number = value[:unit]
	}
	if count, err := strconv.ParseUint(number, 10, 24); err != nil || count == 0 {
		return Errorf(ErrInvalid, "%q: want a number with one of s, m, h, d, w, such as 1h, or infinite", value)
	}
	return nil
}

// aDomain is a name of the DNS (RFC 1035).
func aDomain(value string) error {
	wrong := Errorf(ErrInvalid, "%q: want a domain such as lxd or dc1.example", value)
	if len(value) > 253 {
		return wrong
	}
	for label := range strings.SplitSeq(value, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
		}) {
			return wrong
		}
	}
	return nil
}

func anInterface(value string) error { return ValidateInterfaceName("interface", value) }
