package storage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"muster/node/storage"
	"muster/node/storage/mount"
	"muster/state"
)

// lowers counts the layers below the upper directory of a mounted overlay.
func lowers(t *testing.T, rootfs string) int {
	t.Helper()
	table, err := mount.Table(rootfs)
	noError(t, err)
	if len(table) != 1 {
		t.Fatalf("mounted at %s: %v", rootfs, table)
	}
	_, options, _ := strings.Cut(table[0].Super, "lowerdir")
	options, _, _ = strings.Cut(options, ",upperdir")
	return strings.Count(options, "/proc/self/fd/")
}

func TestOverlayChainsStayShort(t *testing.T) {
	p := newPool(t, "overlay")
	ctx := t.Context()
	image, _ := withZoo(t, p)
	c1 := storage.Instance("c1")
	noError(t, p.CreateFromImage(ctx, c1, image))
	longest := 0
	for i := range 30 {
		mounted, err := p.MountVolume(ctx, c1, ids)
		noError(t, err)
		container(t, mounted.RootFS, ids, fmt.Sprintf("echo %d > /file; echo %d > /file%d; rm -f /file%d; mv /home/d%d /home/d%d 2>/dev/null || mkdir /home/d%d",
			i, i, i, i-2, i-1, i, i))
		longest = max(longest, lowers(t, mounted.RootFS))
		noError(t, p.UnmountVolume(ctx, c1))
		noError(t, p.Snapshot(ctx, c1.At(fmt.Sprint(i))))
	}
	if longest < 5 || longest > 9 {
		t.Errorf("the longest chain had %d layers, want more than a few and never more than 9", longest)
	}
	for _, i := range []int{0, 7, 8, 9, 15, 29} {
		noError(t, p.ViewVolume(ctx, c1.At(fmt.Sprint(i)), func(m storage.Mounted) error {
			got, err := os.ReadFile(filepath.Join(m.RootFS, "file"))
			if string(got) != fmt.Sprintln(i) {
				t.Errorf("snapshot %d holds %q", i, got)
			}
			return err
		}))
	}
}

func TestOverlayFreesWhatSnapshotsHeld(t *testing.T) {
	p := newPool(t, "overlay")
	ctx := t.Context()
	image, _ := withZoo(t, p)
	c1 := storage.Instance("c1")
	noError(t, p.CreateFromImage(ctx, c1, image))
	for i := range 5 {
		inMount(t, p, c1, ids, "dd if=/dev/zero of=/big bs=1000000 count=5 2>/dev/null || head -c 5000000 /var/sparse > /big; sync")
		noError(t, p.Snapshot(ctx, c1.At(fmt.Sprint(i))))
	}
	before, err := p.Usage(ctx, c1)
	noError(t, err)
	for i := range 5 {
		noError(t, p.DeleteVolume(ctx, c1.At(fmt.Sprint(i))))
	}
	after, err := p.Usage(ctx, c1)
	noError(t, err)
	if before.Used < 25_000_000 || after.Used > 6_000_000 {
		t.Errorf("with five snapshots of 5 MB each it uses %d, without them %d", before.Used, after.Used)
	}
}

// A container that runs may lose its mount point on the host (an operator's
// umount). What it writes must still not get into a snapshot taken before.
func TestOverlayLostMountPoint(t *testing.T) {
	p := newPool(t, "overlay")
	ctx := t.Context()
	image, _ := withZoo(t, p)
	c1 := storage.Instance("c1")
	noError(t, p.CreateFromImage(ctx, c1, image))
	mounted, err := p.MountVolume(ctx, c1, ids)
	noError(t, err)
	// A second mount of the same overlay stands for the container's own.
	held := scratch(t)
	noError(t, mount.Bind(mounted.RootFS, held, nil, mount.Flags{}))
	container(t, held, ids, "echo before > /file")
	noError(t, p.UnmountVolume(ctx, c1))
	noError(t, p.Snapshot(ctx, c1.At("s")))
	container(t, held, ids, "echo after > /file; rm /etc/passwd")
	if out := readIn(t, p, c1.At("s"), "file"); out != "before\n" {
		t.Errorf("the snapshot holds %q", out)
	}
	if _, err := p.MountVolume(ctx, c1, nil); !errors.Is(err, state.ErrConflict) {
		t.Errorf("mounting with another map: %v, want ErrConflict", err)
	}
	noError(t, unix.Unmount(held, 0))
	if out := readIn(t, p, c1, "file"); out != "after\n" {
		t.Errorf("the volume holds %q", out)
	}
}

func readIn(t *testing.T, p *storage.Pool, vol storage.Volume, name string) string {
	t.Helper()
	var content []byte
	noError(t, p.ViewVolume(t.Context(), vol, func(m storage.Mounted) (err error) {
		content, err = os.ReadFile(filepath.Join(m.RootFS, name))
		return err
	}))
	return string(content)
}

// An instance that was never started, or changed nothing, adds no layer.
func TestOverlayLayersOnlyForWhatWasWritten(t *testing.T) {
	p := newPool(t, "overlay")
	ctx := t.Context()
	image, _ := withZoo(t, p)
	c1 := storage.Instance("c1")
	noError(t, p.CreateFromImage(ctx, c1, image))
	for i := range 5 {
		inMount(t, p, c1, ids, "true")
		noError(t, p.Snapshot(ctx, c1.At(fmt.Sprint(i))))
		noError(t, p.Copy(ctx, storage.Instance(fmt.Sprint("copy", i)), p, c1, nil))
	}
	mounted, err := p.MountVolume(ctx, c1, ids)
	noError(t, err)
	if n := lowers(t, mounted.RootFS); n != 1 {
		t.Errorf("the chain has %d layers, want the image alone", n)
	}
	noError(t, p.UnmountVolume(context.WithoutCancel(ctx), c1))
	inMount(t, p, c1, ids, "chmod 700 /; chown 3 /")
	noError(t, p.Snapshot(ctx, c1.At("root")))
	noError(t, p.Copy(ctx, storage.Instance("copy-root"), p, c1.At("root"), nil))
	if out := inMount(t, p, storage.Instance("copy-root"), storage.Shift(4_000_000, 65536), "stat -c '%a %u' /"); out != "700 3\n" {
		t.Errorf("the root directory of the copy is %q", out)
	}
}

// The kernel's own use of the file system inside: what containers do.
func TestOverlayInsideAContainer(t *testing.T) {
	p := newPool(t, "overlay")
	ctx := t.Context()
	image, _ := withZoo(t, p)
	c1 := storage.Instance("c1")
	noError(t, p.CreateFromImage(ctx, c1, image))
	got := inMount(t, p, c1, ids, `
		mv /usr/share /usr/moved && ls /usr/moved/doc      # a directory of the image
		ln /home/ann/notes /home/ann/notes3 && stat -c %h /home/ann/notes3
		echo more >> /home/ann/notes3 && cat /home/ann/notes3
		rm -r /usr/moved/doc && mkdir /usr/moved/doc && ls -a /usr/moved/doc | wc -l
		stat -f / | grep -c Blocks
	`)
	want := "a\nb\n2\nremembermore\n2\n1\n"
	if got != want {
		t.Errorf("the container says %q, want %q", got, want)
	}
}
