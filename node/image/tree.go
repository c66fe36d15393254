package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"muster/state"
)

// tree fills a directory with the entries of a tarball. Every name is resolved
// beneath the directory and through no symbolic link, by the kernel
// (openat2), so an entry can't leave it even if the checks of walk had a hole.
type tree struct {
	top      *os.File
	room     *room
	progress func(int64)
	written  int64

	// parent is the open directory that the last entry went to: entries come
	// mostly directory by directory.
	parent     int
	parentName string

	// dirs are the directories in the order they were made. Their owners,
	// modes, attributes and times are set at the end: a default ACL or a
	// set-group-ID bit must not reach what is made below, nor making it change
	// the times.
	dirs  []treeEntry
	index map[string]int

	buffer []byte
}

// treeEntry is what a file or directory looks like besides its content.
type treeEntry struct {
	name     string // relative to the tree
	mode     uint32 // permissions with set-ID and sticky bits
	uid, gid int
	mtime    time.Time // the zero time leaves it
	xattrs   map[string][]byte
}

func openTree(dir string) (*tree, error) {
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &tree{top: os.NewFile(uintptr(fd), dir), parent: -1, index: map[string]int{}, buffer: make([]byte, chunkSize)}, nil
}

func (t *tree) close() {
	t.leave()
	_ = t.top.Close()
}

func (t *tree) leave() {
	if t.parent >= 0 {
		_ = unix.Close(t.parent)
		t.parent = -1
	}
}

// add unpacks an entry of an image.
func (t *tree) add(e entry, body io.Reader) error {
	base := map[section]string{metadataFile: "metadata.yaml", templates: "templates", rootFS: "rootfs"}[e.section]
	it := treeEntry{
		name:   path.Join(base, e.name),
		mode:   uint32(e.Mode) & 0o7777,
		uid:    e.Uid,
		gid:    e.Gid,
		mtime:  e.ModTime,
		xattrs: e.xattrs,
	}
	if e.section != rootFS {
		// These are the member's to read, not the container's.
		it.uid, it.gid, it.mode, it.xattrs = 0, 0, 0o644, nil
		if e.Typeflag == tar.TypeDir {
			it.mode = 0o755
		}
	}
	var err error
	switch e.Typeflag {
	case tar.TypeDir:
		err = t.directory(it)
	case tar.TypeSymlink:
		err = t.special(it, func(parent int, name string) error { return unix.Symlinkat(e.Linkname, parent, name) })
	case tar.TypeFifo:
		err = t.special(it, func(parent int, name string) error { return unix.Mknodat(parent, name, unix.S_IFIFO|it.mode, 0) })
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if e.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		number := int(unix.Mkdev(uint32(e.Devmajor), uint32(e.Devminor)))
		err = t.special(it, func(parent int, name string) error { return unix.Mknodat(parent, name, kind|it.mode, number) })
	case tar.TypeLink:
		err = t.link(it.name, path.Join(base, e.link))
	default:
		err = t.file(it, body)
	}
	if err != nil && state.Kind(err) == nil {
		err = noRoom(fmt.Errorf("entry %s: %w", shown(e.Name), err))
	}
	return err
}

// wrote counts written bytes and tells the caller of Unpack.
func (t *tree) wrote(n int64) {
	t.written += n
	if t.progress != nil {
		t.progress(t.written)
	}
}

// open returns the directory that name is in, open until the next call.
func (t *tree) open(name string) (parent int, base string, err error) {
	dir := path.Dir(name)
	if t.parent >= 0 && t.parentName == dir {
		return t.parent, path.Base(name), nil
	}
	fd, err := t.beneath(dir)
	if errors.Is(err, unix.ENOENT) {
		if err := t.directory(treeEntry{name: dir, mode: 0o755}); err != nil {
			return -1, "", err
		}
		fd, err = t.beneath(dir)
	}
	if err != nil {
		return -1, "", err
	}
	t.leave()
	t.parent, t.parentName = fd, dir
	return fd, path.Base(name), nil
}

