package storage_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/node/storage"
	"muster/node/storage/mount"
	"muster/state"
)

// everyDriver runs the test on a fresh pool of each driver.
func everyDriver(t *testing.T, test func(t *testing.T, p *storage.Pool)) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) { test(t, newPool(t, driver)) })
	}
}

// withZoo makes sure of an image with one of everything and returns its
// fingerprint with what it holds.
func withZoo(t testing.TB, p *storage.Pool) (string, map[string]string) {
	t.Helper()
	dir := scratch(t)
	noError(t, zoo(t)(t.Context(), dir))
	noError(t, p.EnsureImage(t.Context(), fingerprint(1), func(ctx context.Context, at string) error {
		return zoo(t)(ctx, at)
	}))
	want := manifest(t, filepath.Join(dir, "rootfs"), 0)
	// Times that the clock gave differ from one unpacking to the next.
	for path, line := range want {
		want[path] = clockless(path, line)
	}
	return fingerprint(1), want
}

// clockless drops the time of a file's last change, unless the zoo set it.
func clockless(path, line string) string {
	if path == "etc/passwd" {
		return line
	}
	before, after, ok := strings.Cut(line, " mtime ")
	if !ok {
		return line
	}
	_, rest, _ := strings.Cut(after, " ")
	return before + " " + rest
}

func clocklessAll(m map[string]string) map[string]string {
	out := map[string]string{}
	for path, line := range m {
		out[path] = clockless(path, line)
	}
	return out
}

func TestVolumeFromImageHoldsTheImage(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		image, want := withZoo(t, p)
		c1 := storage.Instance("c1")
		noError(t, p.CreateFromImage(t.Context(), c1, image))
		same(t, "a new volume", clocklessAll(viewOf(t, p, c1)), want)

		for name, m := range map[string]*storage.IDMap{"unprivileged": ids, "privileged": nil} {
			mounted, err := p.MountVolume(t.Context(), c1, m)
			noError(t, err)
			base := 0
			if m != nil {
				base = 1_000_000
			}
			got := manifest(t, mounted.RootFS, base)
			if base != 0 {
				for path, line := range want {
					if i := strings.Index(line, ` map["`); i >= 0 {
						line = line[:i]
					}
					if clockless(path, got[path]) != line {
						t.Errorf("%s: %s is %s, want %s", name, path, got[path], line)
					}
				}
			} else {
				same(t, "mounted privileged", clocklessAll(got), want)
			}
			if out := container(t, mounted.RootFS, m, "stat -c %u:%g /home/ann /etc/shadow; cat /home/ann/notes"); out != "1000:1000\n0:42\nremember" {
				t.Errorf("%s: the container sees %q", name, out)
			}
			yaml, err := os.ReadFile(filepath.Join(mounted.Dir, "metadata.yaml"))
			if err != nil || string(yaml) != "architecture: x86_64\n" {
				t.Errorf("metadata.yaml is %q (%v)", yaml, err)
			}
			if _, err := os.Stat(filepath.Join(mounted.Dir, "templates", "hosts.tpl")); err != nil {
				t.Error(err)
			}
			noError(t, p.UnmountVolume(t.Context(), c1))
		}
	})
}

