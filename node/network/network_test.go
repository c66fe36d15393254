package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"

	"muster/state"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(cutOffDir); dir != "" {
		os.Exit(startAndDelete(dir))
	}
	if hwaddr := os.Getenv(solicitFor); hwaddr != "" {
		if err := solicit(hwaddr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// inNamespace moves the test's thread into a network namespace of its own, where
// nothing it makes outlives it.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	own, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = netns.Set(before)
		_ = own.Close()
		_ = before.Close()
		runtime.UnlockOSThread()
	})
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) *Networks {
	t.Helper()
	dir, err := os.MkdirTemp("", "muster-net-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n, err := New(Config{Dir: filepath.Join(dir, "networks"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// guest plugs a veth into the bridge whose other end has a namespace of its own,
// and returns that namespace's name for "ip netns exec"-like calls.
func guest(t *testing.T, bridge, hwaddr string) (run func(args ...string) (string, error)) {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	there, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Set(here); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = there.Close(); _ = here.Close() })
	mac, err := net.ParseMAC(hwaddr)
	if err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "g" + strings.ReplaceAll(hwaddr[9:], ":", "")
	master, err := netlink.LinkByName(bridge)
	if err != nil {
		t.Fatal(err)
	}
	attrs.MasterIndex = master.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: mac, PeerNamespace: netlink.NsFd(int(there))}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		t.Fatal(err)
	}
	return func(args ...string) (string, error) {
		if err := netns.Set(there); err != nil {
			return "", err
		}
		defer func() { _ = netns.Set(here) }()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		return string(out), err
	}
}

// ask4 asks for an address as a guest does when it starts, and takes it.
func ask4(t *testing.T, run func(args ...string) (string, error)) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "dhcp")
	err := os.WriteFile(script, []byte("#!/bin/busybox sh\n[ \"$1\" = bound ] && busybox ip addr add $ip/$mask dev $interface\nexit 0\n"), 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := run("busybox", "ip", "link", "set", "eth0", "up"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := run("busybox", "udhcpc", "-i", "eth0", "-q", "-n", "-f", "-t", "10", "-T", "1", "-s", script)
	if err != nil {
		t.Fatalf("udhcpc: %v: %s", err, out)
	}
	return out
}

func keep(t *testing.T, n *Networks, owner string, wanted ...Reservation) {
	t.Helper()
	if err := n.Keep(t.Context(), owner, wanted); err != nil {
		t.Fatalf("keep the addresses of %s: %v", owner, err)
	}
}

func testNetwork(name, subnet string) state.Network {
	return state.Network{Project: "default", Name: name, Type: "bridge", Config: state.Config{
		"ipv4.address": subnet, "ipv4.nat": "true", "ipv6.address": "none",
	}}
}

func TestAContainerGetsAnAddressAndAName(t *testing.T) {
	inNamespace(t)
	n := open(t)
	ctx := t.Context()
	network := testNetwork("mt0", "10.77.1.1/24")
	if err := n.Start(ctx, network); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Delete(context.WithoutCancel(ctx), "mt0"); err != nil {
			t.Error(err)
		}
	}()
	keep(t, n, "c1", Reservation{Network: "mt0", Device: "eth0", Name: "c1", HWAddr: "00:16:3e:00:00:01"})
	keep(t, n, "c2", Reservation{Network: "mt0", Device: "eth0", Name: "c2", HWAddr: "00:16:3e:00:00:02", IPv4: "10.77.1.50"})
	lease := func(hwaddr string) string {
		run := guest(t, "mt0", hwaddr)
		out := ask4(t, run)
		for _, name := range []string{"c2.lxd", "c2"} {
			if out, err := run("busybox", "nslookup", "-type=a", name, "10.77.1.1"); err != nil || !strings.Contains(out, "10.77.1.50") {
				t.Logf("nslookup %s: %v: %s", name, err, out)
			}
		}
		return out
	}
	first, second := lease("00:16:3e:00:00:01"), lease("00:16:3e:00:00:02")
	if !strings.Contains(first, "10.77.1.") {
		t.Errorf("first lease: %s", first)
	}
	if !strings.Contains(second, "10.77.1.50") {
		t.Errorf("reserved lease: got %s; want 10.77.1.50", second)
	}
	leases, err := n.Leases(ctx, "mt0")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, lease := range leases {
		names[lease.Hostname] = lease.Type
	}
	if names["c1"] != "dynamic" || names["c2"] != "static" {
		t.Errorf("leases = %v; want c1 dynamic and c2 static", leases)
	}
}

