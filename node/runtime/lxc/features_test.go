package lxc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"muster/node/runtime"
	"muster/node/runtime/runtimetest"
	"muster/state"
)

// A command that writes to its terminal and ends at once is heard, every time.
func TestNoTerminalOutputIsLost(t *testing.T) {
	r := open(t)
	start(t, r, spec(t, "c1"))
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 125 {
				want := fmt.Sprintf("%d-%d", worker, i)
				p, err := r.Exec(t.Context(), "c1", runtime.ExecSpec{Command: []string{"echo", want}, Interactive: true})
				if err != nil {
					t.Error(err)
					return
				}
				out, err := io.ReadAll(p.Terminal())
				if string(out) != want+"\r\n" || err != nil {
					t.Errorf("the terminal of %s has %q, %v", want, out, err)
				}
				if code, err := p.Wait(t.Context()); code != 0 || err != nil {
					t.Errorf("%s ended with %d, %v", want, code, err)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// Much output arrives whole, and a descendant that keeps the terminal open does
// not keep its reader waiting.
func TestTerminalEndsWithItsCommand(t *testing.T) {
	r := open(t)
	start(t, r, spec(t, "c1"))
	for name, tc := range map[string]struct {
		script string
		want   int
	}{
		"much output":      {"seq 1 20000", len("1\r\n")*9 + len("10\r\n")*90 + len("100\r\n")*900 + len("1000\r\n")*9000 + len("10000\r\n")*10001},
		"a background job": {"trap '' HUP; sleep 1000 & echo done", len("done\r\n")},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := r.Exec(t.Context(), "c1", runtime.ExecSpec{Command: []string{"sh", "-c", tc.script}, Interactive: true})
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			out, err := io.ReadAll(p.Terminal())
			if len(out) != tc.want || err != nil {
				t.Errorf("read %d bytes, %v; want %d", len(out), err, tc.want)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("reading took %s", took)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The terminal is one of the container's own, belongs to the user and is hung up
// when the client goes.
func TestTerminalIsTheContainers(t *testing.T) {
	r := open(t)
	start(t, r, spec(t, "c1"))
	run := func(spec runtime.ExecSpec) string {
		spec.Interactive = true
		p, err := r.Exec(t.Context(), "c1", spec)
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(p.Terminal())
		if err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		return string(out)
	}
	if out := run(runtime.ExecSpec{Command: []string{"tty"}}); !strings.HasPrefix(out, "/dev/pts/") {
		t.Errorf("tty says %q; want a terminal in /dev/pts", out)
	}
	out := run(runtime.ExecSpec{Command: []string{"sh", "-c", "stat -c '%u %a' $(tty); : < /dev/tty && echo mine"}, UID: 1000, GID: 1000})
	if out != "1000 620\r\nmine\r\n" {
		t.Errorf("the terminal is %q; want that of user 1000 and controlling", out)
	}
	p, err := r.Exec(t.Context(), "c1", runtime.ExecSpec{
		Command: []string{"sh", "-c", "trap 'touch /tmp/hung-up; exit 3' HUP; echo ready; while true; do sleep 1000 & wait $!; done"}, Interactive: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var seen [100]byte
	if _, err := p.Terminal().Read(seen[:]); err != nil {
		t.Fatal(err)
	}
	if err := p.Terminal().Close(); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(t.Context()); code != 3 || err != nil {
		t.Errorf("after its terminal was closed the command ended with %d, %v; want 3 by SIGHUP", code, err)
	}
	if err := p.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	p, err = r.Exec(t.Context(), "c1", runtime.ExecSpec{
		Command: []string{"sh", "-c", "trap 'stty size; exit' WINCH; echo ready; while true; do sleep 1000 & wait $!; done"}, Interactive: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Terminal().Read(seen[:]); err != nil {
		t.Fatal(err)
	}
	if err := p.Terminal().Resize(123, 45); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(p.Terminal())
	if string(rest) != "45 123\r\n" || err != nil {
		t.Errorf("after Resize the command says %q, %v; want 45 123", rest, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// The process that stays with a container is small.
func TestMonitorIsSmall(t *testing.T) {
	r := open(t)
	info := start(t, r, spec(t, "c1"))
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", info.MonitorPID))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil || kb > 2048 {
				t.Errorf("the monitor's share of memory is %d kB, %v; want at most 2048", kb, err)
			}
			t.Logf("the monitor's share of memory is %d kB", kb)
		}
	}
}

// Clean and forced stops are done when they return; an init that does not listen
// keeps running until it is forced.
func TestStops(t *testing.T) {
	r := open(t)
	deaf := spec(t, "deaf")
	deaf.Init = []string{"/bin/sh", "-c", "trap '' PWR USR1 USR2 TERM; while true; do sleep 1000; done"}
	start(t, r, deaf)
	err := r.Stop(t.Context(), "deaf", runtime.Stop{Timeout: 100 * time.Millisecond})
	if !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("Stop of an init that does not listen: %v; want ErrUnavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- r.Stop(ctx, "deaf", runtime.Stop{}) }()
	if _, err := r.Info(t.Context(), "deaf"); err != nil {
		t.Errorf("Info: %v; want it still running", err)
	}
	// A forced stop need not wait for the patient one.
	begin := time.Now()
	if err := r.Stop(t.Context(), "deaf", runtime.Stop{Force: true}); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("a forced stop beside a patient one took %s", took)
	}
	// It may also have come too late to find the container.
	if err := <-stopped; err != nil && !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the patient stop: %v; want success, since the container has ended", err)
	}
	cancel()
	wantNothingLeft(t, r, "deaf")

	own := spec(t, "own")
	own.Signals.Halt = "SIGTERM"
	own.Init = []string{"/bin/sh", "-c", "trap 'exit 0' TERM; while true; do sleep 1000 & wait $!; done"}
	start(t, r, own)
	runtimetest.Eventually(t, func() string {
		if err := r.Stop(t.Context(), "own", runtime.Stop{Timeout: 100 * time.Millisecond}); err != nil {
			return err.Error()
		}
		return ""
	})
}

// An init that fails is a crash.
func TestCrashIsTold(t *testing.T) {
	r := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan runtime.Event, 10)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, func(e runtime.Event) { events <- e }) }()
	defer func() { cancel(); <-done }()
	for name, tc := range map[string]struct {
		script string
		want   runtime.ExitReason
	}{
		"an init that fails":        {"sleep 0.05; exit 3", runtime.ExitCrash},
		"an init that just returns": {"sleep 0.05; exit 0", runtime.ExitShutdown},
	} {
		s := spec(t, "c1")
		s.Init = []string{"/bin/sh", "-c", tc.script}
		start(t, r, s)
		if e := next(t, events); e.Kind != runtime.EventExited || e.Reason != tc.want {
			t.Errorf("%s: %+v; want exited by %s", name, e, tc.want)
		}
		wantNothingLeft(t, r, "c1")
	}
	info := start(t, r, spec(t, "c1"))
	if err := syscall.Kill(info.InitPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := next(t, events); e.Kind != runtime.EventExited || e.Reason != runtime.ExitCrash {
		t.Errorf("an init that somebody killed: %+v; want exited by crash", e)
	}
}

// All limits reach the kernel, at the start and later.
func TestLimits(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	low := 2
	s.Limits = runtime.Limits{
		CPU:       runtime.CPULimits{Set: "0", Share: 50, Priority: &low},
		Memory:    runtime.MemoryLimits{Limit: 64 << 20, NoSwap: true},
		Processes: 50,
		Kernel:    map[string]string{"nofile": "200:300"},
	}
	start(t, r, s)
	if _, out := runtimetest.Sh(t, r, "c1", "grep 'open files' /proc/1/limits; grep Cpus_allowed_list /proc/1/status"); !strings.Contains(out, "200") || !strings.Contains(out, "list:\t0\n") {
		t.Errorf("init's limits are %q; want 200 files and processor 0", out)
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		t.Skip("needs control groups of version 1 for what follows")
	}
	want := func(values map[string]string) {
		t.Helper()
		for file, value := range values {
			controller, _, _ := strings.Cut(file, ".")
			if got := groupFile(t, r, "c1", controller, file); got != value {
				t.Errorf("%s is %q; want %q", file, got, value)
			}
		}
	}
	want(map[string]string{
		"cpuset.cpus": "0", "cpu.shares": "504", "pids.max": "50", "memory.limit_in_bytes": "67108864",
		"memory.memsw.limit_in_bytes": "67108864", "memory.swappiness": "0",
	})
	all := groupFile(t, r, "..", "cpuset", "../cpuset.cpus")
	if err := r.SetLimits(t.Context(), "c1", runtime.Limits{
		CPU: runtime.CPULimits{Quota: 20000, Period: 100000}, Memory: runtime.MemoryLimits{Limit: 1 << 30},
	}); err != nil {
		t.Fatal(err)
	}
	want(map[string]string{
		"cpu.cfs_quota_us": "20000", "cpu.cfs_period_us": "100000", "cpu.shares": "1024", "pids.max": "max",
		"memory.limit_in_bytes": "1073741824", "memory.memsw.limit_in_bytes": "1073741824", "memory.swappiness": "60",
	})
	if got := groupFile(t, r, "c1", "cpuset", "cpuset.cpus"); got == "0" && all != "0" {
		t.Errorf("cpuset.cpus is still %q", got)
	}
	// Smaller than what is used: the container is told so, not killed.
	err := r.SetLimits(t.Context(), "c1", runtime.Limits{Memory: runtime.MemoryLimits{Limit: 4096}})
	if err != nil && !errors.Is(err, state.ErrConflict) {
		t.Errorf("a limit below what is used: %v; want ErrConflict or success", err)
	}
	err = r.SetLimits(t.Context(), "c1", runtime.Limits{CPU: runtime.CPULimits{Set: "4000"}})
	if !errors.Is(err, state.ErrInvalid) {
		t.Errorf("a processor that does not exist: %v; want ErrInvalid", err)
	}
}

// Containers of one processor each get different ones.
func TestProcessorsAreSpread(t *testing.T) {
	r := open(t)
	var sets []string
	for _, id := range []string{"c1", "c2"} {
		s := spec(t, id)
		s.Limits.CPU.Count = 1
		start(t, r, s)
		sets = append(sets, groupFile(t, r, id, "cpuset", "cpuset.cpus"))
	}
	if sets[0] == sets[1] && slices.ContainsFunc([]string{"/proc/self/status"}, hasTwoCPUs) {
		t.Errorf("both containers are on processor %s", sets[0])
	}
}

func hasTwoCPUs(status string) bool {
	text, err := os.ReadFile(status)
	return err == nil && !strings.Contains(string(text), "Cpus_allowed_list:\t0\n")
}

// Disks are shown as asked for: at the start, later, and after a reboot.
func TestMounts(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "a file")
	if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	mounts := []runtime.Mount{
		{Source: dir, Path: "/mnt/plain"},
		{Source: dir, Path: "/mnt/read only", ReadOnly: true},
		{Source: dir, Path: "/mnt/shifted", Shift: true},
		{Source: file, Path: "/etc/one file"},
		{Source: "/no/such", Path: "/mnt/none", Optional: true},
		{Source: dir, Path: "/mnt/deep", Recursive: true, Propagation: "rslave"},
	}
	check := func(when string) {
		t.Helper()
		script := `stat -c %u "/mnt/plain/a file"; { echo x > "/mnt/read only/x"; } 2>/dev/null || echo refused
stat -c %u "/mnt/shifted/a file"; touch /mnt/shifted/made && stat -c %u /mnt/shifted/made; cat "/etc/one file"; ls /mnt/deep | head -n1`
		_, out := runtimetest.Sh(t, r, "c1", script)
		if want := "65534\nrefused\n0\n0\ncontenta file\n"; out != want {
			t.Errorf("%s the container sees %q; want %q", when, out, want)
		}
		var stat syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, "made"), &stat); err != nil || stat.Uid != 0 {
			t.Errorf("%s what the container made through a shifted disk belongs to %d, %v; want 0", when, stat.Uid, err)
		}
	}
	s.Mounts = mounts
	start(t, r, s)
	check("from the start")
	for _, m := range mounts {
		if err := r.RemoveMount(t.Context(), "c1", m.Path); err != nil {
			t.Fatalf("RemoveMount(%s): %v", m.Path, err)
		}
	}
	if _, out := runtimetest.Sh(t, r, "c1", "ls /mnt/plain /mnt/shifted; grep -c /mnt/ /proc/mounts"); strings.Contains(out, "file") || !strings.HasSuffix(out, "\n0\n") {
		t.Errorf("after RemoveMount the container sees %q", out)
	}
	for _, m := range mounts {
		if err := r.AddMount(t.Context(), "c1", m); err != nil {
			t.Fatalf("AddMount(%+v): %v", m, err)
		}
	}
	check("while it runs")
	if _, err := r.Restart(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	check("after a restart")
	// A link of the container's does not lead a mount out.
	if code, out := runtimetest.Sh(t, r, "c1", "ln -s /../../../../tmp /leads-out"); code != 0 {
		t.Fatal(out)
	}
	if err := r.AddMount(t.Context(), "c1", runtime.Mount{Source: dir, Path: "/leads-out/here"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/tmp/here"); err == nil {
		t.Error("a mount was made on the host")
	}
	if _, out := runtimetest.Sh(t, r, "c1", "stat -c %u /tmp/here; ls /tmp/here"); !strings.Contains(out, "a file") {
		t.Errorf("the mount is not in the container: %q", out)
	}
}

// Interfaces of every kind, from the start and later, with addresses; physical
// ones come back.
func TestInterfaces(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	br := bridge(t)
	// One end of a pair stands for a physical interface.
	card := func(name string) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: hostName()}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			link, err := netlink.LinkByName(name)
			if err != nil {
				t.Errorf("interface %s has not come back: %v", name, err)
				return
			}
			if err := netlink.LinkDel(link); err != nil {
				t.Error(err)
			}
		})
	}
	parent, phys := hostName(), hostName()
	card(parent)
	card(phys)
	if err := netlink.LinkSetUp(mustLink(t, parent)); err != nil {
		t.Fatal(err)
	}
	nics := []runtime.NIC{
		{Name: "eth0", Kind: runtime.NICVeth, Parent: br, HostName: hostName(), HWAddr: "00:16:3e:00:00:01", Addresses: []string{"10.99.0.2/24", "fd00:99::2/64"}},
		{Name: "eth1", Kind: runtime.NICVeth, HostName: hostName(), HostAddresses: []string{"10.98.0.1/32"}, Addresses: []string{"10.98.0.2/24"}},
		{Name: "eth2", Kind: runtime.NICMacvlan, Parent: parent},
		{Name: "eth3", Kind: runtime.NICPhys, Parent: phys, MTU: 1300},
	}
	check := func(when string) {
		t.Helper()
		list, err := r.Interfaces(t.Context(), "c1")
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]runtime.Interface{}
		for _, i := range list {
			found[i.Name] = i
		}
		for _, nic := range nics {
			i, ok := found[nic.Name]
			if !ok || !i.Up || i.HostName != nic.HostName || nic.HWAddr != "" && i.HWAddr != nic.HWAddr || nic.MTU != 0 && i.MTU != nic.MTU {
				t.Errorf("%s: %s is %+v; want %+v", when, nic.Name, i, nic)
			}
			for _, address := range nic.Addresses {
				if !slices.ContainsFunc(i.Addresses, func(a runtime.Address) bool {
					return fmt.Sprintf("%s/%d", a.Address, a.Netmask) == address && a.Scope == "global"
				}) {
					t.Errorf("%s: %s has %+v; want %s", when, nic.Name, i.Addresses, address)
				}
			}
		}
		host, err := net.InterfaceByName(nics[1].HostName)
		if err != nil {
			t.Fatal(err)
		}
		addresses, err := host.Addrs()
		if err != nil || !slices.ContainsFunc(addresses, func(a net.Addr) bool { return a.String() == "10.98.0.1/32" }) {
			t.Errorf("%s: the host's end has %v, %v; want 10.98.0.1/32", when, addresses, err)
		}
	}
	s.NICs = nics
	start(t, r, s)
	check("from the start")
	for _, nic := range nics {
		if err := r.RemoveNIC(t.Context(), "c1", nic.Name); err != nil {
			t.Fatalf("RemoveNIC(%s): %v", nic.Name, err)
		}
	}
	if _, err := net.InterfaceByName(phys); err != nil {
		t.Errorf("the physical interface has not come back: %v", err)
	}
	for _, nic := range nics {
		if err := r.AddNIC(t.Context(), "c1", nic); err != nil {
			t.Fatalf("AddNIC(%s): %v", nic.Name, err)
		}
	}
	check("while it runs")
	if _, err := r.Restart(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	check("after a restart")
	taken := runtime.NIC{Name: "eth9", Kind: runtime.NICVeth, HostName: nics[0].HostName}
	if err := r.AddNIC(t.Context(), "c1", taken); !errors.Is(err, state.ErrExists) {
		t.Errorf("AddNIC under a name that the host has: %v; want ErrExists", err)
	}
	if err := r.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	for _, nic := range nics {
		if _, err := net.InterfaceByName(nic.HostName); nic.HostName != "" && err == nil {
			t.Errorf("the host's end %s is left", nic.HostName)
		}
	}
}

func mustLink(t *testing.T, name string) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// Proxies pass connections both ways, over TCP and unix sockets, and end with the
// container.
func TestProxies(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	start(t, r, s)
	server := echoServer(t)
	dir := t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	unixSocket := filepath.Join(dir, "u")
	// Out of the container on two ways, and in again: each connection crosses the
	// border twice.
	for _, p := range []runtime.Proxy{
		{Name: "out tcp", InContainer: true, Listen: []runtime.Endpoint{{Network: "tcp", Address: "127.0.0.1:7000"}}, Connect: []runtime.Endpoint{{Network: "tcp", Address: server}}},
		{Name: "out/unix", InContainer: true, Mode: 0o666, UID: 1000, GID: 1000, Listen: []runtime.Endpoint{{Network: "unix", Address: "/tmp/socket"}}, Connect: []runtime.Endpoint{{Network: "tcp", Address: server}}},
		{Name: "in tcp", Listen: []runtime.Endpoint{{Network: "tcp", Address: port}}, Connect: []runtime.Endpoint{{Network: "tcp", Address: "127.0.0.1:7000"}}},
		{Name: "in unix", Listen: []runtime.Endpoint{{Network: "unix", Address: unixSocket}}, Connect: []runtime.Endpoint{{Network: "unix", Address: "/tmp/socket"}}},
	} {
		if err := r.AddProxy(t.Context(), "c1", p); err != nil {
			t.Fatalf("AddProxy(%s): %v", p.Name, err)
		}
	}
	wantEcho(t, "tcp", port)
	wantEcho(t, "unix", unixSocket)
	if _, out := runtimetest.Sh(t, r, "c1", "stat -c '%u %g %a' /tmp/socket"); out != "1000 1000 666\n" {
		t.Errorf("the socket in the container is %q; want 1000 1000 666", out)
	}
	taken := runtime.Proxy{Name: "taken", Listen: []runtime.Endpoint{{Network: "tcp", Address: port}}, Connect: []runtime.Endpoint{{Network: "tcp", Address: server}}}
	if err := r.AddProxy(t.Context(), "c1", taken); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("AddProxy on a port in use: %v; want an error that says so", err)
	}
	if _, err := r.Restart(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	wantEcho(t, "tcp", port)
	wantEcho(t, "unix", unixSocket)
	if err := r.RemoveProxy(t.Context(), "c1", "in tcp"); err != nil {
		t.Fatal(err)
	}
	if _, err := echo("tcp", port); err == nil {
		t.Error("a proxy that was removed still answers")
	}
	if err := r.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(unixSocket); !os.IsNotExist(err) {
		t.Errorf("a proxy's socket is left: %v", err)
	}
	wantNothingLeft(t, r, "c1")
}

// A link of the container's does not lead a proxy to a socket of the host.
func TestProxiesDoNotEscape(t *testing.T) {
	r := open(t)
	start(t, r, spec(t, "c1"))
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, "host"))
	if err != nil {
		t.Fatal(err)
	}
	serveEcho(t, listener)
	script := fmt.Sprintf("ln -s %[1]s/host /tmp/a; ln -s /proc/1/root%[1]s/host /tmp/b; ln -s / /tmp/c", dir)
	if code, out := runtimetest.Sh(t, r, "c1", script); code != 0 {
		t.Fatal(out)
	}
	for i, path := range []string{"/tmp/a", "/tmp/b", "/tmp/c" + dir + "/host", "/../../../.." + dir + "/host"} {
		socket := filepath.Join(dir, strconv.Itoa(i))
		p := runtime.Proxy{Name: socket, Listen: []runtime.Endpoint{{Network: "unix", Address: socket}}, Connect: []runtime.Endpoint{{Network: "unix", Address: path}}}
		if len(p.Name) > 100 {
			p.Name = strconv.Itoa(i)
		}
		if err := r.AddProxy(t.Context(), "c1", p); err != nil {
			t.Fatal(err)
		}
		if got, err := echo("unix", socket); err == nil {
			t.Errorf("a proxy to %s of the container reaches the host: %q", path, got)
		}
	}
}

