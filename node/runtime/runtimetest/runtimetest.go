// Package runtimetest holds every implementation of runtime.Runtime to the same
// promises.
//
// It never looks inside an implementation: what can't be seen through the
// contract is tested beside the implementation.
package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"muster/node/runtime"
	"muster/state"
)

// Harness makes what the suite needs.
type Harness struct {
	// New returns a runtime without containers; it is closed with the test.
	New func(t *testing.T) runtime.Runtime
	// Spec returns a spec that starts. Its programs are busybox's.
	Spec func(t *testing.T, id string) runtime.Spec
	// Bridge returns the name of a bridge on the host, removed with the test.
	Bridge func(t *testing.T) string
}

// patience bounds everything that the suite waits for.
const patience = 20 * time.Second

// TestRuntime runs the suite.
func TestRuntime(t *testing.T, h Harness) {
	for name, test := range map[string]func(*testing.T, Harness){
		"a container starts once and stops":            testLifecycle,
		"a bad spec starts nothing":                    testBadSpecs,
		"init is asked to halt":                        testCleanStop,
		"a restart keeps the monitor":                  testRestart,
		"a frozen container stands still":              testFreeze,
		"a command's end is told exactly":              testExitCodes,
		"a command has three streams":                  testStreams,
		"a command takes signals and is killed":        testSignals,
		"a command can have a terminal":                testTerminal,
		"a command needs a running container":          testExecRefused,
		"ends and reboots are told":                    testEvents,
		"limits change while it runs":                  testLimits,
		"interfaces come and go":                       testNICs,
		"disks and devices come and go":                testMounts,
		"files are read and written":                   testFiles,
		"the console is logged":                        testConsoleLog,
		"a run directory goes with its container":      testRemove,
		"many containers are handled at the same time": testMany,
	} {
		t.Run(name, func(t *testing.T) { test(t, h) })
	}
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// start starts a container that the harness's runtime ends with the test.
func start(t testing.TB, r runtime.Runtime, spec runtime.Spec) runtime.Info {
	t.Helper()
	info, err := r.Start(deadline(t), spec)
	if err != nil {
		t.Fatalf("Start(%s): %v", spec.ID, err)
	}
	return info
}

func wantKind(t testing.TB, doing string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: %v; want an error of kind %q", doing, err, kind)
	}
}

func must(t testing.TB, doing string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", doing, err)
	}
}

// Eventually waits until f returns nothing; what it returns is the complaint.
func Eventually(t testing.TB, f func() string) {
	t.Helper()
	complaint := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if complaint = f(); complaint == "" {
			return
		}
	}
	t.Fatalf("after %s: %s", patience, complaint)
}

// Output runs a command and returns its exit code and what it wrote.
func Output(t testing.TB, r runtime.Runtime, id string, spec runtime.ExecSpec) (code int, stdout, stderr string) {
	t.Helper()
	ctx := deadline(t)
	var readers sync.WaitGroup
	var out, errs bytes.Buffer
	var writers []*os.File
	for _, stream := range []struct {
		file **os.File
		into *bytes.Buffer
	}{{&spec.Stdout, &out}, {&spec.Stderr, &errs}} {
		read, write, err := os.Pipe()
		must(t, "make a pipe", err)
		*stream.file = write
		writers = append(writers, write)
		readers.Go(func() {
			_, _ = io.Copy(stream.into, read)
			_ = read.Close()
		})
	}
	p, err := r.Exec(ctx, id, spec)
	for _, write := range writers {
		_ = write.Close()
	}
	must(t, "exec", err)
	defer func() { must(t, "close the command", p.Close()) }()
	code, err = p.Wait(ctx)
	must(t, "wait for the command", err)
	readers.Wait()
	return code, out.String(), errs.String()
}

// Sh is Output of a line of shell.
func Sh(t testing.TB, r runtime.Runtime, id, script string) (code int, output string) {
	t.Helper()
	code, out, errs := Output(t, r, id, runtime.ExecSpec{Command: []string{"sh", "-c", script}})
	return code, out + errs
}

