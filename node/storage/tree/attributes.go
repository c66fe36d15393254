package tree

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Xattrs returns the extended attributes of the file at path, which may be a
// symbolic link.
func Xattrs(path string) (map[string]string, error) {
	names, value := make([]byte, 64<<10), make([]byte, 64<<10) // the kernel's limits
	n, err := unix.Llistxattr(path, names)
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the attributes of %s: %w", path, err)
	}
	found := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		size, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("read the attribute %s of %s: %w", name, path, err)
		}
		found[name] = string(value[:size])
	}
	return found, nil
}

// CopyAttributes gives the directory dst the owner, mode, times and extended
// attributes of the directory src, except attributes for which skip is true.
func CopyAttributes(dst, src string, skip func(name string) bool) error {
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return fmt.Errorf("look at %s: %w", src, err)
	}
	to, err := openDir(unix.AT_FDCWD, dst)
	if err != nil {
		return fmt.Errorf("open %s: %w", dst, err)
	}
	defer unix.Close(to)
	attrs, err := Xattrs(src)
	if err != nil {
		return err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("give %s its owner: %w", dst, err)
	}
	for name, value := range attrs {
		if skip(name) {
			continue
		}
		if err := unix.Fsetxattr(to, name, []byte(value), 0); err != nil {
			return fmt.Errorf("give %s its attribute %s: %w", dst, name, err)
		}
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return fmt.Errorf("give %s its mode: %w", dst, err)
	}
	return spot{fd: to}.setTimes(&st, dst)
}

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags, extsize, nextents, projid, cowextsize uint32
	_                                             [8]byte
}

const (
	fsGetXattr         = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXattr         = 0x401c5820 // FS_IOC_FSSETXATTR
	projectInheritFlag = 0x200      // FS_XFLAG_PROJINHERIT
)

// SetProject puts all files and directories at path and below into the project
// with this ID; new files in the directories will be in it too. Files of other
// kinds take no space and are left out.
func SetProject(path string, id uint32) error {
	dir, err := openDir(unix.AT_FDCWD, path)
	if err != nil {
		return fmt.Errorf("set the project of %s: %w", path, err)
	}
	defer unix.Close(dir)
	err = visit(dir, func(fd int, isDir bool) error {
		var attr fsxattr
		if err := ioctl(fd, fsGetXattr, unsafe.Pointer(&attr)); err != nil {
			return err
		}
		attr.projid = id
		attr.xflags &^= projectInheritFlag
		if isDir && id != 0 {
			attr.xflags |= projectInheritFlag
		}
		return ioctl(fd, fsSetXattr, unsafe.Pointer(&attr))
	})
	if err != nil {
		return fmt.Errorf("set the project of %s: %w", path, err)
	}
	return nil
}

// Project returns the project ID of the directory at path; zero is none.
func Project(path string) (uint32, error) {
	dir, err := openDir(unix.AT_FDCWD, path)
	if err != nil {
		return 0, fmt.Errorf("read the project of %s: %w", path, err)
	}
	defer unix.Close(dir)
	var attr fsxattr
	err = ioctl(dir, fsGetXattr, unsafe.Pointer(&attr))
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil // a file system without projects
	}
	if err != nil {
		return 0, fmt.Errorf("read the project of %s: %w", path, err)
	}
	return attr.projid, nil
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
