package storage_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"muster/node/storage"
	"muster/node/storage/btrfs"
	"muster/state"
)

func TestBtrfsQuota(t *testing.T) {
	p := newPool(t, "btrfs")
	ctx := t.Context()
	image, _ := withZoo(t, p)
	c1 := storage.Instance("c1")
	noError(t, p.CreateFromImage(ctx, c1, image))
	const limit = 40 << 20
	noError(t, p.SetQuota(ctx, c1, limit))
	write := func(mb int) error {
		m, err := p.MountVolume(ctx, c1, ids)
		noError(t, err)
		defer func() { noError(t, p.UnmountVolume(ctx, c1)) }()
		return asRootOf(1_000_000, func() error {
			f, err := os.Create(filepath.Join(m.RootFS, "fill"))
			if err != nil {
				return err
			}
			defer f.Close()
			for range mb {
				if _, err := f.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
			return f.Sync()
		})
	}
	if err := write(60); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("writing 60 MiB with a limit of 40 MiB: %v, want EDQUOT", err)
	}
	usage, err := p.Usage(ctx, c1)
	noError(t, err)
	if usage.Limit != limit || usage.Used < 20<<20 || usage.Used > limit {
		t.Errorf("Usage = %+v, want a limit of 40 MiB nearly reached", usage)
	}
	noError(t, p.Snapshot(ctx, c1.At("s")))
	noError(t, p.Restore(ctx, c1.At("s")))
	if usage, err := p.Usage(ctx, c1); err != nil || usage.Limit != limit {
		t.Errorf("after a restore Usage = %+v, %v; want the limit kept", usage, err)
	}
	noError(t, p.SetQuota(ctx, c1, 0))
	if err := write(60); err != nil {
		t.Errorf("writing 60 MiB without a limit: %v", err)
	}
}

func TestQuotaWhereThereIsNone(t *testing.T) {
	for _, driver := range []string{"overlay", "dir"} {
		t.Run(driver, func(t *testing.T) {
			p := newPool(t, driver)
			if p.Features().ProjectQuota {
				t.Skip("needs a file system without project quota: this one has it")
			}
			c1 := storage.Instance("c1")
			noError(t, p.CreateEmpty(t.Context(), c1))
			err := p.SetQuota(t.Context(), c1, 1<<30)
			if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), "use a pool of driver btrfs") {
				t.Errorf("SetQuota = %v, want ErrInvalid naming btrfs", err)
			}
		})
	}
}

// Containers may make subvolumes of their own (docker does).
func TestBtrfsSubvolumesInside(t *testing.T) {
	p := newPool(t, "btrfs")
	ctx := t.Context()
	image, _ := withZoo(t, p)
	c1 := storage.Instance("c1")
	noError(t, p.CreateFromImage(ctx, c1, image))
	m, err := p.MountVolume(ctx, c1, nil)
	noError(t, err)
	for _, path := range []string{"home/sub", "home/sub/inner", "var/lone"} {
		noError(t, btrfs.Create(filepath.Join(m.RootFS, path)))
		noError(t, os.WriteFile(filepath.Join(m.RootFS, path, "file"), []byte(path), 0o644))
	}
	noError(t, p.Snapshot(ctx, c1.At("s")))
	noError(t, os.WriteFile(filepath.Join(m.RootFS, "home/sub/inner/file"), []byte("changed"), 0o644))
	noError(t, p.UnmountVolume(ctx, c1))
	noError(t, p.Copy(ctx, storage.Instance("c2"), p, c1, []string{"s"}))
	for _, vol := range []storage.Volume{c1.At("s"), storage.Instance("c2").At("s")} {
		if got := readIn(t, p, vol, "home/sub/inner/file"); got != "home/sub/inner" {
			t.Errorf("%s holds %q", vol, got)
		}
	}
	if got := readIn(t, p, storage.Instance("c2"), "home/sub/inner/file"); got != "changed" {
		t.Errorf("the copy holds %q", got)
	}
	noError(t, p.Restore(ctx, c1.At("s")))
	if got := readIn(t, p, c1, "var/lone/file"); got != "var/lone" {
		t.Errorf("the restored volume holds %q", got)
	}
	root := rootOf(t, p)
	noError(t, p.DeleteVolume(ctx, c1))
	noError(t, p.DeleteVolume(ctx, storage.Instance("c2")))
	noError(t, p.DeleteImage(ctx, image))
	if left, err := btrfs.NestedIn(root, 5); err != nil || len(left) > 0 {
		t.Errorf("subvolumes left: %v (%v)", left, err)
	}
}

func TestBtrfsPoolGrows(t *testing.T) {
	p := newPool(t, "btrfs")
	before, err := p.Resources(t.Context())
	noError(t, err)
	config := state.Config{"size": "1GiB", "source": sourceOf(t, p), "btrfs.mount_options": "noatime,compress=zstd"}
	noError(t, p.Update(t.Context(), config))
	after, err := p.Resources(t.Context())
	noError(t, err)
	if before.SpaceTotal != 512<<20 || after.SpaceTotal != 1<<30 {
		t.Errorf("the pool has %d bytes, after growing %d", before.SpaceTotal, after.SpaceTotal)
	}
	for name, wrong := range map[string]state.Config{
		"a loop file cannot shrink":       {"size": "256MiB", "source": config["source"]},
		"a loop file has a size":          {"source": config["source"]},
		"the source cannot change":        {"size": "1GiB", "source": "/elsewhere"},
		"btrfs must know a mount option":  {"size": "1GiB", "source": config["source"], "btrfs.mount_options": "fly"},
		"a mount option of ours is fixed": {"size": "1GiB", "source": config["source"], "btrfs.mount_options": "subvol=x"},
	} {
		if err := p.Update(t.Context(), wrong); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// sourceOf returns what Create recorded as the source of a loop pool.
func sourceOf(t *testing.T, p *storage.Pool) string {
	t.Helper()
	return filepath.Join(filepath.Dir(filepath.Dir(rootOf(t, p))), "disks", p.Name()+".img")
}

// loopDevice returns an empty block device of this size.
func loopDevice(t *testing.T, size int64) string {
	t.Helper()
	needsRoot(t)
	file := filepath.Join(scratch(t), "disk")
	noError(t, os.WriteFile(file, nil, 0o600))
	noError(t, os.Truncate(file, size))
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("needs a loop device: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.Background(), "losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", device, err, out)
		}
	})
	return device
}

