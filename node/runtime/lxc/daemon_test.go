package lxc_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster/node/runtime"
	"muster/node/runtime/lxc"
	"muster/node/runtime/runtimetest"
	"muster/state"
)

// daemonVariable makes this test program a daemon that starts a container and is
// then killed.
const daemonVariable = "MUSTER_TEST_DAEMON"

// beDaemon reads a Spec from standard input, starts it below dir, says so and
// waits to be killed.
func beDaemon(dir string) error {
	ctx := context.Background()
	r, err := lxc.Open(ctx, lxc.Config{Dir: dir, Shim: os.Getenv(daemonVariable + "_SHIM")})
	if err != nil {
		return err
	}
	var spec runtime.Spec
	if err := json.NewDecoder(os.Stdin).Decode(&spec); err != nil {
		return err
	}
	info, err := r.Start(ctx, spec)
	if err != nil {
		return err
	}
	if err := r.SetLimits(ctx, spec.ID, runtime.Limits{Processes: 77}); err != nil {
		return err
	}
	// Two processes that the container goes on with, and a command that ends with the daemon.
	for _, script := range []string{
		"while ! test -e /tmp/go; do usleep 1000; done; echo survived > /dev/console; touch /tmp/done; sleep 1000",
		"while ! test -e /tmp/reboot; do usleep 1000; done; reboot -f",
	} {
		p, err := r.Exec(ctx, spec.ID, runtime.ExecSpec{Command: []string{"sh", "-c", `setsid sh -c "$0" &`, script}})
		if err != nil {
			return err
		}
		if _, err := p.Wait(ctx); err != nil {
			return err
		}
	}
	if _, err := r.Exec(ctx, spec.ID, runtime.ExecSpec{Command: []string{"sh", "-c", "echo $$ >/tmp/foreground; exec sleep 1000"}}); err != nil {
		return err
	}
	fmt.Println(info.InitPID, info.MonitorPID)
	return r.Run(ctx, func(runtime.Event) {})
}

// startDaemon runs a daemon that starts spec, and returns it with the numbers of
// init and monitor.
func startDaemon(t *testing.T, dir string, spec runtime.Spec) (daemon *exec.Cmd, init, monitor int) {
	t.Helper()
	daemon, out := beginDaemon(t, dir, shim, spec)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the daemon said %q: %v", line, err)
	}
	if _, err := fmt.Sscan(line, &init, &monitor); err != nil {
		t.Fatal(err)
	}
	return daemon, init, monitor
}

// beginDaemon runs a daemon that is about to start spec with a shim, and returns it
// with what it prints.
func beginDaemon(t *testing.T, dir, shim string, spec runtime.Spec) (*exec.Cmd, io.Reader) {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(os.Args[0])
	daemon.Env = append(os.Environ(), daemonVariable+"="+dir, daemonVariable+"_SHIM="+shim)
	daemon.Stdin = bytes.NewReader(text)
	daemon.Stderr = os.Stderr
	daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	return daemon, out
}

// A shim that the daemon started before it was killed may take its time: what comes
// after the daemon waits for the container instead of taking its absence for true.
func TestDaemonIsKilledBeforeTheMonitorIsThere(t *testing.T) {
	r := open(t)
	dir := filepath.Dir(filepath.Dir(r.LogFile("c1", "x")))
	began := filepath.Join(t.TempDir(), "began")
	slow := filepath.Join(t.TempDir(), "shim")
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = start ] && { : >%s; /bin/sleep 0.5; }\nexec %s \"$@\"\n", began, shim)
	if err := os.WriteFile(slow, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	daemon, _ := beginDaemon(t, dir, slow, spec(t, "c1"))
	runtimetest.Eventually(t, func() string {
		if _, err := os.Stat(began); err != nil {
			return err.Error()
		}
		return ""
	})
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	if err := r.Cleanup(t.Context(), "c1"); !errors.Is(err, state.ErrConflict) {
		t.Errorf("Cleanup while the container is on its way: %v; want a conflict", err)
	}
	if _, err := r.Start(t.Context(), spec(t, "c1")); !errors.Is(err, state.ErrConflict) {
		t.Errorf("Start while the container is on its way: %v; want a conflict", err)
	}
	if list, err := r.List(t.Context()); err != nil || len(list) != 1 || list[0].InitPID == 0 {
		t.Fatalf("List after the kill: %+v, %v; want c1 running", list, err)
	}
	if err := r.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, r, "c1")
}

