package lxc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster/node/runtime"
	"muster/node/runtime/runtimetest"
	"muster/state"
)

// The process that stays with a container is small: what it shares with other
// containers' counts once for all of them, so one alone is no measure.
func TestMonitorIsSmall(t *testing.T) {
	r := open(t)
	var monitors []int
	for _, name := range []string{"c1", "c2", "c3", "c4"} {
		monitors = append(monitors, start(t, r, spec(t, name)).MonitorPID)
	}
	for _, pid := range monitors {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
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
	defer func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}()
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
