package storage_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/storage"
	"muster/node/storage/mount"
	"muster/state"
)

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		driver string
		config state.Config
		want   string // the error, "<nil>" for none
	}{
		"no configuration will do":               {"overlay", nil, "<nil>"},
		"a source is a path":                     {"dir", state.Config{"source": "/srv/pool"}, "<nil>"},
		"users may add keys":                     {"dir", state.Config{"user.note": "x"}, "<nil>"},
		"an empty value is no value":             {"btrfs", state.Config{"size": ""}, "<nil>"},
		"a loop file has a size":                 {"btrfs", state.Config{"size": "10GiB", "btrfs.mount_options": "noatime,compress=zstd:3"}, "<nil>"},
		"a misspelt key is named with its match": {"btrfs", state.Config{"btrfs.mount_option": "x"}, `storage pool p: unknown key "btrfs.mount_option": did you mean "btrfs.mount_options"?`},
		"a key of another driver is refused":     {"dir", state.Config{"size": "10GiB"}, `storage pool p: key "size" is not for driver dir but for btrfs`},
		"an unknown driver is refused":           {"zfs", nil, `driver "zfs" is not supported by muster: use overlay, dir or btrfs`},
		"a relative source is refused":           {"dir", state.Config{"source": "srv"}, `storage pool p: source: "srv" is not an absolute path`},
		"a source that climbs is refused":        {"dir", state.Config{"source": "/srv/../etc"}, `storage pool p: source: "/srv/../etc" is not a plain path; write "/etc"`},
		"a bad unit is refused":                  {"btrfs", state.Config{"size": "10XB"}, `storage pool p: size: size "10XB": unknown unit "XB"; use B, kB, MB, GB, TB, PB, EB, KiB, MiB, GiB, TiB, PiB or EiB`},
		"a size that overflows is refused":       {"btrfs", state.Config{"size": "99999999999EiB"}, `storage pool p: size: size "99999999999EiB" is larger than can be counted`},
		"a tiny loop file is refused":            {"btrfs", state.Config{"size": "1MiB"}, `storage pool p: size: "1MiB" is too small for btrfs; give at least 128MiB`},
		"mounting read-only is refused":          {"btrfs", state.Config{"btrfs.mount_options": "noatime,ro"}, `storage pool p: btrfs.mount_options: option "ro" cannot be set here`},
	} {
		t.Run(name, func(t *testing.T) {
			err := storage.Validate(state.Pool{Name: "p", Driver: tc.driver, Config: tc.config})
			got := "<nil>"
			if err != nil {
				got = err.Error()
				if !errors.Is(err, state.ErrInvalid) {
					t.Errorf("%v is not ErrInvalid", err)
				}
			}
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
	for _, name := range []string{"", "a/b", "..", "a\x00b"} {
		if err := storage.Validate(state.Pool{Name: name, Driver: "dir"}); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("a pool named %q: %v, want ErrInvalid", name, err)
		}
	}
}

func FuzzValidate(f *testing.F) {
	f.Add("source", "/srv")
	f.Add("size", "10GiB")
	f.Add("btrfs.mount_options", "noatime,x=y")
	f.Fuzz(func(t *testing.T, key, value string) {
		err := storage.Validate(state.Pool{Name: "p", Driver: "btrfs", Config: state.Config{key: value}})
		if err != nil && !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%q=%q: %v is not ErrInvalid", key, value, err)
		}
	})
}

