package tree

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// file copies one regular file with its attributes.
func (c *copier) file(from, to int, name, path string) error {
	// NONBLOCK: should a FIFO have taken the name, opening must not wait.
	src, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return vanished(path, err)
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return vanished(path, unix.ENXIO)
	}
	dst, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return fmt.Errorf("make %q: %w", path, err)
	}
	defer unix.Close(dst)
	if err := c.data(src, dst, &st); err != nil {
		return fmt.Errorf("copy %q: %w", path, err)
	}
	// The owner comes first: changing it clears capabilities and set-id bits.
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("give %q its owner: %w", path, err)
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return fmt.Errorf("give %q its mode: %w", path, err)
	}
	if err := c.xattrs(spot{fd: src}, spot{fd: dst}, path); err != nil {
		return err
	}
	return spot{fd: dst}.setTimes(&st, path)
}

// data copies the contents: by sharing blocks if the file system can, else
// only the parts that are not holes.
func (c *copier) data(src, dst int, st *unix.Stat_t) error {
	if st.Size == 0 {
		return nil
	}
	if !c.noReflink {
		err := unix.IoctlFileClone(dst, src)
		if err == nil {
			return nil
		}
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return err
		}
		// EXDEV, EOPNOTSUPP, EINVAL …: not here, and so not for the next file.
		c.noReflink = true
	}
	if st.Blocks*512 >= st.Size {
		return c.span(src, dst, 0, st.Size)
	}
	if err := unix.Ftruncate(dst, st.Size); err != nil {
		return err
	}
	for at := int64(0); at < st.Size; {
		start, err := unix.Seek(src, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // nothing but a hole is left
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(src, start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		end = min(end, st.Size)
		if err := c.span(src, dst, start, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// span copies the bytes from start to end, or to where the file ends now.
func (c *copier) span(src, dst int, start, end int64) error {
	for at := start; at < end; {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		in, out := at, at
		n, err := unix.CopyFileRange(src, &in, dst, &out, int(min(end-at, 64<<20)), 0)
		switch {
		case err == nil && n == 0:
			return nil // the file became shorter
		case err == nil:
			at += int64(n)
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EIO):
			return err
		default:
			return c.plain(src, dst, at, end)
		}
	}
	return nil
}

// plain copies through memory, for file systems that cannot do it themselves.
func (c *copier) plain(src, dst int, at, end int64) error {
	if c.buf == nil {
		c.buf = make([]byte, 128<<10)
	}
	for at < end {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		n, err := ignoringEINTR(func() (int, error) {
			return unix.Pread(src, c.buf[:min(end-at, int64(len(c.buf)))], at)
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		for done := 0; done < n; {
			w, err := ignoringEINTR(func() (int, error) { return unix.Pwrite(dst, c.buf[done:n], at+int64(done)) })
			if err != nil {
				return err
			}
			done += w
		}
		at += int64(n)
	}
	return nil
}

// CopyFile makes dst, which must not exist, a copy of the file src, whatever
// its kind but a directory.
func CopyFile(ctx context.Context, dst, src string, opts Options) error {
	c := newCopier(ctx, opts)
	from, err := openDir(unix.AT_FDCWD, filepath.Dir(src))
	if err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	defer unix.Close(from)
	to, err := openDir(unix.AT_FDCWD, filepath.Dir(dst))
	if err != nil {
		return fmt.Errorf("copy to %s: %w", dst, err)
	}
	defer unix.Close(to)
	var st unix.Stat_t
	name := filepath.Base(src)
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("copy %s: %w", src, err)
	}
	if name != filepath.Base(dst) {
		return fmt.Errorf("copy %s: a copy keeps its name", src)
	}
	return c.nondir(from, to, name, src, &st)
}