func testLifecycle(t *testing.T, h Harness) {
	r, spec := h.New(t), h.Spec(t, "c1")
	ctx := deadline(t)
	_, err := r.Info(ctx, "c1")
	wantKind(t, "Info before the start", err, state.ErrNotFound)
	before := time.Now().Add(-time.Second)
	info := start(t, r, spec)
	if info.ID != "c1" || info.Status != state.StatusRunning || info.InitPID <= 0 || info.MonitorPID <= 0 || info.Boots != 1 {
		t.Errorf("Start: %+v; want c1 running, with an init and a monitor, booted once", info)
	}
	if info.StartedAt.Before(before) || info.StartedAt.After(time.Now().Add(time.Second)) {
		t.Errorf("Start: started at %s; want just now", info.StartedAt)
	}
	_, err = r.Start(ctx, spec)
	wantKind(t, "a second Start", err, state.ErrConflict)
	list, err := r.List(ctx)
	must(t, "List", err)
	if len(list) != 1 || list[0].InitPID != info.InitPID {
		t.Errorf("List: %+v; want only c1 with init %d", list, info.InitPID)
	}
	usage, err := r.Usage(ctx, "c1")
	must(t, "Usage", err)
	if usage.InitPID != info.InitPID || usage.Processes < 1 || usage.Memory <= 0 || usage.CPU <= 0 || usage.MemoryLimit <= 0 {
		t.Errorf("Usage: %+v; want init %d, some memory, time and processes", usage, info.InitPID)
	}
	wantKind(t, "Cleanup of what runs", r.Cleanup(ctx, "c1"), state.ErrConflict)
	must(t, "Stop", r.Stop(ctx, "c1", runtime.Stop{Force: true}))
	_, err = r.Info(ctx, "c1")
	wantKind(t, "Info after the stop", err, state.ErrNotFound)
	wantKind(t, "a second Stop", r.Stop(ctx, "c1", runtime.Stop{Force: true}), state.ErrNotFound)
	if list, err := r.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("List after the stop: %+v, %v; want nothing", list, err)
	}
	if again := start(t, r, spec); again.InitPID == info.InitPID || again.Boots != 1 {
		t.Errorf("Start again: %+v; want another init than %d, booted once", again, info.InitPID)
	}
}

func testBadSpecs(t *testing.T, h Harness) {
	r, good := h.New(t), h.Spec(t, "c1")
	ctx := deadline(t)
	for name, spoil := range map[string]func(*runtime.Spec){
		"no id":                        func(s *runtime.Spec) { s.ID = "" },
		"an id that leads elsewhere":   func(s *runtime.Spec) { s.ID = "../c1" },
		"an id with a dot first":       func(s *runtime.Spec) { s.ID = ".c1" },
		"no hostname":                  func(s *runtime.Spec) { s.Hostname = "" },
		"a hostname with a line break": func(s *runtime.Spec) { s.Hostname = "a\nlxc.rootfs.path = /" },
		"a relative root":              func(s *runtime.Spec) { s.Rootfs = "rootfs" },
		"the host's root as its own":   func(s *runtime.Spec) { s.IDMap = &runtime.IDMap{Host: 0, Size: 65536} },
		"a map beyond the last id":     func(s *runtime.Spec) { s.IDMap = &runtime.IDMap{Host: 1 << 31, Size: 1 << 31} },
		"a variable with a line break": func(s *runtime.Spec) { s.Environment = map[string]string{"A": "b\nc"} },
		"two interfaces of one name": func(s *runtime.Spec) {
			s.NICs = []runtime.NIC{{Name: "eth0", Kind: runtime.NICVeth, HostName: "a"}, {Name: "eth0", Kind: runtime.NICVeth, HostName: "b"}}
		},
		"a bad hardware address": func(s *runtime.Spec) {
			s.NICs = []runtime.NIC{{Name: "eth0", Kind: runtime.NICVeth, HostName: "a", HWAddr: "00:16"}}
		},
		"two disks at one place": func(s *runtime.Spec) {
			s.Mounts = []runtime.Mount{{Source: "/tmp", Path: "/mnt"}, {Source: "/tmp", Path: "/mnt/"}}
		},
		"a disk over the root":        func(s *runtime.Spec) { s.Mounts = []runtime.Mount{{Source: "/tmp", Path: "/.."}} },
		"a negative limit":            func(s *runtime.Spec) { s.Limits.Memory.Limit = -1 },
		"processors that are no list": func(s *runtime.Spec) { s.Limits.CPU.Set = "0;1" },
		"a proxy of a host name": func(s *runtime.Spec) {
			s.Proxies = []runtime.Proxy{{
				Name: "p", Listen: []runtime.Endpoint{{Network: "tcp", Address: "localhost:80"}},
				Connect: []runtime.Endpoint{{Network: "tcp", Address: "127.0.0.1:80"}},
			}}
		},
	} {
		bad := good
		spoil(&bad)
		wantKind(t, "Check of "+name, r.Check(ctx, bad), state.ErrInvalid)
		_, err := r.Start(ctx, bad)
		wantKind(t, "Start of "+name, err, state.ErrInvalid)
	}
	must(t, "Check of a good spec", r.Check(ctx, good))
	if list, err := r.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("List: %+v, %v; want nothing", list, err)
	}
}