func TestVolumesDoNotShareWhatTheyWrite(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		image, want := withZoo(t, p)
		c1, c2 := storage.Instance("c1"), storage.Instance("c2")
		noError(t, p.CreateFromImage(t.Context(), c1, image))
		noError(t, p.CreateFromImage(t.Context(), c2, image))
		inMount(t, p, c1, ids, "echo mine > /etc/passwd; rm -r /usr/share/doc; mv /home/ann /home/bob; mknod /dev/fifo p; chown 5:6 /tmp; ln /etc/shadow /etc/shadow2")
		same(t, "the other volume", clocklessAll(viewOf(t, p, c2)), want)
		noError(t, p.CreateFromImage(t.Context(), storage.Instance("c3"), image))
		same(t, "a volume made later", clocklessAll(viewOf(t, p, storage.Instance("c3"))), want)

		got := inMount(t, p, c1, ids, "cat /etc/passwd; ls /usr/share; cat /home/bob/notes; stat -c '%u:%g' /tmp; stat -c %h /etc/shadow2; [ -p /dev/fifo ] && echo fifo")
		if got != "mine\nremember5:6\n2\nfifo\n" {
			t.Errorf("after remounting, the first container sees %q", got)
		}
		// metadata.yaml belongs to the instance.
		dir, err := p.VolumeDir(c1)
		noError(t, err)
		noError(t, os.WriteFile(filepath.Join(dir, "metadata.yaml"), []byte("changed"), 0o600))
		other, err := p.VolumeDir(c2)
		noError(t, err)
		if data, err := os.ReadFile(filepath.Join(other, "metadata.yaml")); err != nil || string(data) != "architecture: x86_64\n" {
			t.Errorf("metadata.yaml of the other is %q (%v)", data, err)
		}
	})
}

// Files keep their meaning when the container gets another map, and again
// when it gets the first one back.
func TestIDMapChanges(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		image, _ := withZoo(t, p)
		c1 := storage.Instance("c1")
		noError(t, p.CreateFromImage(t.Context(), c1, image))
		other := storage.Shift(3_000_000, 65536)
		inMount(t, p, c1, ids, "echo one > /one; chown 7:8 /one; mkdir /home/dir; rm /usr/share/doc/a; chmod 711 /")
		dir := inMountHost(t, p, c1, ids, func(rootfs string) {
			// What setcap and setfacl would do inside.
			w := &writer{root: rootfs}
			w.xattr("one", "security.capability", rootCapability(1_000_000))
			w.xattr("home/dir", "system.posix_acl_access", acl(1_000_005))
			noError(t, w.err)
		})
		_ = dir
		for i, m := range []*storage.IDMap{other, nil, ids, other, nil} {
			base := uint32(0)
			if m != nil {
				base = m.UIDs[0].Host
			}
			want := "7:8\n711 0:0\nb\n"
			got := inMount(t, p, c1, m, "stat -c %u:%g /one; stat -c '%a %u:%g' /; ls /usr/share/doc")
			if got != want {
				t.Errorf("round %d: the container sees %q, want %q", i, got, want)
			}
			inMountHost(t, p, c1, m, func(rootfs string) {
				attrs := xattrs(t, filepath.Join(rootfs, "home/dir"))
				if attrs["system.posix_acl_access"] != acl(base+5) {
					t.Errorf("round %d: the access list is %q, want %q", i, attrs["system.posix_acl_access"], acl(base+5))
				}
				wantCap := rootCapability(base)
				if base == 0 {
					wantCap = capability()
				}
				if got := xattrs(t, filepath.Join(rootfs, "one"))["security.capability"]; got != wantCap {
					t.Errorf("round %d: the capability is %q, want %q", i, got, wantCap)
				}
			})
			inMount(t, p, c1, m, "touch /round; chown 1234 /round; rm /round")
		}
	})
}

