package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"muster/node/storage"
	"muster/node/storage/mount"
	"muster/node/storage/tree"
	"muster/state"
)

func TestMain(m *testing.M) {
	if run := os.Getenv(childEnv); run != "" {
		child(run)
	}
	goleak.VerifyTestMain(m)
}

// needsRoot skips a test that mounts.
func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts, loop devices, foreign owners")
	}
}

// drivers are the drivers under contract.
var drivers = []string{"overlay", "dir", "btrfs"}

// scratch returns an empty directory that anybody can cross, and takes down
// what is mounted in it when the test ends.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "muster-storage-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mounts, err := mount.Table(dir)
		if err != nil {
			t.Error(err)
		}
		for _, m := range slices.Backward(mounts) {
			if _, err := mount.Unmount(context.Background(), m.Path); err != nil {
				t.Error(err)
			}
		}
		if err := tree.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// poolIn opens a pool whose directories are in dir.
func poolIn(t testing.TB, dir, driver string, config state.Config) *storage.Pool {
	t.Helper()
	cfg := storage.Config{Dir: filepath.Join(dir, "storage-pools"), Disks: filepath.Join(dir, "disks"), Log: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	p, err := storage.Open(t.Context(), cfg, state.Pool{Name: "pool", Driver: driver, Config: config})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newPool creates a pool. When the test ends, nothing may be mounted in it any
// more but itself, and it must go without a trace.
func newPool(t testing.TB, driver string) *storage.Pool {
	t.Helper()
	needsRoot(t)
	return createIn(t, scratch(t), driver, smallConfig(driver))
}

// smallConfig keeps the loop files of tests small.
func smallConfig(driver string) state.Config {
	if driver == "btrfs" {
		return state.Config{"size": "512MiB"}
	}
	return nil
}

func createIn(t testing.TB, dir, driver string, config state.Config) *storage.Pool {
	t.Helper()
	p := poolIn(t, dir, driver, config)
	if _, err := p.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		volumes, err := p.Volumes(ctx)
		if errors.Is(err, state.ErrUnavailable) {
			return // the test unmounted or deleted it
		}
		if err != nil {
			t.Error(err)
		}
		for v := range volumes {
			if err := p.DeleteVolume(ctx, v); err != nil {
				t.Errorf("delete %s: %v", v, err)
			}
		}
		if err := p.Delete(ctx); err != nil {
			t.Errorf("delete the pool: %v", err)
		}
		mounts, err := mount.Table(dir)
		if err != nil || len(mounts) > 0 {
			t.Errorf("after the pool was deleted these are still mounted: %v (%v)", mounts, err)
		}
	})
	return p
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// noError fails the test at once.
func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fingerprint makes a well-formed fingerprint.
func fingerprint(n int) string { return fmt.Sprintf("%064x", n) }

// busybox is the program that stands in for a container.
func busybox(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox: install busybox-static")
	}
	return path
}

// zoo fills dir with one of everything that a root file system can have.
func zoo(t testing.TB) storage.Unpack {
	shell := busybox(t)
	return func(_ context.Context, dir string) error {
		root := filepath.Join(dir, "rootfs")
		w := &writer{root: root}
		w.dir("", 0o755, 0, 0)
		for _, d := range []string{"bin", "etc", "dev", "home", "tmp", "var", "usr", "usr/share", "usr/share/doc", "empty"} {
			w.dir(d, 0o755, 0, 0)
		}
		program, err := os.ReadFile(shell)
		if err != nil {
			return err
		}
		w.file("bin/busybox", string(program), 0o755, 0, 0)
		w.file("bin/su", "set-uid", 0o4755, 0, 0)
		for name := range strings.FieldsSeq("sh cat chmod chown find grep head ln ls mkdir mkfifo mknod mv rm sleep stat sync touch tr wc dd cp") {
			w.symlink("busybox", "bin/"+name)
		}
		w.file("etc/passwd", "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n", 0o644, 0, 0)
		w.file("etc/shadow", "secret", 0o640, 0, 42)
		w.dir("home/ann", 0o750, 1000, 1000)
		w.file("home/ann/notes", "remember", 0o600, 1000, 1000)
		w.link("home/ann/notes", "home/ann/notes2")
		w.symlink("/nowhere", "home/ann/dangling")
		w.file("usr/share/doc/a", "a", 0o644, 0, 0)
		w.file("usr/share/doc/b", "b", 0o644, 0, 0)
		w.chmod("tmp", 0o1777)
		w.mknod("dev/null", unix.S_IFCHR|0o666, unix.Mkdev(1, 3))
		w.mknod("dev/pipe", unix.S_IFIFO|0o600, 0)
		w.sparse("var/sparse", 64<<20)
		w.xattr("etc/passwd", "user.note", "hello")
		w.xattr("home/ann", "user.dir", "yes")
		w.xattr("home/ann/notes", "system.posix_acl_access", acl(1001))
		w.xattr("home/ann", "system.posix_acl_default", acl(1001))
		w.xattr("bin/busybox", "security.capability", capability())
		w.touch("etc/passwd", time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC))
		if w.err != nil {
			return w.err
		}
		if err := os.WriteFile(filepath.Join(dir, "metadata.yaml"), []byte("architecture: x86_64\n"), 0o600); err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(dir, "templates"), 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "templates", "hosts.tpl"), []byte("127.0.0.1 {{ name }}\n"), 0o600)
	}
}

