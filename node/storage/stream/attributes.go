package stream

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// This file gives files at the target their owners, modes, attributes and times.

// setOpen gives an open file or directory its attributes.
func (a *applier) setOpen(fd int, e *Entry) error {
	// The owner comes first: changing it clears capabilities and set-id bits.
	if err := unix.Fchown(fd, int(e.UID), int(e.GID)); err != nil {
		return fmt.Errorf("set the owner: %w", err)
	}
	n, err := unix.Flistxattr(fd, a.names)
	err = a.xattrs(n, err, e, func(attr string) error { return unix.Fremovexattr(fd, attr) },
		func(attr, value string) error { return unix.Fsetxattr(fd, attr, []byte(value), 0) })
	if err != nil {
		return err
	}
	if err := unix.Fchmod(fd, e.Mode); err != nil {
		return fmt.Errorf("set the mode: %w", err)
	}
	return setTimes(fd, "", e, unix.AT_EMPTY_PATH)
}

// setNamed is setOpen for what cannot be opened. We have just made it, and
// nobody else can reach it.
func (a *applier) setNamed(dir int, name string, e *Entry) error {
	if err := unix.Fchownat(dir, name, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set the owner: %w", err)
	}
	path := proc(dir, name)
	n, err := unix.Llistxattr(path, a.names)
	err = a.xattrs(n, err, e, func(attr string) error { return unix.Lremovexattr(path, attr) },
		func(attr, value string) error { return unix.Lsetxattr(path, attr, []byte(value), 0) })
	if err != nil {
		return err
	}
	if e.Kind != KindSymlink {
		if err := unix.Fchmodat(dir, name, e.Mode, 0); err != nil {
			return fmt.Errorf("set the mode: %w", err)
		}
	}
	return setTimes(dir, name, e, unix.AT_SYMLINK_NOFOLLOW)
}

// xattrs makes the extended attributes those of e: n bytes of names are there.
func (a *applier) xattrs(n int, err error, e *Entry, remove func(attr string) error, set func(attr, value string) error) error {
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("read the attributes: %w", err)
	}
	if err == nil && n > 0 {
		// A directory's default access list comes with new files, for one.
		for attr := range strings.SplitSeq(strings.TrimSuffix(string(a.names[:n]), "\x00"), "\x00") {
			if _, wanted := e.Attrs[attr]; wanted || notOurs(attr) {
				continue
			}
			if err := remove(attr); err != nil && !errors.Is(err, unix.ENODATA) {
				return fmt.Errorf("remove the attribute %s: %w", attr, err)
			}
		}
	}
	for attr, value := range e.Attrs {
		if err := set(attr, value); err != nil {
			return fmt.Errorf("set the attribute %.100q: %w", attr, err)
		}
	}
	return nil
}

func setTimes(fd int, name string, e *Entry, flags int) error {
	if err := unix.UtimesNanoAt(fd, name, []unix.Timespec{e.ATime.timespec(), e.MTime.timespec()}, flags); err != nil {
		return fmt.Errorf("set the times: %w", err)
	}
	return nil
}

// times gives directories their times, which filling them has changed.
func (a *applier) times() error {
	for e := range a.target.Files.all() {
		if e.Kind != KindDir {
			continue
		}
		fd, err := a.beneath(e.Path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && timeOf(st.Mtim) != e.MTime {
			err = setTimes(fd, "", e, unix.AT_EMPTY_PATH)
		}
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("write %q: %w", e.Path, err)
		}
	}
	return nil
}