// Promise 3: killing the daemon never disturbs a running container, and what
// comes after it finds the truth.
func TestDaemonIsKilled(t *testing.T) {
	r := open(t) // skips without root, and ends what is left
	dir := filepath.Dir(r.LogFile("c1", "x"))
	dir = filepath.Dir(dir)
	server := echoServer(t)
	s := spec(t, "c1")
	socket := filepath.Join(t.TempDir(), "proxy")
	s.Proxies = []runtime.Proxy{{
		Name: "in", Listen: []runtime.Endpoint{{Network: "unix", Address: socket}},
		Connect: []runtime.Endpoint{{Network: "unix", Address: "@inside"}},
	}, {
		Name: "out", InContainer: true, Listen: []runtime.Endpoint{{Network: "unix", Address: "@inside"}},
		Connect: []runtime.Endpoint{{Network: "tcp", Address: server}},
	}}
	daemon, init, monitor := startDaemon(t, dir, s)
	// The whole process group, as an impatient supervisor does.
	if err := syscall.Kill(-daemon.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()

	events := make(chan runtime.Event, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	list, err := r.List(ctx)
	if err != nil || len(list) != 1 || list[0].InitPID != init || list[0].MonitorPID != monitor || list[0].Boots != 1 {
		t.Fatalf("List after the kill: %+v, %v; want c1 with init %d and monitor %d", list, err, init, monitor)
	}
	go func() { ran <- r.Run(ctx, func(e runtime.Event) { events <- e }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	// Its processes, console log and proxies go on; the daemon's command does not.
	if code, out := runtimetest.Sh(t, r, "c1", "while kill -0 $(cat /tmp/foreground) 2>/dev/null; do usleep 1000; done"); code != 0 {
		t.Fatalf("wait for the end of the daemon's command: %d, %s", code, out)
	}
	if code, out := runtimetest.Sh(t, r, "c1", "touch /tmp/go; while ! test -e /tmp/done; do usleep 1000; done"); code != 0 {
		t.Fatalf("tell the container to go on: %d, %s", code, out)
	}
	runtimetest.Eventually(t, func() string {
		log, err := r.ConsoleLog(ctx, "c1")
		if err != nil || !strings.Contains(string(log), "survived") {
			return fmt.Sprintf("the console log is %q, %v", log, err)
		}
		return ""
	})
	wantEcho(t, "unix", socket)
	if list, err := r.Proxies(ctx, "c1"); err != nil || len(list) != 2 {
		t.Errorf("Proxies: %+v, %v; want two", list, err)
	}
	// A reboot is seen by a runtime that did not start the container, and keeps
	// the limits that were changed after the start.
	if code, out := runtimetest.Sh(t, r, "c1", "touch /tmp/reboot"); code != 0 && code != 137 {
		t.Fatalf("tell the container to reboot: %d, %s", code, out)
	}
	if e := next(t, events); e.Kind != runtime.EventRebooted || e.Info.Boots != 2 || e.Info.MonitorPID != monitor {
		t.Errorf("after a reboot: %+v; want boot 2 under monitor %d", e, monitor)
	}
	if got := groupFile(t, r, "c1", "pids", "pids.max"); got != "77" {
		t.Errorf("after a reboot pids.max is %s; want 77", got)
	}
	wantEcho(t, "unix", socket)
	if err := r.Stop(ctx, "c1", runtime.Stop{Timeout: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if e := next(t, events); e.Kind != runtime.EventExited || e.Reason != runtime.ExitShutdown {
		t.Errorf("after Stop: %+v; want exited by shutdown", e)
	}
	wantNothingLeft(t, r, "c1")
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the proxy's socket is still there: %v", err)
	}
}

func next(t *testing.T, events <-chan runtime.Event) runtime.Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event")
		return runtime.Event{}
	}
}

// A container reboots with the settings it has now even while no daemon lives.
func TestRebootWithoutADaemon(t *testing.T) {
	r := open(t)
	dir := filepath.Dir(filepath.Dir(r.LogFile("c1", "x")))
	s := spec(t, "c1")
	daemon, init, _ := startDaemon(t, dir, s)
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	if err := os.WriteFile(filepath.Join(s.Rootfs, "tmp/reboot"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, func() string {
		list, err := r.List(t.Context())
		if err != nil || len(list) != 1 || list[0].Boots != 2 || list[0].InitPID == init {
			return fmt.Sprintf("%+v, %v; want c1 booted twice", list, err)
		}
		return ""
	})
	if got := groupFile(t, r, "c1", "pids", "pids.max"); got != "77" {
		t.Errorf("pids.max is %s; want 77", got)
	}
}

// A container whose monitor was killed ends with it as a rule (liblxc asks the
// kernel for that); what is left of it is found and removed either way.
func TestMonitorIsKilled(t *testing.T) {
	r := open(t)
	s := spec(t, "c1")
	s.NICs = []runtime.NIC{{Name: "eth0", Kind: runtime.NICVeth, HostName: hostName()}}
	info := start(t, r, s)
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan runtime.Event, 10)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, func(e runtime.Event) { events <- e }) }()
	defer func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}()
	if err := syscall.Kill(info.MonitorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, func() string {
		got, err := r.Info(t.Context(), "c1")
		if errors.Is(err, state.ErrNotFound) || err == nil && got.InitPID == info.InitPID && got.MonitorPID == 0 {
			return ""
		}
		return fmt.Sprintf("%+v, %v; want no container, or init %d without a monitor", got, err, info.InitPID)
	})
	if err := r.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil && !errors.Is(err, state.ErrNotFound) {
		t.Fatal(err)
	}
	if e := next(t, events); e.Kind != runtime.EventExited {
		t.Errorf("%+v; want exited", e)
	}
	wantNothingLeft(t, r, "c1")
	start(t, r, s)
}

// echoServer answers each connection with what it says, and returns its address.
func echoServer(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveEcho(t, listener)
	return listener.Addr().String()
}

func serveEcho(t *testing.T, listener net.Listener) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			_, _ = conn.Write([]byte("echo " + line))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
}

// echo asks the server behind an address.
func echo(network, address string) (string, error) {
	conn, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

// wantEcho waits until the server behind an address answers: a proxy that follows
// a reboot takes a moment.
func wantEcho(t *testing.T, network, address string) {
	t.Helper()
	runtimetest.Eventually(t, func() string {
		if got, err := echo(network, address); got != "echo hello\n" {
			return fmt.Sprintf("%s %s answers %q, %v; want its echo", network, address, got, err)
		}
		return ""
	})
}
