// Package tree copies, measures and removes whole file trees of containers:
// owners, modes, times, extended attributes with ACLs and file capabilities,
// hard links, devices and holes all survive a copy.
//
// It never follows a symbolic link and never resolves a path twice: every step
// is made from an open directory, so a container that changes its files
// meanwhile cannot lead it out of the tree.
package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Options change how Copy works. The zero value makes an exact copy.
type Options struct {
	// Live says that the source is in use: what vanishes meanwhile is left out.
	Live bool
	// SkipXattr leaves out the extended attributes for which it is true.
	SkipXattr func(name string) bool
}

// Copy makes dst, an existing empty directory, a copy of the directory src,
// with src's own attributes. Data blocks are shared where the file system can.
// After an error dst holds a part of the copy.
func Copy(ctx context.Context, dst, src string, opts Options) error {
	c := newCopier(ctx, opts)
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
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	return c.dir(from, to, &st, "")
}

type inode struct{ dev, ino uint64 }

// copier is one run of Copy. It works on one thread, so its buffers are shared.
//
//nolint:containedctx // the copier lives exactly as long as the call to Copy
type copier struct {
	ctx  context.Context
	opts Options
	root int // dst
	// links remembers where a file with several names was put, below root.
	links     map[inode]string
	noReflink bool
	buf       []byte
	names     []byte
	value     []byte
}

func newCopier(ctx context.Context, opts Options) *copier {
	return &copier{ctx: ctx, opts: opts, links: map[inode]string{}, names: make([]byte, 4<<10), value: make([]byte, 64<<10)}
}

// dir copies what is in the directory from, and then its attributes, to to.
func (c *copier) dir(from, to int, st *unix.Stat_t, path string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	names, err := list(from)
	if err != nil && (!c.opts.Live || !errors.Is(err, fs.ErrNotExist)) {
		// A directory that was just removed is empty.
		return fmt.Errorf("list %q: %w", path, err)
	}
	for _, name := range names {
		if err := c.entry(from, to, name, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	// The directory's own attributes come last: filling it changed its
	// times, and a default ACL would have changed its entries.
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("give %q its owner: %w", path, err)
	}
	if err := c.xattrs(spot{fd: from}, spot{fd: to}, path); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return fmt.Errorf("give %q its mode: %w", path, err)
	}
	return spot{fd: to}.setTimes(st, path)
}

func (c *copier) entry(from, to int, name, path string) error {
	err := c.entryOnce(from, to, name, path)
	if c.opts.Live && errors.Is(err, errVanished) {
		return nil
	}
	return err
}

// errVanished marks that the source, and nothing else, was not there any more.
var errVanished = errors.New("the file vanished while it was copied")

func vanished(path string, err error) error {
	// ELOOP, ENOTDIR and ENXIO: something else took the name between our
	// looking and our opening.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("read %q: %w (%w)", path, err, errVanished)
	}
	return fmt.Errorf("read %q: %w", path, err)
}

func (c *copier) entryOnce(from, to int, name, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return vanished(path, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return c.subdir(from, to, name, path)
	}
	id := inode{st.Dev, st.Ino}
	if first, ok := c.links[id]; ok {
		err := unix.Linkat(c.root, first, to, name, 0)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EMLINK) {
			return fmt.Errorf("link %q to %q: %w", path, first, err)
		}
		// The file system allows no more names: a copy has to do.
	}
	if err := c.nondir(from, to, name, path, &st); err != nil {
		return err
	}
	if st.Nlink > 1 {
		c.links[id] = path
	}
	return nil
}

func (c *copier) nondir(from, to int, name, path string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return c.file(from, to, name, path)
	case unix.S_IFLNK:
		return c.symlink(from, to, name, path, st)
	}
	if err := unix.Mknodat(to, name, st.Mode, int(st.Rdev)); err != nil {
		return fmt.Errorf("make %q: %w", path, err)
	}
	return c.attributes(from, to, name, path, st)
}

func (c *copier) subdir(from, to int, name, path string) error {
	sub, err := openDir(from, name)
	if err != nil {
		return vanished(path, err)
	}
	defer unix.Close(sub)
	var st unix.Stat_t
	if err := unix.Fstat(sub, &st); err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return fmt.Errorf("make %q: %w", path, err)
	}
	target, err := openDir(to, name)
	if err != nil {
		return fmt.Errorf("open %q: %w", path, err)
	}
	defer unix.Close(target)
	return c.dir(sub, target, &st, path)
}

func (c *copier) symlink(from, to int, name, path string, st *unix.Stat_t) error {
	n, err := unix.Readlinkat(from, name, c.value)
	if errors.Is(err, unix.EINVAL) {
		err = unix.ENXIO // no link any more
	}
	if err != nil {
		return vanished(path, err)
	}
	if err := unix.Symlinkat(string(c.value[:n]), to, name); err != nil {
		return fmt.Errorf("make %q: %w", path, err)
	}
	return c.attributes(from, to, name, path, st)
}