func TestMountsAreCounted(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		ctx := t.Context()
		image, _ := withZoo(t, p)
		c1 := storage.Instance("c1")
		noError(t, p.CreateFromImage(ctx, c1, image))
		first, err := p.MountVolume(ctx, c1, ids)
		noError(t, err)
		second, err := p.MountVolume(ctx, c1, ids)
		noError(t, err)
		if first != second {
			t.Errorf("the second mount is at %v, want %v", second, first)
		}
		if _, err := p.MountVolume(ctx, c1, nil); !errors.Is(err, state.ErrConflict) {
			t.Errorf("mounting with another map: %v, want ErrConflict", err)
		}
		for name, change := range map[string]func() error{
			"delete":  func() error { return p.DeleteVolume(ctx, c1) },
			"rename":  func() error { return p.Rename(ctx, c1, "c9") },
			"unmount": func() error { return p.Unmount(ctx) },
			"remove":  func() error { return p.Delete(ctx) },
		} {
			if err := change(); !errors.Is(err, state.ErrConflict) {
				t.Errorf("%s of a mounted volume or its pool: %v, want ErrConflict", name, err)
			}
		}
		noError(t, p.UnmountVolume(ctx, c1))
		if at, err := mount.At(first.RootFS); err != nil || !at {
			t.Errorf("after one of two users left it is mounted: %v (%v)", at, err)
		}
		noError(t, p.UnmountVolume(ctx, c1))
		if at, err := mount.At(first.RootFS); err != nil || at {
			t.Errorf("after the last user left it is mounted: %v (%v)", at, err)
		}
		noError(t, p.UnmountVolume(ctx, c1))
	})
}

func TestHostUsersCannotReachAVolume(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		image, _ := withZoo(t, p)
		c1 := storage.Instance("c1")
		noError(t, p.CreateFromImage(t.Context(), c1, image))
		mounted, err := p.MountVolume(t.Context(), c1, nil)
		noError(t, err)
		defer func() { noError(t, p.UnmountVolume(t.Context(), c1)) }()
		out := asNobody(t, "cat "+filepath.Join(mounted.RootFS, "etc/passwd")+" || ls "+filepath.Dir(mounted.Dir))
		if !strings.Contains(out, "Permission denied") || strings.Contains(out, "ann") {
			t.Errorf("an ordinary user of the host sees %q", out)
		}
	})
}

func TestSnapshots(t *testing.T) {
	for _, running := range []bool{false, true} {
		name := "of a stopped volume"
		if running {
			name = "of a running volume"
		}
		t.Run(name, func(t *testing.T) {
			everyDriver(t, func(t *testing.T, p *storage.Pool) { testSnapshots(t, p, running) })
		})
	}
}

func testSnapshots(t *testing.T, p *storage.Pool, running bool) {
	ctx := t.Context()
	image, _ := withZoo(t, p)
	c1 := storage.Instance("c1")
	noError(t, p.CreateFromImage(ctx, c1, image))
	snapshot := func(name, script string) map[string]string {
		t.Helper()
		mounted, err := p.MountVolume(ctx, c1, ids)
		noError(t, err)
		container(t, mounted.RootFS, ids, script)
		if running {
			noError(t, p.Snapshot(ctx, c1.At(name)))
		}
		noError(t, p.UnmountVolume(ctx, c1))
		if !running {
			noError(t, p.Snapshot(ctx, c1.At(name)))
		}
		return viewOf(t, p, c1)
	}
	want := map[string]map[string]string{
		"s0": snapshot("s0", "true"),
		"s1": snapshot("s1", "echo 1 > /file; rm -r /usr/share/doc; mkdir /usr/share/doc; echo new > /usr/share/doc/new; mv /home/ann /home/bob; chown 33:33 /home/bob/notes"),
		"s2": snapshot("s2", "echo 2 > /file; mv /home/bob /tmp/carl; mv /usr /tmp/usr; rm /etc/shadow; ln -s /file /link"),
		"s3": snapshot("s3", "echo 3 > /file; rm -r /tmp/carl; mkdir /home/ann; echo back > /home/ann/notes; rm /bin/su; mkfifo /bin/su"),
	}
	check := func(when string) {
		t.Helper()
		for name, m := range want {
			same(t, when+": "+name, viewOf(t, p, c1.At(name)), m)
		}
	}
	check("after all were made")

	noError(t, p.DeleteVolume(ctx, c1.At("s1")))
	delete(want, "s1")
	check("after a middle one was deleted")

	noError(t, p.Restore(ctx, c1.At("s2")))
	same(t, "the volume restored to s2", viewOf(t, p, c1), want["s2"])
	inMount(t, p, c1, ids, "echo changed > /file; rm -r /etc")
	check("after the restored volume was changed")

	noError(t, p.Rename(ctx, c1.At("s3"), "last"))
	want["last"] = want["s3"]
	delete(want, "s3")
	noError(t, p.Restore(ctx, c1.At("last")))
	same(t, "the volume restored to a later snapshot", viewOf(t, p, c1), want["last"])
	noError(t, p.Rename(ctx, c1, "c2"))
	c1 = storage.Instance("c2")
	check("after the volume was renamed")

	for _, name := range []string{"s2", "s0", "last"} {
		noError(t, p.DeleteVolume(ctx, c1.At(name)))
	}
	same(t, "the volume after its snapshots went", viewOf(t, p, c1), want["last"])
	if out := inMount(t, p, c1, ids, "cat /file; cat /home/ann/notes"); out != "3\nback\n" {
		t.Errorf("the container sees %q", out)
	}
}

