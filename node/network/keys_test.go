package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"muster/node/network/dump"
	"muster/state"
)

// host is all that a network is on its host, in words.
func host(t *testing.T, n *Networks, name string) string {
	t.Helper()
	var out strings.Builder
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "hwaddr %s\nmtu %d\n", link.Attrs().HardwareAddr, link.Attrs().MTU)
	bridge, err := bridgeState(link)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range bridge.Ports {
		found, err := StateOf(t.Context(), port)
		fmt.Fprintf(&out, "port %s up %v %v\n", port, found.Up, err)
	}
	addresses, err := dump.Addresses(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if address.IP.IsGlobalUnicast() {
			fmt.Fprintf(&out, "address %s\n", address.IPNet)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(link, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, route := range routes {
			fmt.Fprintf(&out, "route %v\n", route.Dst)
		}
	}
	nft, err := exec.Command("nft", "list", "table", "inet", n.tableName(name)).CombinedOutput()
	if err != nil {
		nft = nil
	}
	out.Write(nft)
	for _, file := range []string{"dnsmasq.conf", reservationDir + "/c1:eth0"} {
		content, _ := os.ReadFile(n.path(name, file))
		out.Write(content)
	}
	fmt.Fprintf(&out, "dnsmasq %v\n", n.dnsmasqPID(name) != 0)
	return out.String()
}

// Every key of a network that is accepted takes effect on one that exists, and when it is
// unset that effect goes.
func TestEveryKeyTakesEffect(t *testing.T) {
	inNamespace(t)
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port0"}, PeerName: "cable0"}); err != nil {
		t.Fatal(err)
	}
	n := open(t)
	ctx := t.Context()
	base := state.Config{
		"ipv4.address": "10.77.1.1/24", "ipv6.address": "fd42:77::1/64", "volatile.bridge.hwaddr": "00:16:3e:00:00:99",
	}
	start := func(config state.Config) {
		t.Helper()
		if err := n.Start(ctx, state.Network{Project: "default", Name: "mt0", Type: "bridge", Config: config}); err != nil {
			t.Fatal(err)
		}
	}
	start(base)
	defer func() { _ = n.Delete(context.WithoutCancel(ctx), "mt0") }()
	keep(t, n, "c1", Reservation{Network: "mt0", Device: "eth0", Name: "c1", HWAddr: "00:16:3e:00:00:01"})
	before := host(t, n, "mt0")
	type effect struct {
		value string
		with  state.Config // what it needs besides
		// has is there with the key and not without it, lacks the other way round.
		has, lacks string
	}
	effects := map[string]effect{
		"bridge.external_interfaces": {value: "port0", has: "port port0 up true <nil>\n"},
		"bridge.hwaddr":              {value: "00:16:3e:00:00:aa", has: "hwaddr 00:16:3e:00:00:aa\n", lacks: "hwaddr 00:16:3e:00:00:99\n"},
		"bridge.mtu":                 {value: "1400", has: "mtu 1400\n", lacks: "mtu 1500\n"},
		"dns.domain":                 {value: "lab.example", has: "domain=lab.example\nlocal=/lab.example/\n", lacks: "domain=lxd\n"},
		"dns.mode":                   {value: "dynamic", has: "\n00:16:3e:00:00:01\n", lacks: "dhcp-ignore-names\n"},
		"dns.search":                 {value: "a.example, b.example", has: "dhcp-option=option:domain-search,a.example,b.example\n"},
		"ipv4.address":               {value: "10.77.2.1/24", has: "address 10.77.2.1/24\n", lacks: "address 10.77.1.1/24\n"},
		"ipv4.dhcp":                  {value: "false", lacks: "dhcp-range=10.77.1.2,10.77.1.254,1h\n"},
		"ipv4.dhcp.expiry":           {value: "2d", has: "dhcp-range=10.77.1.2,10.77.1.254,2d\n"},
		"ipv4.dhcp.gateway":          {value: "10.77.1.254", has: "dhcp-option=option:router,10.77.1.254\n"},
		"ipv4.dhcp.ranges":           {value: "10.77.1.10-10.77.1.20", has: "dhcp-range=10.77.1.10,10.77.1.20,1h\n"},
		"ipv4.firewall":              {value: "false", lacks: "meta nfproto ipv4 iifname \"mt0\" accept\n"},
		"ipv4.nat":                   {value: "true", has: "ip saddr 10.77.1.0/24"},
		"ipv4.routes":                {value: "10.88.0.0/16,10.89.0.0/16", has: "route 10.89.0.0/16\n"},
		"ipv4.routing":               {value: "false", has: "meta nfproto ipv4 iifname \"mt0\" drop\n"},
		"ipv6.address":               {value: "none", has: "dnsmasq true\n", lacks: "address fd42:77::1/64\n"},
		"ipv6.dhcp":                  {value: "false", has: "constructor:mt0,ra-only\n"},
		"ipv6.dhcp.expiry":           {value: "2d", with: state.Config{"ipv6.dhcp.stateful": "true"}, has: ",64,2d\n"},
		"ipv6.dhcp.ranges":           {value: "fd42:77::10-fd42:77::20", with: state.Config{"ipv6.dhcp.stateful": "true"}, has: "dhcp-range=fd42:77::10,fd42:77::20,64,1h\n"},
		"ipv6.dhcp.stateful":         {value: "true", has: "dhcp-range=fd42:77::2,"},
		"ipv6.firewall":              {value: "false", lacks: "meta nfproto ipv6 iifname \"mt0\" accept\n"},
		"ipv6.nat":                   {value: "true", has: "ip6 saddr fd42:77::/64"},
		"ipv6.routes":                {value: "fd42:88::/64", has: "route fd42:88::/64\n"},
		"ipv6.routing":               {value: "false", has: "meta nfproto ipv6 iifname \"mt0\" drop\n"},
		"raw.dnsmasq":                {value: "log-dhcp", has: "\nlog-dhcp\n"},
	}
	// bridge.driver has one value, the others are no business of the host.
	without := []string{"bridge.driver", "user.", "volatile."}
	for _, key := range state.NetworkKeys() {
		e, known := effects[key.Name]
		if !known {
			if !slices.Contains(without, key.Name) {
				t.Errorf("nobody looks at the effect of network key %q", key.Name)
			}
			continue
		}
		// Not in a test of its own: that would have another thread, in another namespace.
		config := maps.Clone(base)
		maps.Copy(config, e.with)
		config[key.Name] = e.value
		if err := state.ValidateNetworkConfig(config); err != nil {
			t.Fatal(err)
		}
		start(config)
		with := host(t, n, "mt0")
		if !strings.Contains(with, e.has) || e.lacks != "" && strings.Contains(with, e.lacks) {
			t.Errorf("with %s=%s the host has\n%s\nwant %q, and not %q", key.Name, e.value, with, e.has, e.lacks)
		}
		if e.lacks != "" && !strings.Contains(before, e.lacks) {
			t.Errorf("without the key the host lacks %q:\n%s", e.lacks, before)
		}
		if e.lacks == "" && strings.Contains(before, e.has) {
			t.Errorf("without the key the host has %q:\n%s", e.has, before)
		}
		start(base)
		if after := host(t, n, "mt0"); after != before {
			t.Errorf("after %s was unset the host has\n%s\nand had before it was set\n%s", key.Name, after, before)
		}
	}
	if found, err := netlink.LinkByName("port0"); err != nil || found.Attrs().MasterIndex != 0 {
		t.Errorf("port0 is in a bridge still: %v, %v", found, err)
	}
}

