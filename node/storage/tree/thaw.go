package tree

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// frozen are the inode flags that forbid removal: FS_IMMUTABLE_FL and
// FS_APPEND_FL of linux/fs.h.
const frozen = 0x10 | 0x20

// thaw takes away what forbids the removal of files and directories below path.
func thaw(path string) error {
	fd, err := openDir(unix.AT_FDCWD, path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return visit(fd, func(fd int, _ bool) error {
		flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil // a file system without such flags
		}
		if err != nil || flags&frozen == 0 {
			return err
		}
		return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags&^frozen))
	})
}

// visit calls each with the open directory dir and then with every directory
// and regular file below it.
func visit(dir int, each func(fd int, isDir bool) error) error {
	if err := each(dir, true); err != nil {
		return err
	}
	names, err := list(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		kind := st.Mode & unix.S_IFMT
		if kind != unix.S_IFDIR && kind != unix.S_IFREG {
			continue
		}
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if kind == unix.S_IFDIR {
			err = visit(fd, each)
		} else {
			err = each(fd, false)
		}
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}