func testCleanStop(t *testing.T, h Harness) {
	r := h.New(t)
	start(t, r, h.Spec(t, "c1"))
	begin := time.Now()
	must(t, "a clean Stop", r.Stop(deadline(t), "c1", runtime.Stop{Timeout: patience}))
	if took := time.Since(begin); took > time.Second {
		t.Errorf("a clean Stop took %s; want less than a second", took)
	}
	_, err := r.Info(deadline(t), "c1")
	wantKind(t, "Info after the stop", err, state.ErrNotFound)
}

func testRestart(t *testing.T, h Harness) {
	r := h.New(t)
	first := start(t, r, h.Spec(t, "c1"))
	for i, how := range []runtime.Stop{{Force: true}, {Timeout: patience}} {
		info, err := r.Restart(deadline(t), "c1", how)
		must(t, "Restart", err)
		if info.Boots != i+2 || info.InitPID == first.InitPID || info.MonitorPID != first.MonitorPID {
			t.Errorf("Restart(%+v): %+v; want boot %d with another init under monitor %d", how, info, i+2, first.MonitorPID)
		}
		if code, out := Sh(t, r, "c1", "echo here"); code != 0 || out != "here\n" {
			t.Errorf("after Restart: a command ended with %d, %q", code, out)
		}
		first.InitPID = info.InitPID
	}
	_, err := r.Restart(deadline(t), "c2", runtime.Stop{Force: true})
	wantKind(t, "Restart of a stranger", err, state.ErrNotFound)
}

func testFreeze(t *testing.T, h Harness) {
	r := h.New(t)
	ctx := deadline(t)
	start(t, r, h.Spec(t, "c1"))
	for range 2 {
		must(t, "Freeze", r.Freeze(ctx, "c1"))
	}
	if info, err := r.Info(ctx, "c1"); err != nil || info.Status != state.StatusFrozen {
		t.Errorf("Info: %+v, %v; want frozen", info, err)
	}
	_, err := r.Exec(ctx, "c1", runtime.ExecSpec{Command: []string{"true"}})
	wantKind(t, "a command in a frozen container", err, state.ErrConflict)
	for range 2 {
		must(t, "Unfreeze", r.Unfreeze(ctx, "c1"))
	}
	if info, err := r.Info(ctx, "c1"); err != nil || info.Status != state.StatusRunning {
		t.Errorf("Info: %+v, %v; want running", info, err)
	}
	must(t, "Freeze", r.Freeze(ctx, "c1"))
	must(t, "Stop of what is frozen", r.Stop(ctx, "c1", runtime.Stop{Force: true}))
	wantKind(t, "Freeze of what is stopped", r.Freeze(ctx, "c1"), state.ErrNotFound)
	start(t, r, h.Spec(t, "c2"))
	must(t, "Freeze", r.Freeze(ctx, "c2"))
	must(t, "a clean Stop of what is frozen", r.Stop(ctx, "c2", runtime.Stop{Timeout: patience}))
}

// recorder keeps the events of a runtime that is run with the test.
type recorder struct {
	mu     sync.Mutex
	events []runtime.Event
}

// record runs r until the test ends.
func record(t testing.TB, r runtime.Runtime) *recorder {
	t.Helper()
	rec := &recorder{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- r.Run(ctx, func(event runtime.Event) {
			rec.mu.Lock()
			defer rec.mu.Unlock()
			rec.events = append(rec.events, event)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v; want the end of its context", err)
		}
	})
	return rec
}

// next waits for the next event.
func (rec *recorder) next(t testing.TB) runtime.Event {
	t.Helper()
	var event runtime.Event
	Eventually(t, func() string {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		if len(rec.events) == 0 {
			return "no event"
		}
		event = rec.events[0]
		rec.events = rec.events[1:]
		return ""
	})
	return event
}

