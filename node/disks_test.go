package node

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/state"
)

// loopWith returns a block device with an ext4 that holds the file "name".
func loopWith(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	must := func(out []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Skipf("needs mkfs.ext4 and a loop device: %v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 16<<20); err != nil {
		t.Fatal(err)
	}
	must(exec.Command("mkfs.ext4", "-q", file).CombinedOutput())
	device := must(exec.Command("losetup", "--find", "--show", file).CombinedOutput())
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", device, err, out)
		}
	})
	at := t.TempDir()
	if err := unix.Mount(device, at, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	return device
}

// The file system of a block device, and a path with mount options, are mounted for an
// instance when it starts or gets the device, and gone when it ends or loses it.
func TestDisksThatAreMounted(t *testing.T) {
	n := newNode(t, "dir")
	device, dir := loopWith(t, "inside"), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "plain"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	inst := newInstance(t, n, "c1", state.Config{})
	with := func(devices state.Devices) Instance {
		changed := inst
		changed.Devices = state.Devices{"root": inst.Devices["root"]}
		maps.Copy(changed.Devices, devices)
		return changed
	}
	disks := state.Devices{
		"block": {"type": "disk", "path": "/a", "source": device, "raw.mount.options": "noatime,commit=7"},
		"path":  {"type": "disk", "path": "/b", "source": dir, "raw.mount.options": "noexec,nosuid"},
	}
	options := func(name string) string {
		t.Helper()
		text, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); fields[1] == filepath.Join(n.disksOf(inst), name) {
				return fields[3]
			}
		}
		return ""
	}
	mounted := func(when string, want bool) {
		t.Helper()
		for name, words := range map[string][]string{"block": {"noatime", "commit=7", "nodev"}, "path": {"noexec", "nosuid", "nodev"}} {
			got := options(name)
			if (got != "") != want {
				t.Errorf("%s %s is mounted with %q; want it mounted: %v", when, name, got, want)
			}
			for _, word := range words {
				if want && !strings.Contains(got, word) {
					t.Errorf("%s %s is mounted with %q; want %s", when, name, got, word)
				}
			}
		}
		for name, file := range map[string]string{"block": "inside", "path": "plain"} {
			if _, err := os.Stat(filepath.Join(n.disksOf(inst), name, file)); (err == nil) != want {
				t.Errorf("%s %s has %s: %v; want it: %v", when, name, file, err, want)
			}
		}
	}
	ctx := t.Context()
	stop := func(inst Instance) {
		t.Helper()
		if _, err := n.Stop(ctx, inst, runtime.Stop{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Start(ctx, with(disks)); err != nil {
		t.Fatal(err)
	}
	mounted("started,", true)
	stop(with(disks))
	mounted("stopped,", false)

	if _, err := n.Start(ctx, with(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Update(ctx, with(nil), with(disks)); err != nil {
		t.Fatal(err)
	}
	mounted("plugged in,", true)
	if _, err := n.Update(ctx, with(disks), with(nil)); err != nil {
		t.Fatal(err)
	}
	mounted("taken away,", false)
	for name, tc := range map[string]struct {
		source, options, want string
	}{
		"an option that the file system does not know": {device, "nonsense", `raw.mount.options "nonsense"`},
		"an option that is none for a path":            {dir, "commit=7", `raw.mount.options "commit=7"`},
	} {
		bad := with(state.Devices{"bad": {"type": "disk", "path": "/c", "source": tc.source, "raw.mount.options": tc.options}})
		if _, err := n.Update(ctx, with(nil), bad); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want an error with %q", name, err, tc.want)
		}
	}
	stop(with(nil))
	if _, err := os.Stat(n.diskDir()); err == nil {
		t.Error("the instance has ended and the places of its disks are still there")
	}
}

// Of unix devices with one path an instance has the last by name, also while it runs.
func TestUnixDevicesOfOnePath(t *testing.T) {
	devices := state.Devices{
		"a": {"type": "unix-char", "path": "/dev/x", "source": "/dev/null"}, "b": {"type": "unix-char", "path": "/dev/x", "source": "/dev/zero"},
		"c": {"type": "unix-char", "source": "/dev/full"}, "d": {"type": "disk", "path": "/dev/x"},
	}
	kept := withoutShadowed(devices)
	if len(kept) != 3 || kept["a"] != nil || kept["b"] == nil {
		t.Errorf("of %v these are kept: %v; want all but a", devices, kept)
	}
	n := newNode(t, "dir")
	inst := newInstance(t, n, "c1", state.Config{})
	with := func(names ...string) Instance {
		changed := inst
		changed.Devices = state.Devices{"root": inst.Devices["root"]}
		for _, name := range names {
			changed.Devices[name] = devices[name]
		}
		return changed
	}
	if _, err := n.Start(t.Context(), with("a", "b")); err != nil {
		t.Fatal(err)
	}
	for _, step := range [][2]Instance{{with("a", "b"), with("a")}, {with("a"), with("a", "b", "c")}, {with("a", "b", "c"), with()}} {
		if _, err := n.Update(t.Context(), step[0], step[1]); err != nil {
			t.Error(err)
		}
	}
	if _, err := n.Stop(t.Context(), with(), runtime.Stop{Force: true}); err != nil {
		t.Error(err)
	}
}