func TestSnapshotMountIsReadOnly(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		ctx := t.Context()
		image, _ := withZoo(t, p)
		c1 := storage.Instance("c1")
		noError(t, p.CreateFromImage(ctx, c1, image))
		inMount(t, p, c1, ids, "echo hi > /hi")
		noError(t, p.Snapshot(ctx, c1.At("s")))
		mounted, err := p.MountVolume(ctx, c1.At("s"), ids)
		noError(t, err)
		out, err := containerErr(ctx, mounted.RootFS, ids, "cat /hi; echo bad > /hi")
		if err == nil || !strings.HasPrefix(out, "hi\n") || !strings.Contains(out, "Read-only file system") {
			t.Errorf("writing to a snapshot: %q, %v", out, err)
		}
		if err := p.DeleteVolume(ctx, c1.At("s")); !errors.Is(err, state.ErrConflict) {
			t.Errorf("deleting a mounted snapshot: %v, want ErrConflict", err)
		}
		if err := p.DeleteVolume(ctx, c1); !errors.Is(err, state.ErrConflict) {
			t.Errorf("deleting a volume with a mounted snapshot: %v, want ErrConflict", err)
		}
		noError(t, p.UnmountVolume(ctx, c1.At("s")))
	})
}

func TestCopy(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		ctx := t.Context()
		image, _ := withZoo(t, p)
		c1, c2, c3 := storage.Instance("c1"), storage.Instance("c2"), storage.Instance("c3")
		noError(t, p.CreateFromImage(ctx, c1, image))
		inMount(t, p, c1, ids, "echo 1 > /file; mv /home/ann /home/bob")
		noError(t, p.Snapshot(ctx, c1.At("s1")))
		s1 := viewOf(t, p, c1)
		inMount(t, p, c1, ids, "echo 2 > /file; rm -r /home/bob")
		now := viewOf(t, p, c1)

		noError(t, p.Copy(ctx, c2, p, c1, []string{"s1"}))
		same(t, "the copy", viewOf(t, p, c2), now)
		same(t, "the copied snapshot", viewOf(t, p, c2.At("s1")), s1)
		noError(t, p.Copy(ctx, c3, p, c1.At("s1"), nil))
		same(t, "the copy of a snapshot", viewOf(t, p, c3), s1)
		if err := p.Copy(ctx, c3, p, c1, nil); !errors.Is(err, state.ErrExists) {
			t.Errorf("copying to a taken name: %v, want ErrExists", err)
		}

		inMount(t, p, c1, ids, "echo source > /file")
		inMount(t, p, c2, storage.Shift(5_000_000, 65536), "echo copy > /file; rm /etc/passwd")
		if out := inMount(t, p, c1, ids, "cat /file; wc -l < /etc/passwd"); out != "source\n2\n" {
			t.Errorf("the source holds %q after its copy changed", out)
		}
		noError(t, p.DeleteVolume(ctx, c1))
		same(t, "the copy of a snapshot, its source gone", viewOf(t, p, c3), s1)
		noError(t, p.Restore(ctx, c2.At("s1")))
		same(t, "the restored copy, its source gone", viewOf(t, p, c2), s1)

		// From one that is running.
		mounted, err := p.MountVolume(ctx, c3, ids)
		noError(t, err)
		container(t, mounted.RootFS, ids, "echo running > /file")
		noError(t, p.Copy(ctx, storage.Instance("c4"), p, c3, nil))
		container(t, mounted.RootFS, ids, "echo later > /file")
		noError(t, p.UnmountVolume(ctx, c3))
		if out := inMount(t, p, storage.Instance("c4"), ids, "cat /file; cat /home/bob/notes"); out != "running\nremember" {
			t.Errorf("the copy of a running container holds %q", out)
		}
	})
}