// The proxy protocol tells the server who connects.
func TestProxyProtocol(t *testing.T) {
	r := open(t)
	start(t, r, spec(t, "c1"))
	server := echoServer(t)
	port := "127.0.0.1:" + strconv.Itoa(20000+os.Getpid()%20000)
	for _, p := range []runtime.Proxy{
		{Name: "out", InContainer: true, Listen: []runtime.Endpoint{{Network: "unix", Address: "@x"}}, Connect: []runtime.Endpoint{{Network: "tcp", Address: server}}},
		{Name: "in", ProxyProtocol: true, Listen: []runtime.Endpoint{{Network: "tcp", Address: port}}, Connect: []runtime.Endpoint{{Network: "unix", Address: "@x"}}},
	} {
		if err := r.AddProxy(t.Context(), "c1", p); err != nil {
			t.Fatal(err)
		}
	}
	got, err := echo("tcp", port)
	if err != nil || !strings.HasPrefix(got, "echo PROXY TCP4 127.0.0.1 127.0.0.1 ") {
		t.Errorf("the server heard %q, %v; want the client's address first", got, err)
	}
}

// The console can be typed into, and its log is bounded.
func TestConsole(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	s.Init = []string{"/bin/sh", "-c", "echo ready; while read line; do if test \"$line\" = flood; then seq 1 200000; fi; echo got $line; done"}
	start(t, r, s)
	console, err := r.Console(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(console, "hello\n"); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	buffer := make([]byte, 4096)
	for !strings.Contains(seen.String(), "got hello") {
		n, err := console.Read(buffer)
		if err != nil {
			t.Fatalf("read %q, then %v", seen.String(), err)
		}
		seen.Write(buffer[:n])
	}
	if _, err := io.WriteString(console, "flood\n"); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(seen.String(), "got flood") {
		n, err := console.Read(buffer)
		if err != nil {
			t.Fatalf("after %d bytes: %v", seen.Len(), err)
		}
		seen.Write(buffer[:n])
	}
	log, err := r.ConsoleLog(t.Context(), "c1")
	if err != nil || len(log) < 64<<10 || len(log) > 300<<10 || !bytes.Contains(log, []byte("200000\r\n")) {
		t.Errorf("the log has %d bytes, %v; want the newest, bounded", len(log), err)
	}
	if err := r.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, console); err != nil {
		t.Errorf("the console of a stopped container: %v; want its end", err)
	}
	if err := console.Close(); err != nil {
		t.Error(err)
	}
}

// What the machine's configuration sets apart for containers is used.
func TestLXCFS(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || !strings.Contains(string(mounts), " /var/lib/lxcfs fuse") {
		t.Skip("needs a running lxcfs")
	}
	s.Limits.Memory.Limit = 64 << 20
	start(t, r, s)
	if _, out := runtimetest.Sh(t, r, "c1", "grep MemTotal /proc/meminfo"); strings.Fields(out)[1] != "65536" {
		t.Errorf("the container sees %q; want its own limit", out)
	}
}
