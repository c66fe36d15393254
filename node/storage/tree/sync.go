package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Sync makes dst, a copy of an older state of src, a copy of src as it is now,
// and writes only what differs: so that on a pool where snapshots share what
// they have in common, a series of copied snapshots shares it too. Contents are
// compared, not times. Neither tree may change meanwhile.
func Sync(ctx context.Context, dst, src string) error {
	c := newCopier(ctx, Options{})
	from, err := openDir(unix.AT_FDCWD, src)
	if err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	defer unix.Close(from)
	to, err := openDir(unix.AT_FDCWD, dst)
	if err != nil {
		return fmt.Errorf("copy to %s: %w", dst, err)
	}
	defer unix.Close(to)
	c.root = to
	return c.syncDir(from, to, "")
}

func (c *copier) syncDir(from, to int, path string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	wanted, err := list(from)
	if err != nil {
		return fmt.Errorf("list %q: %w", path, err)
	}
	present, err := list(to)
	if err != nil {
		return fmt.Errorf("list %q: %w", path, err)
	}
	surplus := map[string]bool{}
	for _, name := range present {
		surplus[name] = true
	}
	for _, name := range wanted {
		delete(surplus, name)
	}
	for name := range surplus {
		if err := Remove(spot{to, name}.proc()); err != nil {
			return err
		}
	}
	for _, name := range wanted {
		if err := c.syncEntry(from, to, name, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return c.syncAttributes(spot{fd: from}, spot{fd: to}, path)
}

func (c *copier) syncEntry(from, to int, name, path string) error {
	var want, have unix.Stat_t
	if err := unix.Fstatat(from, name, &want, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	err := unix.Fstatat(to, name, &have, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return c.entry(from, to, name, path)
	}
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	if want.Mode&unix.S_IFMT == have.Mode&unix.S_IFMT {
		if want.Mode&unix.S_IFMT == unix.S_IFDIR {
			return c.syncSubdir(from, to, name, path)
		}
		same, err := c.same(from, to, name, &want, &have)
		if err != nil {
			return fmt.Errorf("compare %q: %w", path, err)
		}
		if same {
			return c.syncAttributes(spot{from, name}, spot{to, name}, path)
		}
	}
	if err := Remove(spot{to, name}.proc()); err != nil {
		return err
	}
	return c.entry(from, to, name, path)
}

func (c *copier) syncSubdir(from, to int, name, path string) error {
	source, err := openDir(from, name)
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	defer unix.Close(source)
	target, err := openDir(to, name)
	if err != nil {
		return fmt.Errorf("open %q: %w", path, err)
	}
	defer unix.Close(target)
	return c.syncDir(source, target, path)
}

// same reports whether two files that are not directories, of one kind, hold
// the same. Files with several names are never the same: which names belong
// together may have changed.
func (c *copier) same(from, to int, name string, want, have *unix.Stat_t) (bool, error) {
	if want.Nlink > 1 || have.Nlink > 1 || want.Size != have.Size || want.Rdev != have.Rdev {
		return false, nil
	}
	switch want.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		a, b := make([]byte, want.Size+1), make([]byte, want.Size+1)
		n, err := unix.Readlinkat(from, name, a)
		if err != nil {
			return false, err
		}
		m, err := unix.Readlinkat(to, name, b)
		return err == nil && bytes.Equal(a[:n], b[:m]), err
	case unix.S_IFREG:
		return c.sameData(from, to, name)
	}
	return true, nil
}

func (c *copier) sameData(from, to int, name string) (bool, error) {
	open := func(dir int) (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	}
	a, err := open(from)
	if err != nil {
		return false, err
	}
	defer unix.Close(a)
	b, err := open(to)
	if err != nil {
		return false, err
	}
	defer unix.Close(b)
	left, right := make([]byte, 128<<10), make([]byte, 128<<10)
	for at := int64(0); ; {
		if err := c.ctx.Err(); err != nil {
			return false, err
		}
		n, err := ignoringEINTR(func() (int, error) { return unix.Pread(a, left, at) })
		if err != nil {
			return false, err
		}
		m, err := ignoringEINTR(func() (int, error) { return unix.Pread(b, right[:max(n, 1)], at) })
		if err != nil || n != m || !bytes.Equal(left[:n], right[:m]) {
			return false, err
		}
		if n == 0 {
			return true, nil
		}
		at += int64(n)
	}
}

// syncAttributes gives to the owner, mode, extended attributes and times of
// from, if they differ.
func (c *copier) syncAttributes(from, to spot, path string) error {
	var want, have unix.Stat_t
	if err := errors.Join(from.stat(&want), to.stat(&have)); err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	wanted, err := from.xattrs()
	if err != nil {
		return fmt.Errorf("read the attributes of %q: %w", path, err)
	}
	present, err := to.xattrs()
	if err != nil {
		return fmt.Errorf("read the attributes of %q: %w", path, err)
	}
	if want.Uid == have.Uid && want.Gid == have.Gid && want.Mode == have.Mode && want.Mtim == have.Mtim && maps.Equal(wanted, present) {
		return nil
	}
	if err := unix.Fchownat(to.fd, to.name, int(want.Uid), int(want.Gid), unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("give %q its owner: %w", path, err)
	}
	for name := range present {
		if _, ok := wanted[name]; !ok {
			if err := unix.Lremovexattr(to.link(), name); err != nil && !errors.Is(err, unix.ENODATA) {
				return fmt.Errorf("take from %q its attribute %s: %w", path, name, err)
			}
		}
	}
	if err := c.xattrs(from, to, path); err != nil {
		return err
	}
	if want.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to.link(), want.Mode&0o7777); err != nil {
			return fmt.Errorf("give %q its mode: %w", path, err)
		}
	}
	return to.setTimes(&want, path)
}

func (s spot) stat(st *unix.Stat_t) error {
	return unix.Fstatat(s.fd, s.name, st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
}

// link returns a path to the spot that ends in its name, or in "." so that the
// kernel's link to an open directory is passed, not taken for the spot itself.
func (s spot) link() string {
	if s.name == "" {
		return spot{s.fd, "."}.proc()
	}
	return s.proc()
}

func (s spot) xattrs() (map[string]string, error) { return Xattrs(s.link()) }