// writer makes files until something goes wrong.
type writer struct {
	root string
	err  error
}

func (w *writer) do(path string, f func(path string) error) {
	if w.err == nil {
		w.err = f(filepath.Join(w.root, path))
	}
}

func (w *writer) dir(path string, mode os.FileMode, uid, gid int) {
	w.do(path, func(p string) error {
		if err := os.MkdirAll(p, 0o700); err != nil {
			return err
		}
		if err := os.Chown(p, uid, gid); err != nil {
			return err
		}
		return os.Chmod(p, mode)
	})
}

func (w *writer) file(path, content string, mode uint32, uid, gid int) {
	w.do(path, func(p string) error {
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			return err
		}
		if err := os.Chown(p, uid, gid); err != nil {
			return err
		}
		return unix.Chmod(p, mode)
	})
}

func (w *writer) chmod(path string, mode uint32) {
	w.do(path, func(p string) error { return unix.Chmod(p, mode) })
}

func (w *writer) link(from, to string) {
	w.do(to, func(p string) error { return os.Link(filepath.Join(w.root, from), p) })
}

func (w *writer) symlink(target, path string) {
	w.do(path, func(p string) error { return os.Symlink(target, p) })
}

func (w *writer) mknod(path string, mode uint32, dev uint64) {
	w.do(path, func(p string) error {
		if err := unix.Mknod(p, mode, int(dev)); err != nil {
			return err
		}
		return unix.Chmod(p, mode&0o7777)
	})
}

func (w *writer) sparse(path string, size int64) {
	w.do(path, func(p string) error {
		f, err := os.Create(p)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("in the middle"), size/2); err != nil {
			return err
		}
		return f.Truncate(size)
	})
}

func (w *writer) xattr(path, name, value string) {
	w.do(path, func(p string) error { return unix.Lsetxattr(p, name, []byte(value), 0) })
}

func (w *writer) touch(path string, when time.Time) {
	w.do(path, func(p string) error { return os.Chtimes(p, when, when) })
}

// acl is the access list "u::rw-,u:<uid>:r--,g::r--,m::r--,o::---" in the form
// of linux/posix_acl_xattr.h.
func acl(uid uint32) string {
	b := []byte{2, 0, 0, 0}
	entry := func(tag, perm uint16, id uint32) {
		b = append(b, byte(tag), byte(tag>>8), byte(perm), byte(perm>>8), byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
	}
	const none = 0xffffffff
	entry(0x01, 6, none)
	entry(0x02, 4, uid)
	entry(0x04, 4, none)
	entry(0x10, 4, none)
	entry(0x20, 0, none)
	return string(b)
}

// capability is cap_net_raw=ep in the second form of linux/capability.h.
func capability() string {
	b := make([]byte, 20)
	b[0], b[3] = 1, 2 // effective, revision 2
	b[4+1] = 0x20     // 1<<13
	return string(b)
}

// manifest describes every file below dir: what it is, whose, and what is in
// it. Owners are shown minus base.
func manifest(t testing.TB, dir string, base int) map[string]string {
	t.Helper()
	lines := map[string]string{}
	first := map[[2]uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(path, dir), "/")
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%o %d:%d rdev %d", st.Mode, int(st.Uid)-base, int(st.Gid)-base, st.Rdev)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := sample(path, st.Size)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" size %d mtime %d.%d %q", st.Size, st.Mtim.Sec, st.Mtim.Nsec, content)
			if st.Size > 1<<20 && st.Blocks*512 < st.Size/2 {
				line += " sparse"
			}
			id := [2]uint64{st.Dev, st.Ino}
			if st.Nlink > 1 {
				if first[id] == "" {
					first[id] = name
				}
				line += " linked " + first[id]
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		attrs, err := tree.Xattrs(path)
		if err != nil {
			return err
		}
		if base == 0 && len(attrs) > 0 {
			line += fmt.Sprintf(" %q", attrs)
		}
		lines[name] = line
		return nil
	})
	noError(t, err)
	return lines
}