func TestPoolSources(t *testing.T) {
	needsRoot(t)
	full := scratch(t)
	noError(t, os.WriteFile(filepath.Join(full, "precious"), []byte("data"), 0o644))
	file := filepath.Join(full, "precious")
	for name, tc := range map[string]struct {
		driver, source, want string
	}{
		"a source that is not there":       {"dir", "/nowhere/at/all", "does not exist; make the directory first"},
		"a source that is not empty":       {"dir", full, "is not empty (it has precious)"},
		"a source that is a file":          {"overlay", file, "is not a directory"},
		"a device that is not there":       {"btrfs", "/dev/nowhere", "does not exist"},
		"a directory that is not btrfs":    {"btrfs", full, "is not on btrfs"},
		"a file that is not ours":          {"btrfs", file, "is neither a block device nor a directory on btrfs"},
		"a character device":               {"btrfs", "/dev/null", "is neither a block device nor a directory on btrfs"},
		"a source inside our own":          {"dir", "OWN", "is inside muster's own directory"},
		"a loop file larger than its disk": {"btrfs", "", "is larger than the disk"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := scratch(t)
			config := state.Config{}
			if tc.source != "" {
				config["source"] = tc.source
			} else {
				config["size"] = "900TiB"
			}
			if tc.source == "OWN" {
				config["source"] = filepath.Join(dir, "storage-pools", "x")
				noError(t, os.MkdirAll(config["source"], 0o755))
			}
			p := poolIn(t, dir, tc.driver, config)
			_, err := p.Create(t.Context())
			if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Create = %v, want ErrInvalid with %q", err, tc.want)
			}
			if got := p.Check(t.Context()); got == nil || got.Error() != err.Error() {
				t.Errorf("Check = %v; want what Create says: %v", got, err)
			}
			// Undoing it must not touch what was there before.
			noError(t, p.Delete(t.Context()))
			if data, err := os.ReadFile(file); err != nil || string(data) != "data" {
				t.Errorf("the file in the source is %q (%v)", data, err)
			}
			if mounts, err := mount.Table(dir); err != nil || len(mounts) > 0 {
				t.Errorf("mounted: %v (%v)", mounts, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "disks")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the folder for loop files is there: %v", err)
			}
		})
	}
}

func TestPoolInAGivenDirectory(t *testing.T) {
	needsRoot(t)
	for _, driver := range []string{"overlay", "dir"} {
		t.Run(driver, func(t *testing.T) {
			// Characters that options of mounts treat specially.
			source := filepath.Join(scratch(t), `a b,c:d\e`)
			noError(t, os.Mkdir(source, 0o755))
			dir := filepath.Join(scratch(t), `x,y:z w`)
			noError(t, os.Mkdir(dir, 0o711))
			p := poolIn(t, dir, driver, state.Config{"source": source})
			noError(t, p.Check(t.Context()))
			config, err := p.Create(t.Context())
			noError(t, err)
			if err := p.Check(t.Context()); !errors.Is(err, state.ErrExists) {
				t.Errorf("Check of one that is there = %v, want ErrExists", err)
			}
			if config["source"] != source {
				t.Errorf("recorded source %q, want %q", config["source"], source)
			}
			image, _ := withZoo(t, p)
			c1 := storage.Instance("c1")
			noError(t, p.CreateFromImage(t.Context(), c1, image))
			inMount(t, p, c1, ids, "echo x > /x")

			if _, err := poolIn(t, scratch(t), driver, config).Create(t.Context()); !errors.Is(err, state.ErrInvalid) {
				t.Errorf("a second pool in the directory: %v, want ErrInvalid", err)
			}
			noError(t, p.Unmount(t.Context()))
			if _, err := p.MountVolume(t.Context(), c1, ids); !errors.Is(err, state.ErrUnavailable) {
				t.Errorf("a volume of an unmounted pool: %v, want ErrUnavailable", err)
			}
			noError(t, p.Mount(t.Context()))
			inMount(t, p, c1, ids, "cat /x")
			noError(t, p.DeleteVolume(t.Context(), c1))
			noError(t, p.Delete(t.Context()))
			noError(t, p.Delete(t.Context()))
			if left, err := os.ReadDir(source); err != nil || len(left) > 0 {
				t.Errorf("left in the source: %v (%v)", left, err)
			}
		})
	}
}

func TestPoolWhoseDiskIsGone(t *testing.T) {
	needsRoot(t)
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			dir, source := scratch(t), scratch(t)
			config := smallConfig(driver)
			if driver != "btrfs" {
				config = state.Config{"source": source}
			}
			p := poolIn(t, dir, driver, config)
			config, err := p.Create(t.Context())
			noError(t, err)
			noError(t, p.Unmount(t.Context()))
			if driver == "btrfs" {
				noError(t, os.Rename(config["source"], config["source"]+".away"))
			} else {
				noError(t, os.Rename(filepath.Join(source, "pool.json"), filepath.Join(source, "away")))
			}
			again := poolIn(t, dir, driver, config)
			if err := again.Mount(t.Context()); !errors.Is(err, state.ErrUnavailable) {
				t.Errorf("Mount = %v, want ErrUnavailable", err)
			}
			if mounts, err := mount.Table(dir); err != nil || len(mounts) > 0 {
				t.Errorf("mounted: %v (%v)", mounts, err)
			}
			noError(t, again.Delete(t.Context()))
		})
	}
}