// An interface that the machine needs for itself is not taken.
func TestAnInterfaceWithAddressesIsNotTaken(t *testing.T) {
	inNamespace(t)
	for _, name := range []string{"port0", "port1", "port2"} {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "cable" + name[4:]}); err != nil {
			t.Fatal(err)
		}
	}
	port, err := netlink.LinkByName("port0")
	if err != nil {
		t.Fatal(err)
	}
	give := func(link netlink.Link, address string) {
		t.Helper()
		parsed, err := netlink.ParseAddr(address)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(link, parsed); err != nil {
			t.Fatal(err)
		}
	}
	give(port, "10.79.0.1/24")
	n := open(t)
	ctx := t.Context()
	network := testNetwork("mt0", "10.77.1.1/24")
	with := func(ports string) state.Network {
		config := maps.Clone(network.Config)
		config["bridge.external_interfaces"] = ports
		return state.Network{Project: "default", Name: "mt0", Type: "bridge", Config: config}
	}
	refused := func(ports, want string) {
		t.Helper()
		err := n.Start(ctx, with(ports))
		if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("taking %s: %v; want it refused: %s", ports, err, want)
		}
	}
	refused("port1,port0", `"port0" carries the address 10.79.0.1/24: only unconfigured network interfaces can be bridged`)
	if InterfaceExists("mt0") {
		t.Error("the bridge was made all the same")
	}
	if err := n.Start(ctx, network); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Delete(context.WithoutCancel(ctx), "mt0") }()
	refused("port1,port0", "only unconfigured network interfaces")
	for _, name := range []string{"port0", "port1"} {
		if port, err := netlink.LinkByName(name); err != nil || port.Attrs().MasterIndex != 0 {
			t.Errorf("%s was taken: %v", name, err)
		}
	}
	// One that is ours already stays, whatever it carries meanwhile.
	if err := n.Start(ctx, with("port1")); err != nil {
		t.Fatal(err)
	}
	port1, err := netlink.LinkByName("port1")
	if err != nil {
		t.Fatal(err)
	}
	give(port1, "10.79.1.1/24")
	if err := n.Start(ctx, with("port1")); err != nil {
		t.Errorf("start again: %v", err)
	}
	// One that somebody else put into the bridge is left there.
	bridge, err := netlink.LinkByName("mt0")
	if err != nil {
		t.Fatal(err)
	}
	port2, err := netlink.LinkByName("port2")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMaster(port2, bridge); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(ctx, network); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"port1": 0, "port2": bridge.Attrs().Index} {
		if port, err := netlink.LinkByName(name); err != nil || port.Attrs().MasterIndex != want {
			t.Errorf("%s is in %d, %v; want %d", name, port.Attrs().MasterIndex, err, want)
		}
	}
	other := with("port2")
	other.Name = "mt1"
	other.Config["ipv4.address"] = "10.77.9.1/24"
	if err := n.Start(ctx, other); !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), `is part of "mt0" already`) {
		t.Errorf("taking an interface of another bridge: %v; want it refused", err)
	}
	_ = n.Delete(ctx, "mt1")
}
