package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"muster/state"
)

// cutOffDir makes a process of this test the daemon that is killed: see startAndDelete.
const cutOffDir = "MUSTER_TEST_CUT_OFF"

func init() {
	if os.Getenv(cutOffDir) != "" {
		runtime.LockOSThread() // strace counts the calls of one thread
	}
}

func cutOffNetwork() state.Network {
	network := testNetwork("mt0", "10.77.1.1/24")
	network.Config["bridge.external_interfaces"] = "port0"
	network.Config["ipv4.routes"] = "10.78.0.0/16"
	return network
}

// startAndDelete makes a network with a reservation, and removes it.
func startAndDelete(dir string) int {
	ctx := context.Background()
	n, err := New(Config{Dir: dir})
	if err == nil {
		err = n.Start(ctx, cutOffNetwork())
	}
	if err == nil {
		err = n.Keep(ctx, "c1", []Reservation{{Network: "mt0", Device: "eth0", Name: "c1", HWAddr: "00:16:3e:00:00:01", IPv4: "10.77.1.9"}})
	}
	if err == nil {
		err = n.Delete(ctx, "mt0")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A daemon is killed at each call to the kernel by which it makes or removes a network.
// The next one, which does not know what became of it, can make the network, and removes
// all of it.
func TestKilledWhileANetworkIsMade(t *testing.T) {
	inNamespace(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port0"}, PeerName: "cable0"}
	if err := netlink.LinkAdd(port); err != nil {
		t.Fatal(err)
	}
	links := func() []string {
		list, err := netlink.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, link := range list {
			names = append(names, link.Attrs().Name)
		}
		slices.Sort(names)
		return names
	}
	before := links()
	kills := 0
	for _, call := range []string{"sendto", "sendmsg", "write", "renameat", "unlinkat", "mkdirat", "waitid", "pidfd_send_signal"} {
		for when := 1; ; when++ {
			n := open(t)
			cmd := exec.Command(strace, "-qq", "-o", "/dev/null", "-e", "trace="+call,
				"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, when), os.Args[0])
			cmd.Env = append(os.Environ(), cutOffDir+"="+n.dir)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
			if err != nil && !killed {
				t.Fatalf("%s %d: %v: %s", call, when, err, out)
			}
			at := fmt.Sprintf("killed at %s %d", call, when)
			if killed {
				kills++
			}
			// The network is still to be made.
			if err := n.Reconcile(t.Context(), nil); err != nil {
				t.Errorf("%s: start again without the network: %v", at, err)
			}
			if left := links(); !slices.Equal(left, before) {
				t.Errorf("%s: interfaces are %v after a start; want %v", at, left, before)
			}
			if tables := rules(t); len(tables) > 0 {
				t.Errorf("%s: firewall tables %v are left", at, tables)
			}
			if pids, err := n.servers("mt0"); err != nil || len(pids) > 0 {
				t.Errorf("%s: dnsmasq is left: %v, %v", at, pids, err)
			}
			if entries, _ := os.ReadDir(n.dir); len(entries) > 0 {
				t.Errorf("%s: %d directories are left", at, len(entries))
			}
			if err := n.Start(t.Context(), cutOffNetwork()); err != nil {
				t.Errorf("%s: make the network again: %v", at, err)
			}
			if err := n.Delete(t.Context(), "mt0"); err != nil {
				t.Errorf("%s: delete the network: %v", at, err)
			}
			if t.Failed() {
				t.FailNow()
			}
			if !killed {
				break
			}
		}
	}
	t.Logf("%d kills", kills)
	if kills < 20 {
		t.Errorf("the daemon was killed %d times: the test looks at other calls than it makes", kills)
	}
}

// What is left of a network that was made half, without a start in between: the daemon
// goes on.
func TestANetworkThatWasHalfMadeIsMade(t *testing.T) {
	inNamespace(t)
	n := open(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.unmarked()
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context(), testNetwork("mt0", "10.77.1.1/24")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Delete(context.WithoutCancel(t.Context()), "mt0") }()
	if InterfaceExists(n.unmarked()) {
		t.Error("the bridge that was half made is left")
	}
	if _, err := os.Stat(filepath.Join(n.dir, "mt0", "dnsmasq.conf")); err != nil {
		t.Error(err)
	}
	if pid := n.dnsmasqPID("mt0"); pid == 0 || !strings.Contains(n.alias("mt0"), n.tag) {
		t.Error("dnsmasq does not run")
	}
}