func TestResourcesAndFeatures(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		r, err := p.Resources(t.Context())
		noError(t, err)
		if r.SpaceTotal == 0 || r.SpaceUsed == 0 || r.SpaceUsed > r.SpaceTotal {
			t.Errorf("Resources = %+v", r)
		}
		f := p.Features()
		if !f.IDMappedMounts || f.Subvolumes != (p.DriverName() == "btrfs") || f.Overlay != (p.DriverName() == "overlay") || f.Overlay != f.OverlayIDMap {
			t.Errorf("Features = %+v", f)
		}
		if p.DriverName() == "btrfs" && !f.Reflink {
			t.Error("btrfs cannot share blocks?")
		}
	})
	for _, d := range storage.Drivers(t.Context()) {
		if d.Version == "" || d.Problem != "" {
			t.Errorf("driver %+v", d)
		}
	}
}

// A file system that ends while something is made: the error says so, and what
// was made so far is gone.
func TestFullDisk(t *testing.T) {
	needsRoot(t)
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			dir := scratch(t)
			config := state.Config{"size": "256MiB"}
			if driver != "btrfs" {
				source := smallDisk(t, 96<<20)
				config = state.Config{"source": source}
			}
			p := createIn(t, dir, driver, config)
			ctx := t.Context()
			image, _ := withZoo(t, p)
			before := used(t, p)

			flood := func(_ context.Context, dir string) error {
				if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
					return err
				}
				f, err := os.Create(filepath.Join(dir, "rootfs", "flood"))
				if err != nil {
					return err
				}
				defer f.Close()
				for range 300 {
					if _, err := f.Write(noise(1 << 20)); err != nil {
						return err
					}
				}
				return nil
			}
			full := func(what string, err error) {
				t.Helper()
				if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "no space left on storage pool pool") {
					t.Errorf("%s: %v, want ErrUnavailable that says so", what, err)
				}
			}
			full("an image too large", p.EnsureImage(ctx, fingerprint(5), flood))
			full("a volume too large", p.CreateFromUnpack(ctx, storage.Instance("c1"), flood))
			nothingLeft(t, p)

			// What a running container wrote must be copied by dir and overlay.
			c1 := storage.Instance("c1")
			noError(t, p.CreateFromImage(ctx, c1, image))
			m, err := p.MountVolume(ctx, c1, ids)
			noError(t, err)
			// btrfs frees in the background, but soon.
			deadline := time.Now().Add(15 * time.Second)
			for err = unix.ENOSPC; errors.Is(err, unix.ENOSPC) && time.Now().Before(deadline); {
				err = asRootOf(1_000_000, func() error {
					return os.WriteFile(filepath.Join(m.RootFS, "big"), noise(50<<20), 0o644)
				})
			}
			noError(t, err)
			if driver != "btrfs" {
				full("a snapshot too large", p.Snapshot(ctx, c1.At("s")))
				full("a copy too large", p.Copy(ctx, storage.Instance("c2"), p, c1, nil))
			}
			noError(t, p.UnmountVolume(ctx, c1))
			if p.VolumePresent(c1.At("s")) || p.VolumePresent(storage.Instance("c2")) {
				t.Error("half of something was kept")
			}
			noError(t, p.DeleteVolume(ctx, c1))
			nothingLeft(t, p)
			if driver != "btrfs" { // which frees in the background
				if after := used(t, p); after > before+1<<20 {
					t.Errorf("the pool used %d bytes before and %d after", before, after)
				}
			}
		})
	}
}

func used(t *testing.T, p *storage.Pool) uint64 {
	t.Helper()
	r, err := p.Resources(t.Context())
	noError(t, err)
	return r.SpaceUsed
}

// noise is data that does not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint64(n)
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	return b
}

// smallDisk mounts an ext4 file system of this size and returns its directory.
func smallDisk(t *testing.T, size int64) string {
	t.Helper()
	dir := scratch(t)
	file, at := filepath.Join(dir, "disk"), filepath.Join(dir, "at")
	noError(t, os.WriteFile(file, nil, 0o600))
	noError(t, os.Truncate(file, size))
	noError(t, os.Mkdir(at, 0o755))
	for _, cmd := range [][]string{{"mkfs.ext4", "-q", file}, {"mount", "-o", "loop", file, at}} {
		if out, err := exec.CommandContext(t.Context(), cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Skipf("needs an ext4 file system of its own: %v: %s", err, out)
		}
	}
	return at
}