func TestCopyBetweenPools(t *testing.T) {
	needsRoot(t)
	for _, from := range drivers {
		for _, to := range drivers {
			t.Run(from+" to "+to, func(t *testing.T) {
				ctx := t.Context()
				source, target := newPool(t, from), newPool(t, to)
				image, _ := withZoo(t, source)
				c1, c2 := storage.Instance("c1"), storage.Instance("c2")
				noError(t, source.CreateFromImage(ctx, c1, image))
				inMount(t, source, c1, ids, "echo 1 > /file; chown 12:13 /file; mv /usr/share /usr/lib")
				noError(t, source.Snapshot(ctx, c1.At("s1")))
				s1 := viewOf(t, source, c1)
				mounted, err := source.MountVolume(ctx, c1, ids)
				noError(t, err)
				container(t, mounted.RootFS, ids, "echo 2 > /file; rm -r /home/ann")
				noError(t, target.Copy(ctx, c2, source, c1, []string{"s1"}))
				noError(t, source.UnmountVolume(ctx, c1))
				same(t, "the copy", viewOf(t, target, c2), viewOf(t, source, c1))
				same(t, "the copied snapshot", viewOf(t, target, c2.At("s1")), s1)
				dir, err := target.VolumeDir(c2)
				noError(t, err)
				if data, err := os.ReadFile(filepath.Join(dir, "templates", "hosts.tpl")); err != nil || len(data) == 0 {
					t.Errorf("the copy's template: %q (%v)", data, err)
				}
			})
		}
	}
}

func TestUnpackRunsOnce(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		var calls atomic.Int32
		var group sync.WaitGroup
		for i := range 8 {
			group.Go(func() {
				err := p.EnsureImage(t.Context(), fingerprint(2), func(_ context.Context, dir string) error {
					calls.Add(1)
					return os.Mkdir(filepath.Join(dir, "rootfs"), 0o755)
				})
				if err != nil {
					t.Error(err)
				}
				if err := p.CreateFromImage(t.Context(), storage.Instance("c"+string(rune('a'+i))), fingerprint(2)); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if calls.Load() != 1 {
			t.Errorf("unpack ran %d times, want once", calls.Load())
		}
		if images, err := p.Images(t.Context()); err != nil || !slices.Equal(images, []string{fingerprint(2)}) {
			t.Errorf("Images = %v, %v", images, err)
		}
	})
}

func TestUnpackThatFails(t *testing.T) {
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		unpack storage.Unpack
		want   error
	}{
		"an error is passed on": {func(_ context.Context, dir string) error {
			_ = os.MkdirAll(filepath.Join(dir, "rootfs", "a"), 0o755)
			return boom
		}, boom},
		"no rootfs is refused":         {func(context.Context, string) error { return nil }, state.ErrInvalid},
		"a link for rootfs is refused": {func(_ context.Context, dir string) error { return os.Symlink("/", filepath.Join(dir, "rootfs")) }, state.ErrInvalid},
		"a link for templates is refused": {func(_ context.Context, dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "rootfs"), 0o755), os.Symlink("/etc", filepath.Join(dir, "templates")))
		}, state.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			everyDriver(t, func(t *testing.T, p *storage.Pool) {
				if err := p.EnsureImage(t.Context(), fingerprint(3), tc.unpack); !errors.Is(err, tc.want) {
					t.Errorf("EnsureImage = %v, want %v", err, tc.want)
				}
				if err := p.CreateFromUnpack(t.Context(), storage.Instance("c1"), tc.unpack); !errors.Is(err, tc.want) {
					t.Errorf("CreateFromUnpack = %v, want %v", err, tc.want)
				}
				if p.ImagePresent(fingerprint(3)) || p.VolumePresent(storage.Instance("c1")) {
					t.Error("something was kept")
				}
				nothingLeft(t, p)
			})
		})
	}
}