func TestBtrfsOnABlockDevice(t *testing.T) {
	device := loopDevice(t, 300<<20)
	dir := scratch(t)
	p := poolIn(t, dir, "btrfs", state.Config{"source": device})
	config, err := p.Create(t.Context())
	noError(t, err)
	if config["source"] != device || config["size"] != "" {
		t.Errorf("Create recorded %v", config)
	}
	noError(t, p.CreateEmpty(t.Context(), storage.Instance("c1")))
	second := poolIn(t, scratch(t), "btrfs", state.Config{"source": device})
	if _, err := second.Create(t.Context()); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("a second pool on the device: %v, want ErrInvalid", err)
	}
	noError(t, p.Unmount(t.Context()))
	if _, err := second.Create(t.Context()); !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), "has data on it") {
		t.Errorf("a second pool on the device that is not mounted: %v, want ErrInvalid for its data", err)
	}
	noError(t, p.Mount(t.Context()))
	if !p.VolumePresent(storage.Instance("c1")) {
		t.Error("after mounting again the volume is not there")
	}
	noError(t, p.DeleteVolume(t.Context(), storage.Instance("c1")))
	noError(t, p.Delete(t.Context()))
	// Deleted, it can be used again.
	_, err = second.Create(t.Context())
	noError(t, err)
	noError(t, second.Delete(t.Context()))
}

func TestBtrfsInADirectory(t *testing.T) {
	outer := newPool(t, "btrfs")
	source := filepath.Join(rootOf(t, outer), "given")
	noError(t, os.Mkdir(source, 0o755))
	defer os.Remove(source)
	p := poolIn(t, scratch(t), "btrfs", state.Config{"source": source})
	_, err := p.Create(t.Context())
	noError(t, err)
	image, _ := withZoo(t, p)
	c1 := storage.Instance("c1")
	noError(t, p.CreateFromImage(t.Context(), c1, image))
	noError(t, p.Snapshot(t.Context(), c1.At("s")))
	inMount(t, p, c1, ids, "rm /etc/passwd")
	noError(t, p.Restore(t.Context(), c1.At("s")))
	inMount(t, p, c1, ids, "cat /etc/passwd")
	noError(t, p.DeleteVolume(t.Context(), c1))
	noError(t, p.Delete(t.Context()))
	if left, err := os.ReadDir(source); err != nil || len(left) > 0 {
		t.Errorf("left in the source: %v (%v)", left, err)
	}
}

// The size of a pool that names none is written down, as users will see it.
func TestBtrfsDefaultSize(t *testing.T) {
	needsRoot(t)
	p := poolIn(t, scratch(t), "btrfs", nil)
	config, err := p.Create(t.Context())
	noError(t, err)
	defer func() { noError(t, p.Delete(t.Context())) }()
	mib, ok := strings.CutSuffix(config["size"], "MiB")
	if n, err := strconv.Atoi(mib); !ok || err != nil || n < 5<<10 || n > 30<<10 {
		t.Errorf("size = %q, want between 5 and 30 GiB", config["size"])
	}
}

// Subvolumes that are read-only inside an instance are so in its snapshots, its copies and
// after a restore, and what holds them can be deleted.
func TestReadOnlySubvolumes(t *testing.T) {
	p := newPool(t, "btrfs")
	ctx := t.Context()
	c1, c2 := storage.Instance("c1"), storage.Instance("c2")
	noError(t, p.CreateEmpty(ctx, c1))
	m, err := p.MountVolume(ctx, c1, nil)
	noError(t, err)
	for _, path := range []string{"outer", "outer/inner", "free"} {
		noError(t, btrfs.Create(filepath.Join(m.RootFS, path)))
	}
	for _, path := range []string{"outer/inner", "outer"} {
		fd, err := unix.Open(filepath.Join(m.RootFS, path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		noError(t, err)
		noError(t, btrfs.SetReadOnly(fd, true))
		noError(t, unix.Close(fd))
	}
	noError(t, p.Snapshot(ctx, c1.At("s")))
	noError(t, p.UnmountVolume(ctx, c1))
	noError(t, p.Restore(ctx, c1.At("s")))
	noError(t, p.Copy(ctx, c2, p, c1, []string{"s"}))
	for _, vol := range []storage.Volume{c1, c2} {
		m, err := p.MountVolume(ctx, vol, nil)
		noError(t, err)
		for path, want := range map[string]error{"outer": unix.EROFS, "outer/inner": unix.EROFS, "free": nil} {
			err := os.WriteFile(filepath.Join(m.RootFS, path, "file"), nil, 0o644)
			if !errors.Is(err, want) {
				t.Errorf("%s: write to %s: %v; want %v", vol, path, err, want)
			}
		}
		noError(t, p.UnmountVolume(ctx, vol))
	}
	root := rootOf(t, p)
	noError(t, p.DeleteVolume(ctx, c1))
	noError(t, p.DeleteVolume(ctx, c2))
	if left, err := btrfs.NestedIn(root, 5); err != nil || len(left) > 0 {
		t.Errorf("subvolumes left: %v (%v)", left, err)
	}
}
