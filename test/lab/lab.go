// Package lab starts real musterd processes for tests: each with a directory of
// its own, on the one machine the test runs on, and with the means to hurt them.
//
// It contains no assertion about muster: that is its callers' business.
package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Options says how a member is started. The zero value is right for most tests.
type Options struct {
	// Env is added to the daemon's environment, as KEY=VALUE.
	Env []string
	// Args are added to the daemon's command line.
	Args []string
	// Witnesses is how many members of a cluster, its last ones, are witnesses.
	Witnesses int
	// NoInit leaves out `musterd init --auto`.
	NoInit bool
	// Network is where the member has its place; nil is the machine's own network.
	Network *Network
	// Bin is where the member's programs are, instead of those that Programs returns.
	Bin string
	// Disk, if not zero, is the size in bytes of a file system that holds the member's
	// directory and nothing else. It lives in memory.
	Disk int64
}

// Member is one running daemon.
type Member struct {
	// Dir is the daemon's directory, Bin where its programs are.
	Dir, Bin string

	t T
	// holders are the members whose things are removed before this one goes.
	holders []*Member
	// peers are the members of the same cluster, this one among them: those that are
	// down are started before the first goes, so that it has a quorum to leave.
	peers   []*Member
	options Options
	// space is the member's network namespace and cable its number in
	// options.Network; nil without one.
	space *space
	cable int
	// destroyed says that the member is gone or on its way.
	destroyed bool
	daemon    *exec.Cmd
	done      chan error
	log       *os.File
}

// NeedsRoot skips the test by name when it cannot run here.
func NeedsRoot(t T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: runs real containers")
	}
}

// Programs returns the directory with musterd, muster and muster-shim as built
// by `make build`, or builds them into a directory of the test.
func Programs(t T) string {
	t.Helper()
	if dir := os.Getenv("MUSTER_TEST_BIN"); dir != "" {
		return dir
	}
	root := moduleRoot(t)
	bin := filepath.Join(root, "bin")
	// go build does nothing when nothing changed, so this is cheap.
	build := exec.Command("go", "build", "-o", bin+"/", "./cmd/...")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	return bin
}