// nothingLeft fails the test if staging, trash or layers hold anything, or
// anything is mounted but the pool.
func nothingLeft(t testing.TB, p *storage.Pool) {
	t.Helper()
	report, err := p.Reconcile(t.Context(), storage.Known{})
	noError(t, err)
	if len(report.Removed)+len(report.Unmounted) > 0 {
		t.Errorf("left behind: %v, mounted: %v", report.Removed, report.Unmounted)
	}
}

func TestDeletedImageStaysForItsVolumes(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		ctx := t.Context()
		image, want := withZoo(t, p)
		c1 := storage.Instance("c1")
		noError(t, p.CreateFromImage(ctx, c1, image))
		noError(t, p.DeleteImage(ctx, image))
		noError(t, p.DeleteImage(ctx, image))
		if p.ImagePresent(image) {
			t.Error("the image is still present")
		}
		if err := p.CreateFromImage(ctx, storage.Instance("c2"), image); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("a volume from the deleted image: %v, want ErrNotFound", err)
		}
		same(t, "the volume", clocklessAll(viewOf(t, p, c1)), want)
		// Unpacking it again must work whether or not it is still there.
		_, again := withZoo(t, p)
		noError(t, p.CreateFromImage(ctx, storage.Instance("c2"), image))
		same(t, "a volume from the image unpacked again", clocklessAll(viewOf(t, p, storage.Instance("c2"))), again)
		noError(t, p.DeleteImage(ctx, image))
		noError(t, p.DeleteVolume(ctx, c1))
		noError(t, p.DeleteVolume(ctx, storage.Instance("c2")))
		nothingLeft(t, p)
		if entries, err := os.ReadDir(filepath.Join(rootOf(t, p), "images")); err != nil || len(entries) > 0 {
			t.Errorf("files of the image are left: %v (%v)", entries, err)
		}
	})
}

func TestCreateFromUnpack(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		ctx := t.Context()
		dir := scratch(t)
		noError(t, zoo(t)(ctx, dir))
		want := clocklessAll(manifest(t, filepath.Join(dir, "rootfs"), 0))
		c1 := storage.Instance("c1")
		noError(t, p.CreateFromUnpack(ctx, c1, zoo(t)))
		same(t, "the volume", clocklessAll(viewOf(t, p, c1)), want)
		noError(t, p.CreateFromUnpack(ctx, c1.At("s1"), zoo(t)))
		same(t, "the snapshot", clocklessAll(viewOf(t, p, c1.At("s1"))), want)
		inMount(t, p, c1, ids, "rm /etc/passwd; echo x > /x")
		noError(t, p.Restore(ctx, c1.At("s1")))
		same(t, "the volume restored", clocklessAll(viewOf(t, p, c1)), want)
		if err := p.CreateFromUnpack(ctx, storage.Instance("none").At("s"), zoo(t)); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("a snapshot of nothing: %v, want ErrNotFound", err)
		}
	})
}

