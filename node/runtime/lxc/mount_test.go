package lxc_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"muster/node/runtime"
	"muster/node/runtime/runtimetest"
)

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
