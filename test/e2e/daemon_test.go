package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/test/lab"
)

// run runs one of the programs against a member and returns all that it printed.
func run(m *lab.Member, stdin, program string, args ...string) (string, error) {
	cmd := m.Command(program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// What init sets up, dump shows and preseed repeats.
func TestInit(t *testing.T) {
	first := lab.Start(t, lab.Options{})
	first.Run("musterd", "init", "--auto") // twice is no harm
	if out, err := run(first, "", "muster", "profile", "create", "web"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first.Muster("profile", "set", "web", "limits.memory=64MiB")
	name := network(t, first)
	seed := first.Run("musterd", "init", "--dump")
	// The two share a machine, and so its names of interfaces and its subnets.
	seed = strings.ReplaceAll(seed, name, "mst-e2e0")
	var lines []string
	for line := range strings.Lines(seed) {
		if strings.Contains(line, "ipv4.address") {
			line = line[:strings.Index(line, "ipv4.address")] + "ipv4.address: 10.251.77.1/24\n"
		}
		if strings.Contains(line, "ipv6.address") {
			line = line[:strings.Index(line, "ipv6.address")] + "ipv6.address: none\n"
		}
		if !strings.Contains(line, "source:") {
			lines = append(lines, line)
		}
	}
	seed = strings.Join(lines, "")

	second := lab.Start(t, lab.Options{NoInit: true})
	if out, err := run(second, seed, "musterd", "init", "--preseed"); err != nil {
		t.Fatalf("init --preseed: %v: %s\n%s", err, out, seed)
	}
	again := second.Run("musterd", "init", "--dump")
	var kept []string
	for line := range strings.Lines(again) {
		if !strings.Contains(line, "source:") {
			kept = append(kept, line)
		}
	}
	if diff := cmp.Diff(seed, strings.Join(kept, "")); diff != "" {
		t.Errorf("the dump of what was seeded differs from the seed:\n%s", diff)
	}

	third := lab.Start(t, lab.Options{NoInit: true})
	// Every proposal is taken.
	out, err := run(third, strings.Repeat("\n", 30), "musterd", "init")
	if err != nil {
		t.Fatalf("musterd init: %v: %s", err, out)
	}
	if pools := decode[[]string](t, mustGet(t, third, "/1.0/storage-pools")); len(pools) != 1 {
		t.Errorf("after musterd init the pools are %v; want one\n%s", pools, out)
	}

	fourth := lab.Start(t, lab.Options{NoInit: true})
	for _, flags := range [][]string{{"--storage-pool", "p1"}, {"--auto", "--network-port", "8443"}, {"--auto", "--storage-backend", "dir", "--storage-create-loop", "1"}, {"--auto", "--storage-create-loop", "0"}} {
		if out, err := run(fourth, "", "musterd", append([]string{"init"}, flags...)...); err == nil {
			t.Errorf("musterd init %v: %s; want an error", flags, out)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	_, port, _ := strings.Cut(address, ":")
	fourth.Run("musterd", "init", "--auto", "--network-address", "127.0.0.1", "--network-port", port, "--storage-backend", "btrfs",
		"--storage-pool", "p1", "--storage-create-loop", "1", "--trust-password", "secret")
	var server struct{ Config map[string]any }
	if err := fourth.Get(t.Context(), "/1.0", &server); err != nil || server.Config["core.https_address"] != address || server.Config["core.trust_password"] != true {
		t.Errorf("after musterd init --auto with answers the server has %v, %v", server.Config, err)
	}
	var pool struct {
		Driver string
		Config map[string]string
	}
	if err := fourth.Get(t.Context(), "/1.0/storage-pools/p1", &pool); err != nil || pool.Driver != "btrfs" || pool.Config["size"] != "1GiB" {
		t.Errorf("the pool is %+v, %v; want 1 GiB of btrfs", pool, err)
	}
	if out, err := run(third, "storage_pools: [{nam: x}]", "musterd", "init", "--preseed"); err == nil || !strings.Contains(out, "nam") {
		t.Errorf("a misspelt seed: %v: %s; want an error that names nam", err, out)
	}
}

// The daemon's subcommands and flags have the effects that people know.
func TestTheDaemonsSubcommands(t *testing.T) {
	log := filepath.Join(t.TempDir(), "daemon.log")
	m := lab.Start(t, lab.Options{NoInit: true, Args: []string{"--debug", "--logfile", log, "--group", "daemon"}})
	if out := m.Run("musterd", "sql", "SELECT name FROM projects"); !strings.Contains(out, "default") {
		t.Errorf("sql printed %q; want the default project", out)
	}
	if out, err := run(m, "", "musterd", "sql", "DELETE FROM projects"); err == nil || !strings.Contains(out, "--write") {
		t.Errorf("sql that writes unasked: %v, %q; want an error that names --write", err, out)
	}
	if out, err := run(m, "SELECT 1 AS one", "musterd", "sql", "-"); err != nil || !strings.Contains(out, "ONE") {
		t.Errorf("sql from standard input: %v, %q", err, out)
	}
	if out := m.Run("musterd", "version"); strings.TrimSpace(out) == "" {
		t.Error("version prints nothing")
	}
	m.Run("musterd", "activateifneeded")
	if text, err := os.ReadFile(log); err != nil || !bytes.Contains(text, []byte("level=DEBUG")) {
		t.Errorf("--logfile --debug: %v, %d bytes without a line at DEBUG", err, len(text))
	}
	info, err := os.Stat(m.Socket())
	if err != nil {
		t.Fatal(err)
	}
	if group := info.Sys().(*syscall.Stat_t).Gid; group != 1 || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket belongs to group %d with mode %v; want daemon's (1) with 0660", group, info.Mode().Perm())
	}
	second := m.Command("musterd")
	if out, err := second.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("MUSTER_DIR")) {
		t.Errorf("a second daemon on the directory: %v, %s; want an error that names MUSTER_DIR", err, out)
	}
	if _, err := os.Stat(filepath.Join(m.Dir, "needed")); err != nil {
		t.Errorf("while the daemon runs: %v", err)
	}
	m.Run("musterd", "shutdown")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.Exited(ctx); err != nil {
		t.Errorf("after shutdown the daemon ended with %v; want 0", err)
	}
	// It has nothing to do, so nothing is activated: without a daemon that would fail.
	m.Run("musterd", "activateifneeded")
	for _, command := range [][]string{{"musterd", "shutdown"}, {"muster", "list"}, {"musterd", "waitready", "--timeout", "1"}} {
		if out, err := run(m, "", command[0], command[1:]...); err == nil || !strings.Contains(out, "musterd") {
			t.Errorf("%v without a daemon: %v, %q; want an error that says how to start one", command, err, out)
		}
	}
	m.Up()
}

// After a shutdown the daemon starts what ran, one after another. What somebody does
// with an instance meanwhile stands: it is not started again behind their back.
func TestAutoStartLeavesAloneWhatSomebodyDealtWith(t *testing.T) {
	lab.NeedsRoot(t)
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	m.Muster("launch", "busybox", "first", "-c", "boot.autostart.priority=2", "-c", "boot.autostart.delay=3")
	m.Muster("launch", "busybox", "stopped", "-c", "boot.autostart=true", "-c", "boot.autostart.priority=1")
	m.Muster("launch", "busybox", "last")
	bridge := network(t, m)
	m.Run("musterd", "shutdown")
	if err := m.Exited(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := net.InterfaceByName(bridge); err == nil {
		t.Errorf("after a shutdown the bridge %s is there still", bridge)
	}
	m.Launched() // it is not ready before all of them have been started
	eventually(t, func() string {
		answer, err := m.Do(t.Context(), http.MethodGet, "/1.0/instances/first", nil)
		if err != nil {
			return err.Error()
		}
		return cmp.Diff("Running", decode[struct{ Status string }](t, answer).Status)
	})
	// While the delay after the first one runs.
	m.Muster("start", "stopped")
	m.Muster("stop", "stopped", "--force")
	statuses := func() map[string]string {
		found := map[string]string{}
		for _, inst := range decode[[]struct{ Name, Status string }](t, mustGet(t, m, "/1.0/instances?recursion=1")) {
			found[inst.Name] = inst.Status
		}
		return found
	}
	eventually(t, func() string {
		if now := statuses(); now["last"] != "Running" {
			return fmt.Sprintf("the instances are %v; want last to be started", now)
		}
		return ""
	})
	// "stopped" comes before "last", so it has been passed over.
	if diff := cmp.Diff(map[string]string{"first": "Running", "stopped": "Stopped", "last": "Running"}, statuses()); diff != "" {
		t.Errorf("after the daemon came up (-want +got):\n%s", diff)
	}
}

// A service manager hands over the socket and hears when the daemon is ready.
func TestSocketActivation(t *testing.T) {
	lab.NeedsRoot(t)
	bin := lab.Programs(t)
	dir, err := os.MkdirTemp("", "muster-lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "unix.socket"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	socket.SetUnlinkOnClose(false)
	file, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = socket.Close()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = notify.Close() })
	said := func(want string) {
		t.Helper()
		_ = notify.SetReadDeadline(time.Now().Add(20 * time.Second))
		buffer := make([]byte, 1000)
		n, err := notify.Read(buffer)
		if err != nil || string(buffer[:n]) != want {
			t.Errorf("the service manager heard %q, %v; want %q", buffer[:n], err, want)
		}
	}

	// A client may connect before anybody runs: that is the point of it.
	answered := make(chan error, 1)
	go func() {
		client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "unix.socket"))
		}}}
		answer, err := client.Get("http://muster/1.0")
		if err == nil {
			err = answer.Body.Close()
		}
		answered <- err
	}()
	daemon := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, filepath.Join(bin, "musterd"))
	daemon.Env = append(os.Environ(), "MUSTER_DIR="+dir, "LISTEN_FDS=1", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	daemon.ExtraFiles = []*os.File{file}
	var log bytes.Buffer
	daemon.Stderr = &log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	said("READY=1")
	select {
	case err := <-answered:
		if err != nil {
			t.Errorf("the client that waited: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the client that waited gets no answer")
	}
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	said("STOPPING=1")
	select {
	case err := <-ended:
		if exit := new(exec.ExitError); errors.As(err, &exit) || err != nil {
			t.Errorf("on SIGTERM the daemon ended with %v; want 0\n%s", err, log.String())
		}
	case <-time.After(20 * time.Second):
		_ = daemon.Process.Kill()
		t.Error("the daemon does not end on SIGTERM")
	}
	if _, err := os.Stat(filepath.Join(dir, "unix.socket")); err != nil {
		t.Errorf("the service manager's socket is gone with the daemon: %v", err)
	}
	for _, left := range lab.Leftovers(dir) {
		t.Errorf("left behind: %s", left)
	}
}