func (t *tree) beneath(dir string) (int, error) {
	return unix.Openat2(int(t.top.Fd()), dir, &unix.OpenHow{
		Flags:   unix.O_DIRECTORY | unix.O_RDONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
}

// anew makes an entry, in place of an earlier one of that name that is no
// directory (a tarball that was appended to holds a file twice).
func (t *tree) anew(parent int, name string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := unix.Unlinkat(parent, name, 0); err != nil {
		return err
	}
	return create()
}

func (t *tree) directory(it treeEntry) error {
	if at, again := t.index[it.name]; again {
		t.dirs[at] = it
		return nil
	}
	parent, name, err := t.open(it.name)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(parent, name, 0o700); err != nil {
		return err
	}
	t.index[it.name] = len(t.dirs)
	t.dirs = append(t.dirs, it)
	return nil
}

func (t *tree) special(it treeEntry, create func(parent int, name string) error) error {
	parent, name, err := t.open(it.name)
	if err != nil {
		return err
	}
	if err := t.anew(parent, name, func() error { return create(parent, name) }); err != nil {
		return err
	}
	if err := unix.Fchownat(parent, name, it.uid, it.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK { // the umask had its say
		if err := unix.Fchmodat(parent, name, it.mode, 0); err != nil {
			return err
		}
	}
	return setTime(parent, name, it.mtime)
}

func (t *tree) link(name, target string) error {
	from, err := t.beneath(path.Dir(target))
	if err != nil {
		return err
	}
	defer unix.Close(from)
	parent, base, err := t.open(name)
	if err != nil {
		return err
	}
	return t.anew(parent, base, func() error { return unix.Linkat(from, path.Base(target), parent, base, 0) })
}

func (t *tree) file(it treeEntry, body io.Reader) (err error) {
	parent, name, err := t.open(it.name)
	if err != nil {
		return err
	}
	fd := -1
	err = t.anew(parent, name, func() (err error) {
		fd, err = unix.Openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := unix.Close(fd); err == nil {
			err = closeErr
		}
	}()
	if err := t.content(fd, body); err != nil {
		return err
	}
	if err := dress(fd, it); err != nil {
		return err
	}
	return setTime(parent, name, it.mtime)
}

// hole is the size of a run of zeros that is not written.
const hole = 4096

var zeros [hole]byte

// content writes a file. Blocks of zeros become holes: lastlog and databases
// stay as sparse as they were, whatever the tarball made of it.
func (t *tree) content(fd int, body io.Reader) error {
	var size int64
	trailing := false // the file ends in a hole
	for {
		n, err := 0, error(nil)
		for n < len(t.buffer) && err == nil {
			var more int
			more, err = body.Read(t.buffer[n:])
			n += more
		}
		chunk := t.buffer[:n]
		if err := t.room.take(int64(n)); err != nil {
			return err
		}
		for len(chunk) > 0 {
			run := 0
			for len(chunk) >= run+hole && bytes.Equal(chunk[run:run+hole], zeros[:]) {
				run += hole
			}
			if run > 0 {
				if _, err := unix.Seek(fd, int64(run), io.SeekCurrent); err != nil {
					return err
				}
				size, chunk, trailing = size+int64(run), chunk[run:], true
				continue
			}
			for run < len(chunk) && (len(chunk) < run+hole || !bytes.Equal(chunk[run:run+hole], zeros[:])) {
				run = min(run+hole, len(chunk))
			}
			if err := writeAll(fd, chunk[:run]); err != nil {
				return err
			}
			size, chunk, trailing = size+int64(run), chunk[run:], false
		}
		if n > 0 {
			t.wrote(int64(n))
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if trailing {
		return unix.Ftruncate(fd, size)
	}
	return nil
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// dress gives an open file or directory its owner, mode and attributes, in the
// order in which none undoes another: a change of owner clears set-ID bits and
// capabilities.
func dress(fd int, it treeEntry) error {
	if it.uid != 0 || it.gid != 0 || os.Geteuid() != 0 {
		if err := unix.Fchown(fd, it.uid, it.gid); err != nil {
			return fmt.Errorf("give it the owner %d:%d: %w", it.uid, it.gid, err)
		}
	}
	if err := unix.Fchmod(fd, it.mode); err != nil {
		return err
	}
	for name, value := range it.xattrs {
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil {
			return fmt.Errorf("set the extended attribute %s: %w", name, err)
		}
	}
	return nil
}

func setTime(parent int, name string, at time.Time) error {
	if at.IsZero() {
		return nil
	}
	ts, err := unix.TimeToTimespec(at)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(parent, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// forget leaves a directory as another program made it.
func (t *tree) forget(name string) {
	at, known := t.index[name]
	if known {
		t.dirs[at].name = ""
		delete(t.index, name)
	}
}

// finish dresses the directories, the deepest first.
func (t *tree) finish() error {
	t.leave()
	for _, it := range slices.Backward(t.dirs) {

		if it.name == "" {
			continue
		}
		fd, err := t.beneath(it.name)
		if err != nil {
			return err
		}
		err = dress(fd, it)
		if err == nil && !it.mtime.IsZero() {
			// "." of the directory itself, so that no name is resolved again.
			err = setTime(fd, ".", it.mtime)
		}
		_ = unix.Close(fd)
		if err != nil {
			return noRoom(fmt.Errorf("directory %s: %w", shown(it.name), err))
		}
	}
	return nil
}
