package stream

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// This file tells what a file at the source is.

// describe returns the entry of a file: an open one, or a name in an open
// directory.
func (s *Sender) describe(fd int, name, path string, kind Kind, st *unix.Stat_t) (*Entry, error) {
	e := &Entry{
		Path: path, Kind: kind, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		MTime: timeOf(st.Mtim), ATime: timeOf(st.Atim), CTime: timeOf(st.Ctim),
	}
	if !e.CTime.before(s.fresh) {
		e.CTime = Time{}
	}
	if err := s.readAttrs(fd, name, e); err != nil {
		return nil, err
	}
	s.ids.apply(e)
	return e, nil
}

// readAttrs reads the extended attributes of a file into its entry.
func (s *Sender) readAttrs(fd int, name string, e *Entry) error {
	n, err := s.listxattr(fd, name)
	if errors.Is(err, unix.ERANGE) {
		s.names = make([]byte, 64<<10) // the kernel's own limit
		n, err = s.listxattr(fd, name)
	}
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && n == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the attributes of %q: %w", e.Path, err)
	}
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(s.names[:n]), "\x00"), "\x00") {
		if notOurs(attr) || s.skip != nil && s.skip(attr) {
			continue
		}
		var size int
		if name == "" {
			size, err = unix.Fgetxattr(fd, attr, s.value)
		} else {
			size, err = unix.Lgetxattr(proc(fd, name), attr, s.value)
		}
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the attribute %s of %q: %w", attr, e.Path, err)
		}
		if e.Attrs == nil {
			e.Attrs = map[string]string{}
		}
		e.Attrs[attr] = string(s.value[:size])
	}
	return nil
}

func (s *Sender) listxattr(fd int, name string) (int, error) {
	if name == "" {
		return unix.Flistxattr(fd, s.names)
	}
	return unix.Llistxattr(proc(fd, name), s.names)
}

// notOurs reports whether the attribute is the machine's, not the volume's.
func notOurs(attr string) bool { return attr == "security.selinux" }

// proc returns a path to a name in an open directory, for the calls that have
// no *at form.
func proc(dir int, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir, name) }