func moduleRoot(t T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// Start runs a daemon in a fresh directory until the test ends, and waits until
// it answers. What the daemon left on the machine is removed with it.
func Start(t T, options Options) *Member {
	t.Helper()
	NeedsRoot(t)
	sweep(t)
	bin := cmp.Or(options.Bin, Programs(t))
	// Not t.TempDir: unix socket paths are short, and what is left mounted must
	// be shown, not removed under a running container.
	dir, err := makeDir()
	if err != nil {
		t.Fatal(err)
	}
	m := &Member{Dir: dir, Bin: bin, t: t, options: options}
	m.holders, m.peers = []*Member{m}, []*Member{m}
	t.Cleanup(m.destroy)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if options.Disk != 0 {
		if err := m.mountDisk(); err != nil {
			t.Fatal(err)
		}
	}
	if options.Network != nil {
		if err := options.Network.attach(m); err != nil {
			t.Fatalf("plug a member into its network: %v", err)
		}
	}
	m.Up()
	if !options.NoInit {
		if out, err := m.Command("musterd", "init", "--auto").CombinedOutput(); err != nil {
			t.Fatalf("musterd init --auto: %v\n%s", err, out)
		}
	}
	return m
}

// Socket is the path of the daemon's unix socket.
func (m *Member) Socket() string { return filepath.Join(m.Dir, "unix.socket") }

// Env is the environment in which the programs and the stock clients talk to
// this member.
func (m *Member) Env() []string {
	return append(os.Environ(),
		"MUSTER_DIR="+m.Dir, "LXD_DIR="+m.Dir,
		"MUSTER_CONF="+filepath.Join(m.Dir, "client"), "LXD_CONF="+filepath.Join(m.Dir, "lxc-client"),
		"PATH="+m.Bin+":"+os.Getenv("PATH"), "HOME="+m.Dir)
}

// Command prepares one of our programs, or any other, to talk to this member.
func (m *Member) Command(program string, args ...string) *exec.Cmd {
	if _, err := os.Stat(filepath.Join(m.Bin, program)); err == nil {
		program = filepath.Join(m.Bin, program)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = m.Env()
	return cmd
}

// Up starts the daemon (again) and waits until it is ready.
func (m *Member) Up() {
	m.t.Helper()
	if err := m.up(); err != nil {
		m.t.Fatal(err)
	}
}

func (m *Member) up() error {
	if err := m.launch(); err != nil {
		return err
	}
	wait := m.Command("musterd", "waitready", "--timeout", "30")
	var out bytes.Buffer
	wait.Stdout, wait.Stderr = &out, &out
	if err := wait.Start(); err != nil {
		return err
	}
	waited := make(chan error, 1)
	go func() { waited <- wait.Wait() }()
	select {
	case err := <-waited:
		if err != nil {
			return fmt.Errorf("the daemon is not ready: %w\n%s\n%s", err, out.String(), tail(m.Log(), 25))
		}
		return nil
	case err := <-m.done:
		_ = wait.Process.Kill()
		<-waited //nolint:errcheck // it was killed
		m.daemon = nil
		return fmt.Errorf("the daemon ended instead of getting ready: %w\n%s", err, tail(m.Log(), 25))
	}
}

// Launched starts the daemon (again) and does not wait until it is ready: without a
// quorum, or when the others refuse it, it is not.
func (m *Member) Launched() {
	m.t.Helper()
	if err := m.launch(); err != nil {
		m.t.Fatal(err)
	}
}

func (m *Member) launch() error {
	return m.launchAs(exec.Command(filepath.Join(m.Bin, "musterd"), m.options.Args...))
}

// launchAs starts the daemon by a command of its own.
func (m *Member) launchAs(daemon *exec.Cmd) error {
	log, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	m.log = log
	daemon.Env = append(m.Env(), m.options.Env...)
	daemon.Stdout, daemon.Stderr = log, log
	// A terminal's ^C must reach the test, not the daemon under it.
	daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	start := daemon.Start
	if m.space != nil {
		start = func() error { return m.space.run(daemon.Start) }
	}
	if err := start(); err != nil {
		return errors.Join(err, log.Close())
	}
	stopKeeper, err := keep(daemon.Process.Pid)
	if err != nil {
		return errors.Join(err, daemon.Process.Kill(), daemon.Wait(), log.Close())
	}
	done := make(chan error, 1)
	go func() {
		ended := daemon.Wait()
		stopKeeper()
		done <- ended
	}()
	m.daemon, m.done = daemon, done
	return nil
}

// logFile is outside the member's directory when that has a disk of its own, which may
// be full.
func (m *Member) logFile() string {
	if m.options.Disk != 0 {
		return m.Dir + ".log"
	}
	return filepath.Join(m.Dir, "lab.log")
}

// AwaitReady waits until the daemon answers, or has ended, which it reports.
func (m *Member) AwaitReady() (ended bool) {
	m.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); {
		if m.Ended() {
			return true
		}
		if m.Command("musterd", "waitready", "--timeout", "1").Run() == nil {
			return false
		}
	}
	m.t.Fatalf("the daemon is neither ready nor has it ended\n%s", tail(m.Log(), 25))
	return false
}

// Log is what the daemon has written so far.
func (m *Member) Log() string {
	data, err := os.ReadFile(m.logFile())
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// PID is the daemon's process.
func (m *Member) PID() int { return m.daemon.Process.Pid }

// Kill ends the daemon with SIGKILL and waits until it is gone. Its containers
// stay.
func (m *Member) Kill() {
	m.t.Helper()
	_ = m.signalAndWait(syscall.SIGKILL) // it says that it was killed
}

// Stop asks the daemon to end as a service manager would, containers left
// running, and returns how it ended.
func (m *Member) Stop() error {
	m.t.Helper()
	return m.signalAndWait(syscall.SIGTERM)
}

// Exited is closed over with the daemon's end, for tests that end it by other
// means, such as `musterd shutdown`.
func (m *Member) Exited(ctx context.Context) error {
	select {
	case err := <-m.done:
		m.daemon = nil
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Ended reports whether the daemon has ended by itself; Up starts it again.
func (m *Member) Ended() bool {
	if m.daemon == nil {
		return true
	}
	select {
	case <-m.done: //nolint:errcheck // its log says why
		m.daemon = nil
		return true
	default:
		return false
	}
}

// Abandon kills the daemon and leaves the member out of what comes when the test ends,
// but for its directory: it is gone for good, or the others refuse it. It must have no
// containers that run.
func (m *Member) Abandon() {
	m.t.Helper()
	m.Kill()
	m.done, m.destroyed = nil, true
}

func (m *Member) signalAndWait(signal syscall.Signal) error {
	m.t.Helper()
	if m.daemon == nil {
		return nil
	}
	_ = m.daemon.Process.Signal(signal)
	select {
	case err := <-m.done:
		m.daemon = nil
		_ = m.log.Close()
		return err
	case <-time.After(60 * time.Second):
		m.t.Errorf("the daemon did not end within 60 s of %v\n%s", signal, m.Log())
		_ = m.daemon.Process.Kill()
		<-m.done //nolint:errcheck // it was killed, and is reported
		m.daemon = nil
		return fmt.Errorf("daemon did not end on %v", signal)
	}
}

// StartsWith has the daemon started with these flags from the next time on.
func (m *Member) StartsWith(args ...string) { m.options.Args = args }

// Restart is Kill and Up.
func (m *Member) Restart() {
	m.t.Helper()
	m.Kill()
	m.Up()
}

// Muster runs the command-line client and returns what it printed; a failure of
// the command fails the test.
func (m *Member) Muster(args ...string) string {
	m.t.Helper()
	return m.Run("muster", args...)
}

// Run runs a program against the member and returns its standard output; a
// failure of the program fails the test.
func (m *Member) Run(program string, args ...string) string {
	m.t.Helper()
	cmd := m.Command(program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		m.t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}
