package state

import (
	"errors"
	"strings"
	"testing"
)

func TestNetworkConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		config Config
		want   string
	}{
		"nothing": {nil, "<nil>"},
		"what people set": {Config{
			"ipv4.address": "10.1.2.1/24", "ipv4.nat": "true", "ipv4.dhcp.ranges": "10.1.2.10-10.1.2.20, 10.1.2.30-10.1.2.40", "ipv4.dhcp.expiry": "2d",
			"ipv4.dhcp.gateway": "10.1.2.254", "ipv4.routes": "10.9.0.0/16,10.10.0.0/16", "ipv6.address": "fd42:1:2:3::1/64", "ipv6.dhcp.stateful": "true",
			"ipv6.dhcp.ranges": "fd42:1:2:3::10-fd42:1:2:3::20", "dns.domain": "lab.example", "dns.search": "lab.example,example", "dns.mode": "none",
			"bridge.mtu": "9000", "bridge.hwaddr": "00:16:3e:00:00:01", "bridge.external_interfaces": "eth1, eth2", "raw.dnsmasq": "log-queries\nlog-dhcp", "user.a": "b",
		}, "<nil>"},
		"automatic addresses":               {Config{"ipv4.address": "auto", "ipv6.address": "none"}, "<nil>"},
		"a misspelt key":                    {Config{"ipv4.adress": "none"}, `unknown network key "ipv4.adress": did you mean "ipv4.address"?`},
		"a key of LXD that is not built":    {Config{"bridge.mode": "fan"}, `network key "bridge.mode" is not supported by muster: leave it out`},
		"an address without a prefix":       {Config{"ipv4.address": "10.1.2.1"}, `network key "ipv4.address": "10.1.2.1": want an IPv4 address with a prefix length, such as 10.1.2.1/24`},
		"an address of the other family":    {Config{"ipv6.address": "10.1.2.1/24"}, `network key "ipv6.address": "10.1.2.1/24": want an IPv6 address with a prefix length, such as fd42:1::1/64`},
		"half of the world":                 {Config{"ipv4.address": "10.0.0.1/1"}, `network key "ipv4.address": "10.0.0.1/1": the subnet is too large; use /8 or smaller`},
		"the loopback's address":            {Config{"ipv4.address": "127.0.0.1/24"}, `network key "ipv4.address": "127.0.0.1/24" is not an address that a network can have`},
		"no address to hand out":            {Config{"ipv4.address": "10.1.2.1/32"}, `network key "ipv4.address": 10.1.2.1/32 has no addresses to hand out; use a larger subnet or set ipv4.dhcp to false`},
		"one address and nothing handed":    {Config{"ipv4.address": "10.1.2.1/32", "ipv4.dhcp": "false"}, "<nil>"},
		"guests that can't make addresses":  {Config{"ipv6.address": "fd42::1/80"}, `network key "ipv6.address": fd42::1/80 is not a /64, in which guests make their own addresses; use one or set ipv6.dhcp.stateful`},
		"guests that are given addresses":   {Config{"ipv6.address": "fd42::1/80", "ipv6.dhcp.stateful": "true"}, "<nil>"},
		"the subnet's own address":          {Config{"ipv4.address": "10.77.0.0/24"}, `network key "ipv4.address": 10.77.0.0 is the subnet's own, which the bridge can't have; use another of the subnet, such as 10.77.0.1/24`},
		"the broadcast address":             {Config{"ipv4.address": "10.77.0.255/24"}, `network key "ipv4.address": 10.77.0.255 is the subnet's broadcast address, which the bridge can't have; use another of the subnet, such as 10.77.0.1/24`},
		"a 255 in the middle":               {Config{"ipv4.address": "10.77.0.255/16"}, "<nil>"},
		"two addresses and nothing handed":  {Config{"ipv4.address": "10.77.0.0/31", "ipv4.dhcp": "false"}, "<nil>"},
		"the address of any router":         {Config{"ipv6.address": "fd42::/64"}, `network key "ipv6.address": fd42:: is the subnet's own, which the bridge can't have; use another of the subnet, such as fd42::1/64`},
		"the last of IPv6":                  {Config{"ipv6.address": "fd42::ffff:ffff:ffff:ffff/64"}, "<nil>"},
		"a range outside":                   {Config{"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.ranges": "10.1.3.1-10.1.3.9"}, `network key "ipv4.dhcp.ranges": 10.1.3.1 is not in the subnet 10.1.2.0/24`},
		"a range that ends early":           {Config{"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.ranges": "10.1.2.9-10.1.2.2"}, `network key "ipv4.dhcp.ranges": "10.1.2.9-10.1.2.2" ends before it begins`},
		"a range in nobody knows which":     {Config{"ipv4.dhcp.ranges": "10.1.2.2-10.1.2.9"}, `network key "ipv4.dhcp.ranges" needs to know the subnet: set ipv4.address too`},
		"a range of one":                    {Config{"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.ranges": "10.1.2.9"}, `network key "ipv4.dhcp.ranges": "10.1.2.9": want FIRST-LAST, two addresses`},
		"a range with a zone":               {Config{"ipv6.address": "fd42::1/64", "ipv6.dhcp.ranges": "fd42::2%x-fd42::3"}, `network key "ipv6.dhcp.ranges": "fd42::2%x" is not an IPv6 address`},
		"a gateway outside":                 {Config{"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.gateway": "10.1.3.1"}, `network key "ipv4.dhcp.gateway": 10.1.3.1 is not in the subnet 10.1.2.0/24`},
		"a lease time of no time":           {Config{"ipv4.dhcp.expiry": "0"}, `network key "ipv4.dhcp.expiry": "0": want a number with one of s, m, h, d, w, such as 1h, or infinite`},
		"a lease time with a second line":   {Config{"ipv4.dhcp.expiry": "1h\ndhcp-script=/evil"}, `network key "ipv4.dhcp.expiry": its value has a line break or another control character; take that away`},
		"a lease time with more behind it":  {Config{"ipv4.dhcp.expiry": "1h,x"}, `network key "ipv4.dhcp.expiry": "1h,x": want a number with one of s, m, h, d, w, such as 1h, or infinite`},
		"a domain with a second line":       {Config{"dns.domain": "lxd\nuser=root"}, `network key "dns.domain": its value has a line break or another control character; take that away`},
		"a domain with a slash":             {Config{"dns.domain": "a/b"}, `network key "dns.domain": "a/b": want a domain such as lxd or dc1.example`},
		"a domain of dots":                  {Config{"dns.domain": "a..b"}, `network key "dns.domain": "a..b": want a domain such as lxd or dc1.example`},
		"a route to a host in a subnet":     {Config{"ipv4.routes": "10.9.0.1/16"}, `network key "ipv4.routes": "10.9.0.1/16" is an address within a subnet: write 10.9.0.0/16`},
		"packets too small for IPv6":        {Config{"bridge.mtu": "600"}, `network key "bridge.mtu" 600: IPv6 needs 1280 at least; raise it or set ipv6.address to none`},
		"small packets without IPv6":        {Config{"bridge.mtu": "600", "ipv6.address": "none"}, "<nil>"},
		"a bridge of another make":          {Config{"bridge.driver": "openvswitch"}, `network key "bridge.driver": "openvswitch": want native`},
		"an external interface too long":    {Config{"bridge.external_interfaces": "eth0,averyveryverylong"}, `network key "bridge.external_interfaces": interface "averyveryverylong"… has 17 characters: use 15 at most`},
		"the loopback as a bridge's port":   {Config{"bridge.external_interfaces": "lo"}, `network key "bridge.external_interfaces": interface "lo" is reserved: choose another`},
		"IPv4 written as IPv6":              {Config{"ipv6.address": "::ffff:10.0.0.1/120"}, `network key "ipv6.address": "::ffff:10.0.0.1/120": want an IPv6 address with a prefix length, such as fd42:1::1/64`},
		"two languages of names in the DNS": {Config{"dns.mode": "both"}, `network key "dns.mode": "both": want managed, dynamic, none`},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, name, ValidateNetworkConfig(tc.config), tc.want) })
	}
}

// Values of these keys are lines of dnsmasq's configuration: what passes can't
// begin another line, nor another option on its own.
func FuzzNetworkConfig(f *testing.F) {
	for _, seed := range [][2]string{
		{"ipv4.address", "10.0.0.1/24"},
		{"ipv6.address", "fd42::1/64"},
		{"ipv6.dhcp.ranges", "fd42::1%\n-fd42::2"},
		{"ipv4.dhcp.expiry", "1h\nx"},
		{"dns.domain", "a\nb"},
		{"dns.search", "a,b"},
		{"ipv4.routes", "10.0.0.0/8"},
		{"bridge.external_interfaces", "a, b"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		err := ValidateNetworkConfig(Config{key: value})
		if err != nil {
			if !errors.Is(err, ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%q=%q: %q is not a plain sentence of kind ErrInvalid", key, value, err)
			}
			return
		}
		found, ok := networkKeys.find(key)
		if !ok || strings.Contains(value, "\x00") || !found.lines && strings.ContainsAny(value, "\n\r") {
			t.Errorf("%q=%q passes", key, value)
		}
		if found.check != nil && strings.ContainsAny(value, "#\"'\\=;$`%") {
			t.Errorf("%q=%q passes", key, value)
		}
	})
}
