package network

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"muster/state"
)

// eventually waits for what dnsmasq does by itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func leasesOf(t *testing.T, n *Networks, network string) map[string]string {
	t.Helper()
	leases, _, err := n.handedOut(network)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, lease := range leases {
		found[lease.address] = lease.name
	}
	return found
}

// resolves asks the network's DNS for a name, from the network itself.
func resolves(t *testing.T, run func(args ...string) (string, error), name, address string) bool {
	t.Helper()
	out, err := run("busybox", "nslookup", "-type=a", name, "10.77.1.1")
	return err == nil && strings.Contains(out, "Address: "+address)
}

// The address of an instance that is gone is another's at once, and its name is nobody's.
func TestAnAddressThatIsReleasedIsFree(t *testing.T) {
	inNamespace(t)
	n := open(t)
	ctx := t.Context()
	if err := n.Start(ctx, testNetwork("mt0", "10.77.1.1/24")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Delete(context.WithoutCancel(ctx), "mt0"); err != nil {
			t.Error(err)
		}
	}()
	static := func(name, hwaddr string) Reservation {
		return Reservation{Network: "mt0", Device: "eth0", Name: name, HWAddr: hwaddr, IPv4: "10.77.1.50"}
	}
	keep(t, n, "c1", static("c1", "00:16:3e:00:00:01"))
	c1 := guest(t, "mt0", "00:16:3e:00:00:01")
	if out := ask4(t, c1); !strings.Contains(out, "10.77.1.50") {
		t.Fatalf("c1's lease: %s; want 10.77.1.50", out)
	}
	eventually(t, "c1 has its name", func() bool { return resolves(t, c1, "c1.lxd", "10.77.1.50") })

	keep(t, n, "c1")
	if leases := leasesOf(t, n, "mt0"); len(leases) > 0 {
		t.Errorf("leases after c1 was released: %v", leases)
	}
	if files, _ := os.ReadDir(n.path("mt0", reservationDir)); len(files) > 0 {
		t.Errorf("%d reservations are left", len(files))
	}
	keep(t, n, "c2", static("c2", "00:16:3e:00:00:02"))
	c2 := guest(t, "mt0", "00:16:3e:00:00:02")
	if out := ask4(t, c2); !strings.Contains(out, "10.77.1.50") {
		t.Errorf("c2's lease: %s; want 10.77.1.50, which c1 had", out)
	}
	eventually(t, "c1's name is gone and c2's there", func() bool {
		return !resolves(t, c2, "c1.lxd", "10.77.1.50") && resolves(t, c2, "c2.lxd", "10.77.1.50")
	})

	// What c2 has leased is not c3's; what nobody here has any more is.
	err := n.Keep(ctx, "c3", []Reservation{static("c3", "00:16:3e:00:00:03")})
	if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), `leased to instance "c2"`) {
		t.Errorf("an address that c2 has: %v; want it refused", err)
	}
	ask4(t, guest(t, "mt0", "00:16:3e:00:00:04"))
	theirs := ""
	for address, name := range leasesOf(t, n, "mt0") {
		if name != "c2" {
			theirs = address
		}
	}
	fourth := static("c4", "00:16:3e:00:00:05")
	fourth.IPv4 = theirs
	keep(t, n, "c4", fourth)
	if _, there := leasesOf(t, n, "mt0")[theirs]; there || theirs == "" {
		t.Errorf("%q is leased to a stranger still", theirs)
	}
	keep(t, n, "c4")

	// A change of the address: the old one is free, the new one is handed out.
	changed := static("c2", "00:16:3e:00:00:02")
	changed.IPv4 = "10.77.1.60"
	keep(t, n, "c2", changed)
	if leases := leasesOf(t, n, "mt0"); len(leases) > 0 {
		t.Errorf("leases after the address was changed: %v", leases)
	}
	if out := ask4(t, c2); !strings.Contains(out, "10.77.1.60") {
		t.Errorf("c2's lease: %s; want 10.77.1.60", out)
	}
	// Nothing changes: the lease stays, also over a restart of the daemon.
	again, err := New(Config{Dir: n.dir})
	if err != nil {
		t.Fatal(err)
	}
	network := testNetwork("mt0", "10.77.1.1/24")
	if err := again.Reconcile(ctx, []*state.Network{&network}); err != nil {
		t.Fatal(err)
	}
	keep(t, again, "c2", changed)
	if leases := leasesOf(t, n, "mt0"); leases["10.77.1.60"] != "c2" {
		t.Errorf("leases after nothing was changed: %v; want c2's", leases)
	}
	if owners, err := again.Owners(); len(owners) != 1 || err != nil {
		t.Errorf("owners are %v, %v; want c2", owners, err)
	}
	// In another subnet the old leases mean nothing, and are in nobody's way.
	if err := again.Start(ctx, testNetwork("mt0", "10.77.3.1/24")); err != nil {
		t.Fatal(err)
	}
	if leases := leasesOf(t, n, "mt0"); len(leases) > 0 {
		t.Errorf("leases after the network got another subnet: %v", leases)
	}
	if err := again.Start(ctx, testNetwork("mt0", "10.77.1.1/24")); err != nil {
		t.Fatal(err)
	}
	if out := ask4(t, c2); !strings.Contains(out, "10.77.1.60") {
		t.Errorf("c2's lease in the subnet that is back: %s; want 10.77.1.60", out)
	}
	// Without its server, the network forgets all the same.
	if err := again.stopDnsmasq(ctx, "mt0"); err != nil {
		t.Fatal(err)
	}
	keep(t, again, "c2")
	if leases := leasesOf(t, n, "mt0"); len(leases) > 0 {
		t.Errorf("leases after c2 was released: %v", leases)
	}
}