func TestCustomVolumes(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		ctx := t.Context()
		data := storage.Custom("data")
		noError(t, p.CreateEmpty(ctx, data))
		noError(t, p.CreateEmpty(ctx, storage.Instance("data"))) // another kind, another name space
		other := storage.Shift(2_000_000, 65536)
		a, err := p.MountVolume(ctx, data, ids)
		noError(t, err)
		b, err := p.MountVolume(ctx, data, other)
		noError(t, err)
		plain, err := p.MountVolume(ctx, data, nil)
		noError(t, err)
		w := &writer{root: plain.RootFS}
		w.file("file", "shared", 0o644, 33, 33)
		noError(t, w.err)
		for base, m := range map[int]storage.Mounted{1_000_000: a, 2_000_000: b, 0: plain} {
			if got := manifest(t, m.RootFS, base)["file"]; !strings.HasPrefix(got, "100644 33:33 ") {
				t.Errorf("with base %d the file is %s", base, got)
			}
		}
		noError(t, p.Snapshot(ctx, data.At("s")))
		noError(t, os.WriteFile(filepath.Join(plain.RootFS, "file"), []byte("later"), 0o644))
		if err := p.DeleteVolume(ctx, data); !errors.Is(err, state.ErrConflict) {
			t.Errorf("deleting a mounted volume: %v, want ErrConflict", err)
		}
		for _, m := range []*storage.IDMap{ids, other, nil} {
			noError(t, p.UnmountCustom(ctx, data, m))
		}
		noError(t, p.Copy(ctx, storage.Custom("copy"), p, data, []string{"s"}))
		noError(t, p.Restore(ctx, storage.Custom("copy").At("s")))
		noError(t, p.Rename(ctx, storage.Custom("copy"), "copy2"))
		for vol, want := range map[storage.Volume]string{data: "later", storage.Custom("copy2"): "shared"} {
			noError(t, p.ViewVolume(ctx, vol, func(m storage.Mounted) error {
				got, err := os.ReadFile(filepath.Join(m.RootFS, "file"))
				if string(got) != want {
					t.Errorf("%s holds %q, want %q", vol, got, want)
				}
				return err
			}))
		}
	})
}

func TestVolumesAreListed(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		ctx := t.Context()
		noError(t, p.CreateEmpty(ctx, storage.Instance("c1")))
		noError(t, p.CreateEmpty(ctx, storage.Custom("a b,c:d")))
		noError(t, p.Snapshot(ctx, storage.Instance("c1").At("s2")))
		noError(t, p.Snapshot(ctx, storage.Instance("c1").At("s1")))
		got, err := p.Volumes(ctx)
		noError(t, err)
		want := map[storage.Volume][]string{storage.Instance("c1"): {"s1", "s2"}, storage.Custom("a b,c:d"): nil}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Volumes (-want +got):\n%s", diff)
		}
	})
}