func testEvents(t *testing.T, h Harness) {
	r := h.New(t)
	ctx := deadline(t)
	events := record(t, r)
	spec := h.Spec(t, "c1")
	first := start(t, r, spec)

	reboot(t, r, "reboot")
	event := events.next(t)
	if event.ID != "c1" || event.Kind != runtime.EventRebooted || event.Info.Boots != 2 || event.Info.InitPID == first.InitPID {
		t.Errorf("after a reboot: %+v; want c1 rebooted with another init", event)
	}
	if code, out := Sh(t, r, "c1", "echo again"); code != 0 || out != "again\n" {
		t.Errorf("after a reboot: a command ended with %d, %q", code, out)
	}
	reboot(t, r, "poweroff")
	if event := events.next(t); event.ID != "c1" || event.Kind != runtime.EventExited || event.Reason != runtime.ExitShutdown {
		t.Errorf("after a poweroff: %+v; want c1 exited by shutdown", event)
	}
	_, err := r.Info(ctx, "c1")
	wantKind(t, "Info after a poweroff", err, state.ErrNotFound)

	start(t, r, spec)
	must(t, "Stop", r.Stop(ctx, "c1", runtime.Stop{Force: true}))
	if event := events.next(t); event.Kind != runtime.EventExited || event.Reason != runtime.ExitStopped {
		t.Errorf("after a forced Stop: %+v; want exited by a stop", event)
	}
	start(t, r, spec)
	must(t, "a clean Stop", r.Stop(ctx, "c1", runtime.Stop{Timeout: patience}))
	if event := events.next(t); event.Kind != runtime.EventExited || event.Reason != runtime.ExitShutdown {
		t.Errorf("after a clean Stop: %+v; want exited by shutdown", event)
	}
}

// reboot runs "reboot -f" or "poweroff -f", which end before they can report.
func reboot(t testing.TB, r runtime.Runtime, command string) {
	t.Helper()
	p, err := r.Exec(deadline(t), "c1", runtime.ExecSpec{Command: []string{command, "-f"}})
	must(t, command, err)
	if _, err := p.Wait(deadline(t)); err != nil {
		t.Errorf("wait for %s: %v", command, err)
	}
	must(t, "close "+command, p.Close())
}

func testRemove(t *testing.T, h Harness) {
	r, spec := h.New(t), h.Spec(t, "c1")
	ctx := deadline(t)
	must(t, "Cleanup of a stranger", r.Cleanup(ctx, "c1"))
	must(t, "Rename of a stranger", r.Rename(ctx, "c1", "c2"))
	start(t, r, spec)
	wantKind(t, "Remove of what runs", r.Remove(ctx, "c1"), state.ErrConflict)
	wantKind(t, "Rename of what runs", r.Rename(ctx, "c1", "c2"), state.ErrConflict)
	awaitBoot(t, r, "c1")
	must(t, "Stop", r.Stop(ctx, "c1", runtime.Stop{Force: true}))
	must(t, "Rename", r.Rename(ctx, "c1", "c2"))
	if log, err := r.ConsoleLog(ctx, "c2"); err != nil || !bytes.Contains(log, []byte("booted c1")) {
		t.Errorf("ConsoleLog of the new name: %q, %v; want what it logged under the old", log, err)
	}
	_, err := r.ConsoleLog(ctx, "c1")
	wantKind(t, "ConsoleLog of the old name", err, state.ErrNotFound)
	spec.ID, spec.Hostname = "c2", "c2"
	start(t, r, spec)
	must(t, "Stop", r.Stop(ctx, "c2", runtime.Stop{Force: true}))
	must(t, "Remove", r.Remove(ctx, "c2"))
	must(t, "a second Remove", r.Remove(ctx, "c2"))
	_, err = r.ConsoleLog(ctx, "c2")
	wantKind(t, "ConsoleLog of what was removed", err, state.ErrNotFound)
}

func testMany(t *testing.T, h Harness) {
	r, ctx := h.New(t), deadline(t)
	var all sync.WaitGroup
	names := []string{"a1", "a2", "a3", "a4", "a5", "a6"}
	for _, name := range names {
		spec := h.Spec(t, name)
		all.Go(func() {
			if _, err := r.Start(ctx, spec); err != nil {
				t.Errorf("Start(%s): %v", name, err)
				return
			}
			if _, err := r.List(ctx); err != nil {
				t.Errorf("List: %v", err)
			}
			p, err := r.Exec(ctx, name, runtime.ExecSpec{Command: []string{"true"}})
			if err != nil {
				t.Errorf("Exec(%s): %v", name, err)
				return
			}
			if code, err := p.Wait(ctx); code != 0 || err != nil {
				t.Errorf("a command in %s ended with %d, %v", name, code, err)
			}
			_ = p.Close()
		})
	}
	all.Wait()
	list, err := r.List(ctx)
	must(t, "List", err)
	for i, info := range list {
		if info.ID != names[i] {
			t.Errorf("List[%d] is %s; want %s", i, info.ID, names[i])
		}
	}
	for _, name := range names {
		all.Go(func() {
			if err := r.Stop(ctx, name, runtime.Stop{Force: true}); err != nil {
				t.Errorf("Stop(%s): %v", name, err)
			}
		})
	}
	all.Wait()
}
