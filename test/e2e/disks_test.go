package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"muster/test/lab"
)

// The file system of a block device is seen in instances that get the device, and so are
// mount options of a path.
func TestDiskSources(t *testing.T) {
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	file := filepath.Join(t.TempDir(), "disk")
	command := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Skipf("%s: %v: %s", name, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 16<<20); err != nil {
		t.Fatal(err)
	}
	command("mkfs.ext4", "-q", file)
	device := command("losetup", "--find", "--show", file)
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", device, err, out)
		}
	})
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "run"), []byte("#!/bin/sh\necho ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.Muster("init", "busybox", "c")
	m.Muster("config", "device", "add", "c", "block", "disk", "source="+device, "path=/mnt/block")
	m.Muster("config", "device", "add", "c", "path", "disk", "source="+dir, "path=/mnt/path", "raw.mount.options=noexec")
	look := func() {
		t.Helper()
		if out := m.Muster("exec", "c", "--", "ls", "/mnt/block"); !strings.Contains(out, "lost+found") {
			t.Errorf("/mnt/block has %q; want the file system of the device", out)
		}
		if out, err := run(m, "", "muster", "exec", "c", "--", "/mnt/path/run"); err == nil {
			t.Errorf("what is mounted noexec is executed: %s", out)
		}
	}
	m.Muster("start", "c")
	look()
	m.Muster("restart", "--force", "c")
	look()
	m.Muster("config", "device", "remove", "c", "block")
	if out := m.Muster("exec", "c", "--", "ls", "/mnt/block"); strings.Contains(out, "lost+found") {
		t.Errorf("/mnt/block still has %q", out)
	}
	m.Muster("config", "device", "add", "c", "block", "disk", "source="+device, "path=/mnt/block")
	look()
	m.Kill()
	m.Up()
	look()
	m.Muster("config", "device", "add", "c", "n1", "unix-char", "path=/dev/other", "source=/dev/null")
	m.Muster("config", "device", "add", "c", "n2", "unix-char", "path=/dev/other", "source=/dev/zero")
	if out := m.Muster("exec", "c", "--", "sh", "-c", "head -c 1 /dev/other | wc -c"); strings.TrimSpace(out) != "1" {
		t.Errorf("/dev/other gives %q bytes; want one, of the last device", out)
	}
	m.Muster("config", "device", "remove", "c", "n2")
	if out := m.Muster("exec", "c", "--", "sh", "-c", "head -c 1 /dev/other | wc -c"); strings.TrimSpace(out) != "0" {
		t.Errorf("/dev/other gives %q bytes; want none, of the device that is left", out)
	}
	m.Muster("restart", "--force", "c")
	look()
	m.Muster("delete", "--force", "c")
	if left, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(left), m.Dir+"/disk-mounts") {
		t.Errorf("the mounts of its disks are still there (%v)", err)
	}
}