// attributes gives what is neither file nor directory its owner, mode,
// extended attributes and times.
func (c *copier) attributes(from, to int, name, path string, st *unix.Stat_t) error {
	if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("give %q its owner: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		// Nobody else can reach the new tree, so name is what we just made.
		if err := unix.Fchmodat(to, name, st.Mode&0o7777, 0); err != nil {
			return fmt.Errorf("give %q its mode: %w", path, err)
		}
	}
	if err := c.xattrs(spot{from, name}, spot{to, name}, path); err != nil {
		return err
	}
	return spot{to, name}.setTimes(st, path)
}

// spot is a file: an open one, or a name in an open directory. Symbolic links
// are never followed.
type spot struct {
	fd   int
	name string // empty for fd itself
}

func (s spot) setTimes(st *unix.Stat_t, path string) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if s.name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	if err := unix.UtimesNanoAt(s.fd, s.name, []unix.Timespec{st.Atim, st.Mtim}, flags); err != nil {
		return fmt.Errorf("give %q its times: %w", path, err)
	}
	return nil
}

// proc returns a path to a named spot for the calls that have no *at form.
func (s spot) proc() string { return fmt.Sprintf("/proc/self/fd/%d/%s", s.fd, s.name) }

func (s spot) listxattr(buf []byte) (int, error) {
	if s.name == "" {
		return unix.Flistxattr(s.fd, buf)
	}
	return unix.Llistxattr(s.proc(), buf)
}

func (s spot) getxattr(attr string, buf []byte) (int, error) {
	if s.name == "" {
		return unix.Fgetxattr(s.fd, attr, buf)
	}
	return unix.Lgetxattr(s.proc(), attr, buf)
}

func (s spot) setxattr(attr string, value []byte) error {
	if s.name == "" {
		return unix.Fsetxattr(s.fd, attr, value, 0)
	}
	return unix.Lsetxattr(s.proc(), attr, value, 0)
}

// xattrs copies the extended attributes: ACLs and file capabilities are some.
func (c *copier) xattrs(from, to spot, path string) error {
	n, err := from.listxattr(c.names)
	if errors.Is(err, unix.ERANGE) {
		c.names = make([]byte, 64<<10) // the kernel's own limit
		n, err = from.listxattr(c.names)
	}
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && n == 0 {
		return nil
	}
	if err != nil {
		return vanished(path, err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(c.names[:n]), "\x00"), "\x00") {
		if c.opts.SkipXattr != nil && c.opts.SkipXattr(name) {
			continue
		}
		size, err := from.getxattr(name, c.value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return vanished(path, err)
		}
		if err := to.setxattr(name, c.value[:size]); err != nil {
			return fmt.Errorf("give %q its attribute %s: %w", path, name, err)
		}
	}
	return nil
}

func openDir(at int, name string) (int, error) {
	return ignoringEINTR(func() (int, error) {
		return unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

// list returns the names in an open directory.
func list(dir int) ([]string, error) {
	var names []string
	buf := make([]byte, 16<<10)
	for {
		n, err := ignoringEINTR(func() (int, error) { return unix.ReadDirent(dir, buf) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// Size returns the bytes of disk that everything below dir takes. Files with
// several names count once.
func Size(ctx context.Context, dir string) (int64, error) {
	fd, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	defer unix.Close(fd)
	seen := map[inode]bool{}
	total, err := size(ctx, fd, seen)
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	return total, nil
}

func size(ctx context.Context, dir int, seen map[inode]bool) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	names, err := list(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // just removed
		return 0, err
	}
	var total int64
	for _, name := range names {
		var st unix.Stat_t
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if !isDir && st.Nlink > 1 {
			if id := (inode{st.Dev, st.Ino}); seen[id] {
				continue
			} else {
				seen[id] = true
			}
		}
		total += st.Blocks * 512
		if !isDir {
			continue
		}
		sub, err := openDir(dir, name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return 0, err
		}
		below, err := size(ctx, sub, seen)
		unix.Close(sub)
		if err != nil {
			return 0, err
		}
		total += below
	}
	return total, nil
}

// Remove removes the tree at path, immutable files included. A path that does
// not exist is no error.
func Remove(path string) error {
	err := os.RemoveAll(path)
	if errors.Is(err, unix.EPERM) {
		// A privileged container may have left files that nobody may
		// remove (chattr +i, +a).
		if err := thaw(path); err != nil {
			return fmt.Errorf("remove %s: %w", path, err)
		}
		err = os.RemoveAll(path)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// OpenDir opens a directory by its name in an open one. A symbolic link is not
// followed.
func OpenDir(at int, name string) (int, error) { return openDir(at, name) }

// List returns the names in an open directory that was not listed before.
func List(dir int) ([]string, error) { return list(dir) }