func TestWhatIsMadeIsRemoved(t *testing.T) {
	inNamespace(t)
	n := open(t)
	ctx := t.Context()
	if err := n.Start(ctx, testNetwork("mt0", "10.77.1.1/24")); err != nil {
		t.Fatal(err)
	}
	pid := n.dnsmasqPID("mt0")
	if pid == 0 {
		t.Error("dnsmasq does not run")
	}
	// Again, as after a restart of the daemon: nothing is made anew.
	if err := n.Start(ctx, testNetwork("mt0", "10.77.1.1/24")); err != nil {
		t.Fatal(err)
	}
	if again := n.dnsmasqPID("mt0"); again != pid {
		t.Errorf("dnsmasq was %d and is %d after a second start; want the same", pid, again)
	}
	if tables := rules(t); len(tables) != 1 {
		t.Errorf("tables = %v; want one", tables)
	}
	for range 2 {
		if err := n.Delete(ctx, "mt0"); err != nil {
			t.Fatal(err)
		}
	}
	if InterfaceExists("mt0") || n.dnsmasqPID("mt0") != 0 || len(rules(t)) != 0 {
		t.Errorf("left: bridge %v, dnsmasq %d, tables %v", InterfaceExists("mt0"), n.dnsmasqPID("mt0"), rules(t))
	}
}

// A machine that goes down keeps the networks in which something is still plugged, and
// what it knew of the others.
func TestAMachineGoesDown(t *testing.T) {
	inNamespace(t)
	n := open(t)
	ctx := t.Context()
	for name, address := range map[string]string{"mt0": "10.77.1.1/24", "mt1": "10.77.2.1/24"} {
		if err := n.Start(ctx, testNetwork(name, address)); err != nil {
			t.Fatal(err)
		}
	}
	used, err := netlink.LinkByName("mt1")
	if err != nil {
		t.Fatal(err)
	}
	plug := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "mtv0", MasterIndex: used.Attrs().Index}, PeerName: "mtv1"}
	if err := netlink.LinkAdd(plug); err != nil {
		t.Fatal(err)
	}
	if err := n.StopAll(ctx); err != nil {
		t.Fatal(err)
	}
	if InterfaceExists("mt0") || n.dnsmasqPID("mt0") != 0 {
		t.Error("the network that nobody uses is there still")
	}
	if !InterfaceExists("mt1") || n.dnsmasqPID("mt1") == 0 || len(rules(t)) != 1 {
		t.Errorf("of the network that is used, left: bridge %v, dnsmasq %d, tables %v", InterfaceExists("mt1"), n.dnsmasqPID("mt1"), rules(t))
	}
	if _, err := os.Stat(n.path("mt0", "hosts")); err != nil {
		t.Errorf("what the network knew is gone: %v", err)
	}
	if err := netlink.LinkDel(plug); err != nil {
		t.Fatal(err)
	}
	if err := n.StopAll(ctx); err != nil {
		t.Fatal(err)
	}
	if InterfaceExists("mt1") || len(rules(t)) != 0 {
		t.Error("the network is there still when nothing is plugged into it any more")
	}
}

// Interfaces are what the kernel says they are.
func TestKindsOfInterfaces(t *testing.T) {
	inNamespace(t)
	n := open(t)
	if err := n.Start(t.Context(), testNetwork("mt0", "10.77.1.1/24")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Delete(context.WithoutCancel(t.Context()), "mt0") }()
	for name, want := range map[string]string{"lo": "loopback", "mt0": "broadcast"} {
		if got, err := StateOf(t.Context(), name); got.Type != want || err != nil {
			t.Errorf("%s is of type %q, %v; want %q", name, got.Type, err, want)
		}
	}
	list, err := Interfaces(t.Context())
	if i := slices.IndexFunc(list, func(i Interface) bool { return i.Name == "lo" }); i < 0 || list[i].Type != "loopback" {
		t.Errorf("interfaces %+v, %v; want lo, a loopback", list, err)
	}
}

