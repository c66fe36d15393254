// Package mount is the part of storage that speaks to the kernel about mounts:
// the mount table, bind mounts, mounts with other ids, and taking mounts down.
//
// It never mounts outside the path it is given, keeps no state but a cache of
// user namespaces, and never shells out.
package mount

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Entry is one line of the mount table (proc_pid_mountinfo(5)).
type Entry struct {
	ID     int
	Parent int
	// Root is the directory of the file system that is mounted.
	Root string
	// Path is where it is mounted.
	Path string
	// Options are the mount's own, Super those of the file system.
	Options string
	FSType  string
	Source  string
	Super   string
}

// Table returns the mounts of this process's namespace, oldest first, that are
// at dir or below it.
func Table(dir string) ([]Entry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer f.Close()
	var entries []Entry
	lines := bufio.NewScanner(f)
	// A line can hold several paths of up to 4096 bytes, with each byte
	// written as four.
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		e, err := parse(lines.Text())
		if err != nil {
			return nil, err
		}
		if e.Path == dir || strings.HasPrefix(e.Path, dir+"/") {
			entries = append(entries, e)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return entries, nil
}

func parse(line string) (Entry, error) {
	// 36 35 98:0 /root /path rw,noatime master:1 - ext3 /dev/root rw
	own, super, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(own), strings.Fields(super)
	if !ok || len(left) < 6 || len(right) < 2 {
		return Entry{}, fmt.Errorf("read the mount table: strange line %q", line)
	}
	id, err := strconv.Atoi(left[0])
	if err != nil {
		return Entry{}, fmt.Errorf("read the mount table: strange line %q", line)
	}
	parent, err := strconv.Atoi(left[1])
	if err != nil {
		return Entry{}, fmt.Errorf("read the mount table: strange line %q", line)
	}
	e := Entry{
		ID: id, Parent: parent, Root: unescape(left[3]), Path: unescape(left[4]),
		Options: left[5], FSType: right[0], Source: unescape(right[1]),
	}
	if len(right) > 2 {
		e.Super = right[2]
	}
	return e, nil
}

// unescape undoes the octal escapes of the mount table (\040 for a space).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// At reports whether something is mounted at path. A path that does not exist
// has nothing mounted.
func At(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Flags change how a bind mount can be used.
type Flags struct {
	ReadOnly bool
	// NoDev makes device files useless.
	NoDev bool
}

func (f Flags) attr() uint64 {
	var attr uint64
	if f.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if f.NoDev {
		attr |= unix.MOUNT_ATTR_NODEV
	}
	return attr
}

// Bind mounts the directory src at dst with ids mapped by ids (nil: as they
// are) and private propagation. Mounts below src do not come along.
func Bind(src, dst string, ids *os.File, flags Flags) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, src, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("bind %s: %w", src, err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: flags.attr(), Propagation: unix.MS_PRIVATE}
	if ids != nil {
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(ids.Fd())
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		if ids != nil && errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("bind %s: %w", src, ErrNoIDMap)
		}
		return fmt.Errorf("bind %s: set attributes: %w", src, err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, dst, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("bind %s to %s: %w", src, dst, err)
	}
	return nil
}

// ErrNoIDMap means that the file system cannot be mounted with other ids.
var ErrNoIDMap = errors.New("the file system cannot map ids")

// Private cuts the mount at path off from the propagation of others.
func Private(path string) error {
	if err := unix.Mount("", path, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mount %s private: %w", path, err)
	}
	return nil
}

// patience is how long Unmount waits for a busy mount. What keeps one busy is
// a process that is just ending, so it takes milliseconds.
const patience = 2 * time.Second

// Unmount takes down everything that is mounted at path, the newest first. A
// mount that stays busy is detached as the last resort: the caller is told by
// lazy, so that it can be logged. Nothing mounted at path is no error.
func Unmount(ctx context.Context, path string) (lazy bool, err error) {
	deadline := time.Now().Add(patience)
	for {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
			deadline = time.Now().Add(patience)
		case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT):
			// Not a mount point, or none any more.
			return lazy, nil
		case !errors.Is(err, unix.EBUSY):
			return lazy, fmt.Errorf("unmount %s: %w", path, err)
		case time.Now().After(deadline):
			if err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
				return lazy, fmt.Errorf("detach %s: %w", path, err)
			}
			lazy = true
		default:
			select {
			case <-ctx.Done():
				return lazy, fmt.Errorf("unmount %s: %w", path, ctx.Err())
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

// Release takes down what is mounted at path, or says why it cannot
// (unix.EBUSY while something below is in use). Nothing mounted is no error.
func Release(path string) error {
	for {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// Clean returns path in the form in which the mount table shows it: absolute,
// without symbolic links.
func Clean(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", path, err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", path, err)
	}
	return real, nil
}