func TestRefusals(t *testing.T) {
	everyDriver(t, func(t *testing.T, p *storage.Pool) {
		ctx := t.Context()
		c1 := storage.Instance("c1")
		noError(t, p.CreateEmpty(ctx, c1))
		noError(t, p.Snapshot(ctx, c1.At("s")))
		for name, tc := range map[string]struct {
			do   func() error
			want error
		}{
			"a name with a slash":           {func() error { return p.CreateEmpty(ctx, storage.Instance("a/b")) }, state.ErrInvalid},
			"a name that climbs":            {func() error { return p.CreateEmpty(ctx, storage.Instance("..")) }, state.ErrInvalid},
			"an empty name":                 {func() error { return p.CreateEmpty(ctx, storage.Instance("")) }, state.ErrInvalid},
			"a name with a newline":         {func() error { return p.CreateEmpty(ctx, storage.Instance("a\nb")) }, state.ErrInvalid},
			"a very long name":              {func() error { return p.CreateEmpty(ctx, storage.Instance(strings.Repeat("a", 201))) }, state.ErrInvalid},
			"a type nobody knows":           {func() error { return p.CreateEmpty(ctx, storage.Volume{Type: "image", Name: "a"}) }, state.ErrInvalid},
			"a snapshot name that climbs":   {func() error { return p.Snapshot(ctx, c1.At("../../x")) }, state.ErrInvalid},
			"deleting what climbs":          {func() error { return p.DeleteVolume(ctx, storage.Instance("../images")) }, state.ErrInvalid},
			"a fingerprint that climbs":     {func() error { return p.DeleteImage(ctx, "../containers") }, state.ErrInvalid},
			"a new name that climbs":        {func() error { return p.Rename(ctx, c1, "../x") }, state.ErrInvalid},
			"an empty new name":             {func() error { return p.Rename(ctx, c1.At("s"), "") }, state.ErrInvalid},
			"a name that is taken":          {func() error { return p.CreateEmpty(ctx, c1) }, state.ErrExists},
			"a snapshot name that is taken": {func() error { return p.Snapshot(ctx, c1.At("s")) }, state.ErrExists},
			"a new name that is taken": {func() error {
				noError(t, p.CreateEmpty(ctx, storage.Instance("c2")))
				return p.Rename(ctx, c1, "c2")
			}, state.ErrExists},
			"an image that is not there":    {func() error { return p.CreateFromImage(ctx, storage.Instance("c3"), fingerprint(9)) }, state.ErrNotFound},
			"a volume that is not there":    {func() error { return p.Snapshot(ctx, storage.Instance("none").At("s")) }, state.ErrNotFound},
			"mounting what is not there":    {func() error { _, err := p.MountVolume(ctx, storage.Instance("none"), ids); return err }, state.ErrNotFound},
			"restoring what is not there":   {func() error { return p.Restore(ctx, c1.At("none")) }, state.ErrNotFound},
			"renaming what is not there":    {func() error { return p.Rename(ctx, storage.Instance("none"), "x") }, state.ErrNotFound},
			"copying what is not there":     {func() error { return p.Copy(ctx, storage.Instance("x"), p, c1, []string{"none"}) }, state.ErrNotFound},
			"a copy of another type":        {func() error { return p.Copy(ctx, storage.Custom("x"), p, c1, nil) }, state.ErrInvalid},
			"a map without a range":         {func() error { _, err := p.MountVolume(ctx, c1, &storage.IDMap{}); return err }, state.ErrInvalid},
			"a map that is too large":       {func() error { _, err := p.MountVolume(ctx, c1, storage.Shift(4294967000, 65536)); return err }, state.ErrInvalid},
			"a negative quota":              {func() error { return p.SetQuota(ctx, c1, -1) }, state.ErrInvalid},
			"creating a pool that is there": {func() error { _, err := p.Create(ctx); return err }, state.ErrExists},
			"deleting a pool with volumes":  {func() error { return p.Delete(ctx) }, state.ErrConflict},
		} {
			if err := tc.do(); !errors.Is(err, tc.want) {
				t.Errorf("%s: %v, want %v", name, err, tc.want)
			}
		}
		for name, do := range map[string]func() error{
			"deleting what is not there":          func() error { return p.DeleteVolume(ctx, storage.Instance("none")) },
			"deleting a snapshot of nothing":      func() error { return p.DeleteVolume(ctx, storage.Instance("none").At("s")) },
			"unmounting what is not there":        func() error { return p.UnmountVolume(ctx, storage.Instance("none")) },
			"deleting an image that is not there": func() error { return p.DeleteImage(ctx, fingerprint(9)) },
			"mounting a pool that is mounted":     func() error { return p.Mount(ctx) },
			"lifting a quota that is not there":   func() error { return p.SetQuota(ctx, c1, 0) },
		} {
			if err := do(); err != nil {
				t.Errorf("%s: %v, want no error", name, err)
			}
		}
		nothingLeft(t, p)
	})
}