func rules(t *testing.T) []string {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, table := range tables {
		names = append(names, table.Name)
	}
	return names
}

func TestTwoDaemonsLeaveEachOtherAlone(t *testing.T) {
	inNamespace(t)
	ctx := t.Context()
	a, b := open(t), open(t)
	if err := a.Start(ctx, testNetwork("mt0", "10.77.1.1/24")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Delete(context.WithoutCancel(ctx), "mt0") }()
	if err := b.Start(ctx, testNetwork("mt0", "10.77.2.1/24")); !errors.Is(err, state.ErrConflict) {
		t.Errorf("a second daemon takes the name: %v; want a conflict", err)
	}
	if err := b.Start(ctx, testNetwork("mt1", "10.77.1.129/25")); !errors.Is(err, state.ErrConflict) {
		t.Errorf("a second daemon takes the subnet: %v; want a conflict", err)
	}
	if err := b.Start(ctx, testNetwork("mt1", "10.77.2.1/24")); err != nil {
		t.Fatal(err)
	}
	// b forgets mt1 and cleans up after itself, not after a.
	if err := b.Reconcile(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if !InterfaceExists("mt0") || a.dnsmasqPID("mt0") == 0 || InterfaceExists("mt1") {
		t.Errorf("after b forgot its network: mt0 %v, dnsmasq of a %d, mt1 %v", InterfaceExists("mt0"), a.dnsmasqPID("mt0"), InterfaceExists("mt1"))
	}
}

func TestADHCPServerThatEndsIsStartedAgain(t *testing.T) {
	inNamespace(t)
	n := open(t)
	ctx := t.Context()
	if err := n.Start(ctx, testNetwork("mt0", "10.77.1.1/24")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Delete(context.WithoutCancel(ctx), "mt0") }()
	pid := n.dnsmasqPID("mt0")
	process, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); n.dnsmasqPID("mt0") == pid && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	n.supervise(ctx)
	if again := n.dnsmasqPID("mt0"); again == 0 || again == pid {
		t.Errorf("dnsmasq was %d and is %d after it was killed", pid, again)
	}
}

func TestRangesLeaveOutTheBridge(t *testing.T) {
	for subnet, want := range map[string]string{
		"10.1.2.1/24":   "10.1.2.2-10.1.2.254",
		"10.1.2.254/24": "10.1.2.1-10.1.2.253",
		"10.1.0.1/16":   "10.1.0.2-10.1.255.254",
	} {
		span := ranges("", netip.MustParsePrefix(subnet))[0]
		if got := fmt.Sprintf("%s-%s", span[0], span[1]); got != want {
			t.Errorf("ranges of %s = %s; want %s", subnet, got, want)
		}
	}
}

// Every machine that starts containers changes interfaces while somebody lists them.
func TestListsGetThroughWhileInterfacesComeAndGo(t *testing.T) {
	inNamespace(t)
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	// Enough for the kernel to hand out the lists in several parts.
	for i := range 40 {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprintf("still%d", i)
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var churn sync.WaitGroup
	for i := range 2 {
		churn.Go(func() {
			handle, err := netlink.NewHandleAt(here)
			if err != nil {
				t.Error(err)
				return
			}
			defer handle.Close()
			attrs := netlink.NewLinkAttrs()
			attrs.Name = fmt.Sprintf("brief%d", i)
			for ctx.Err() == nil {
				if err := errors.Join(handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}), handle.LinkDel(&netlink.Bridge{LinkAttrs: attrs})); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer churn.Wait()
	defer stop()
	interrupted := 0
	for range 10000 {
		if _, err := netlink.LinkList(); errors.Is(err, netlink.ErrDumpInterrupted) {
			interrupted++
		}
		if _, err := Interfaces(ctx); err != nil {
			t.Fatalf("interfaces, after %d lists were interrupted: %v", interrupted, err)
		}
		if _, err := StateOf(ctx, "still0"); err != nil {
			t.Fatalf("state of an interface, after %d lists were interrupted: %v", interrupted, err)
		}
		if _, err := AutoSubnet(); err != nil {
			t.Fatalf("a free subnet, after %d lists were interrupted: %v", interrupted, err)
		}
		if interrupted == 5 {
			return
		}
	}
	t.Skipf("the kernel interrupted %d of 10000 lists: too few to tell", interrupted)
}