// sample reads a little from the start and from the middle of a file.
func sample(path string, size int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	out := ""
	for _, at := range []int64{0, size / 2} {
		buf := make([]byte, 64)
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		out += strings.Trim(string(buf[:n]), "\x00") + "|"
	}
	return out, nil
}

// same fails the test when two manifests differ.
func same(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// viewOf returns the manifest of a volume as the container would see it.
func viewOf(t testing.TB, p *storage.Pool, vol storage.Volume) map[string]string {
	t.Helper()
	var m map[string]string
	noError(t, p.ViewVolume(t.Context(), vol, func(mounted storage.Mounted) error {
		m = manifest(t, mounted.RootFS, 0)
		return nil
	}))
	return m
}

// ids is the map that tests use for unprivileged containers.
var ids = storage.Shift(1_000_000, 65536)

// container runs a shell script as root of a container: in a user namespace
// with the map (nil: none), with rootfs as its root.
func container(t testing.TB, rootfs string, m *storage.IDMap, script string) string {
	t.Helper()
	out, err := containerErr(t.Context(), rootfs, m, script)
	if err != nil {
		t.Fatalf("in the container: %q: %v: %s", script, err, out)
	}
	return out
}

func containerErr(ctx context.Context, rootfs string, m *storage.IDMap, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "/bin/busybox", "sh", "-ec", script)
	cmd.Env = []string{"PATH=/bin"}
	cmd.Dir = "/"
	attr := &syscall.SysProcAttr{Chroot: rootfs, Cloneflags: unix.CLONE_NEWNS}
	if m != nil {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		for _, r := range m.UIDs {
			attr.UidMappings = append(attr.UidMappings, syscall.SysProcIDMap{ContainerID: int(r.Container), HostID: int(r.Host), Size: int(r.Size)})
		}
		for _, r := range m.GIDs {
			attr.GidMappings = append(attr.GidMappings, syscall.SysProcIDMap{ContainerID: int(r.Container), HostID: int(r.Host), Size: int(r.Size)})
		}
		attr.GidMappingsEnableSetgroups = true
		attr.Credential = &syscall.Credential{}
	}
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// inMount mounts the volume, runs a script in it as a container with the map,
// and unmounts it.
func inMount(t testing.TB, p *storage.Pool, vol storage.Volume, m *storage.IDMap, script string) string {
	t.Helper()
	mounted, err := p.MountVolume(t.Context(), vol, m)
	noError(t, err)
	defer func() { noError(t, p.UnmountVolume(context.WithoutCancel(t.Context()), vol)) }()
	return container(t, mounted.RootFS, m, script)
}

// inMountHost mounts the volume and calls do, as the host's root.
func inMountHost(t testing.TB, p *storage.Pool, vol storage.Volume, m *storage.IDMap, do func(rootfs string)) string {
	t.Helper()
	mounted, err := p.MountVolume(t.Context(), vol, m)
	noError(t, err)
	defer func() { noError(t, p.UnmountVolume(context.WithoutCancel(t.Context()), vol)) }()
	do(mounted.RootFS)
	return mounted.RootFS
}

func xattrs(t testing.TB, path string) map[string]string {
	t.Helper()
	attrs, err := tree.Xattrs(path)
	noError(t, err)
	return attrs
}

// rootCapability is cap_net_raw=ep for the namespace whose root is this id, the
// third form of linux/capability.h.
func rootCapability(root uint32) string {
	b := append([]byte(capability()), byte(root), byte(root>>8), byte(root>>16), byte(root>>24))
	b[3] = 3
	return string(b)
}

// asNobody runs a script as an ordinary user of the host.
func asNobody(t testing.TB, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), busybox(t), "sh", "-c", script)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput() // the script is meant to fail
	return string(out)
}

// rootOf returns where the pool is mounted.
func rootOf(t testing.TB, p *storage.Pool) string {
	t.Helper()
	vol := storage.Instance("where-is-the-pool")
	noError(t, p.CreateEmpty(t.Context(), vol))
	dir, err := p.VolumeDir(vol)
	noError(t, err)
	noError(t, p.DeleteVolume(t.Context(), vol))
	return filepath.Dir(filepath.Dir(filepath.Dir(dir)))
}

// asRootOf runs do with files made in the name of a container's root, so that
// they can be made on a mount that maps ids.
func asRootOf(base int, do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsgid(base); err != nil {
		return err
	}
	if err := unix.Setfsuid(base); err != nil {
		return err
	}
	defer func() {
		// Back to root, or the thread must not be used again: neither call
		// tells, so look.
		_ = unix.Setfsuid(0)
		_ = unix.Setfsgid(0)
	}()
	return do()
}