// The same for DHCPv6, where clients are known by other identifiers.
func TestAnAddressOfIPv6ThatIsReleasedIsFree(t *testing.T) {
	inNamespace(t)
	n := open(t)
	ctx := t.Context()
	network := state.Network{Project: "default", Name: "mt0", Type: "bridge", Config: state.Config{
		"ipv4.address": "none", "ipv6.address": "fd42:77::1/64", "ipv6.dhcp.stateful": "true",
	}}
	if err := n.Start(ctx, network); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Delete(context.WithoutCancel(ctx), "mt0"); err != nil {
			t.Error(err)
		}
	}()
	keep(t, n, "c1", Reservation{Network: "mt0", Device: "eth0", Name: "c1", HWAddr: "00:16:3e:00:00:01", IPv6: "fd42:77::50"})
	run := guest(t, "mt0", "00:16:3e:00:00:01")
	if out, err := run("busybox", "ip", "link", "set", "eth0", "up"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// The interface's own address takes a moment until it may be used.
	eventually(t, "c1 has its address", func() bool {
		t.Setenv(solicitFor, "00:16:3e:00:00:01")
		out, err := run(os.Args[0])
		t.Log(out, err)
		return leasesOf(t, n, "mt0")["fd42:77::50"] == "c1"
	})
	keep(t, n, "c1")
	if leases := leasesOf(t, n, "mt0"); len(leases) > 0 {
		t.Errorf("leases after c1 was released: %v", leases)
	}
}

// solicitFor makes a process of this test a guest that asks for an address by DHCPv6.
const solicitFor = "MUSTER_TEST_SOLICIT"

// solicit asks for an address, to be given with the first answer (RFC 8415, section 18.2.1).
func solicit(hwaddr string) error {
	mac, err := net.ParseMAC(hwaddr)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp6", &net.UDPAddr{Port: 546})
	if err != nil {
		return err
	}
	defer conn.Close()
	option := func(code byte, content ...byte) []byte {
		return append([]byte{0, code, 0, byte(len(content))}, content...)
	}
	packet := []byte{1, 1, 2, 3}
	packet = append(packet, option(1, append([]byte{0, 3, 0, 1}, mac...)...)...)
	packet = append(packet, option(3, append([]byte{0, 0, 0, 7}, make([]byte, 8)...)...)...)
	packet = append(packet, option(8, 0, 0)...)
	packet = append(packet, option(14)...)
	if _, err := conn.WriteTo(packet, &net.UDPAddr{IP: net.ParseIP("ff02::1:2"), Port: 547, Zone: "eth0"}); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1500))
	return err
}

func TestAnAddressOutsideIsRefused(t *testing.T) {
	inNamespace(t)
	n := open(t)
	ctx := t.Context()
	if err := n.Start(ctx, testNetwork("mt0", "10.77.1.1/24")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Delete(context.WithoutCancel(ctx), "mt0") }()
	err := n.Keep(ctx, "c1", []Reservation{{Network: "mt0", Device: "eth0", Name: "c1", HWAddr: "00:16:3e:00:00:01", IPv4: "10.78.1.5"}})
	if !errors.Is(err, state.ErrInvalid) {
		t.Errorf("an address outside the subnet: %v; want it refused", err)
	}
	if err := n.Keep(ctx, "c1", []Reservation{{Network: "mt9", Device: "eth0", Name: "c1", HWAddr: "00:16:3e:00:00:01"}}); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("a network that does not run: %v; want it refused", err)
	}
	if owners, err := n.Owners(); len(owners) > 0 || err != nil {
		t.Errorf("owners are %v, %v; want none", owners, err)
	}
}
