package lxc_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/node/runtime"
	"muster/node/runtime/lxc"
	"muster/node/runtime/runtimetest"
)

// ids is a range that nothing else on a test machine uses.
var ids = &runtime.IDMap{Host: 1_200_000_000, Size: 65536}

// shim is the program built for these tests; empty without root.
var shim string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if dir := os.Getenv(daemonVariable); dir != "" {
		return 0, beDaemon(dir)
	}
	if os.Geteuid() == 0 {
		dir, err := os.MkdirTemp("", "muster-shim-")
		if err != nil {
			return 1, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		// Privileged containers are given it as is.
		if err := os.Chmod(dir, 0o755); err != nil {
			return 1, err
		}
		shim = filepath.Join(dir, "muster-shim")
		build := exec.Command("go", "build", "-o", shim, "muster/cmd/muster-shim")
		if out, err := build.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build muster-shim: %w\n%s", err, out)
		}
	}
	code = m.Run()
	if code == 0 {
		err = goleak.Find()
	}
	return code, err
}

// open returns a runtime in a folder of its own. All that it started is ended
// with the test.
func open(t testing.TB) *lxc.Runtime {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: containers can't be started without")
	}
	dir := t.TempDir()
	// As MUSTER_DIR must be, so that containers reach their device nodes.
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	return openAt(t, filepath.Join(dir, "containers"))
}

func openAt(t testing.TB, dir string) *lxc.Runtime {
	t.Helper()
	r, err := lxc.Open(t.Context(), lxc.Config{Dir: dir, Shim: shim})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		list, err := r.List(ctx)
		if err != nil {
			t.Errorf("list what the test left: %v", err)
		}
		for _, info := range list {
			if err := r.Stop(ctx, info.ID, runtime.Stop{Force: true}); err != nil {
				t.Errorf("stop %s after the test: %v", info.ID, err)
			}
		}
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			if err := r.Remove(ctx, entry.Name()); err != nil {
				t.Errorf("remove %s after the test: %v", entry.Name(), err)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func spec(t testing.TB, id string) runtime.Spec {
	t.Helper()
	return runtime.Spec{ID: id, Hostname: id, Rootfs: runtimetest.BusyboxRoot(t, ids), IDMap: ids}
}

func start(t testing.TB, r runtime.Runtime, s runtime.Spec) runtime.Info {
	t.Helper()
	info, err := r.Start(t.Context(), s)
	if err != nil {
		t.Fatalf("start %s: %v", s.ID, err)
	}
	return info
}
