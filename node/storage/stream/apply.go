package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"golang.org/x/sys/unix"

	"muster/node/storage/tree"
)

// applier makes the changes that a stream tells, one content after another. It
// works on one thread.
//
//nolint:containedctx // it lives exactly as long as the call to Receive
type applier struct {
	ctx    context.Context
	in     *frameReader
	stats  Stats
	target *Target
	root   int // the open directory RootFS
	dir    int // the open directory Dir, or -1
	// doubt says that the files may not be what the manifest says.
	doubt bool
	// parent is the directory that was used last.
	parent     int
	parentPath string
	file       *openFile
	names      []byte
}

// openFile is the regular file whose data are arriving.
type openFile struct {
	entry *Entry
	fd    int
	sums  *summer
	last  int64 // where the data ended so far
	mark  int64 // what the log knows of
}

func (a *applier) open(t *Target) (err error) {
	a.target, a.root, a.dir, a.parent, a.parentPath, a.doubt = t, -1, -1, -1, "", false
	if a.names == nil {
		a.names = make([]byte, 64<<10)
	}
	if a.root, err = tree.OpenDir(unix.AT_FDCWD, t.RootFS); err != nil {
		return fmt.Errorf("open %s: %w", t.RootFS, err)
	}
	if t.Dir == "" {
		return nil
	}
	if a.dir, err = tree.OpenDir(unix.AT_FDCWD, t.Dir); err != nil {
		return fmt.Errorf("open %s: %w", t.Dir, err)
	}
	return nil
}

// close ends a content after the error why, or none. What came of a file is
// noted, and a manifest that may be wrong is thrown away.
func (a *applier) close(why error) error {
	var err error
	if a.file != nil {
		err = a.note()
		unix.Close(a.file.fd)
		a.file = nil
	}
	a.forgetParent()
	for _, fd := range []int{a.root, a.dir} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if why != nil {
		err = errors.Join(err, a.target.Log.Close())
	}
	if a.doubt {
		err = errors.Join(err, a.target.Log.doubt())
	}
	return err
}

// beneath opens the directory at a checked path below a content.
func (a *applier) beneath(path string) (int, error) {
	at, rest := a.dir, path
	if first := top(path); first == nameRootFS {
		at, rest = a.root, strings.TrimPrefix(strings.TrimPrefix(path, first), "/")
	}
	fd := -1
	for {
		part := rest
		if len(part) > 2<<10 { // the kernel takes a page at a time
			part = part[:2<<10]
			if i := strings.LastIndexByte(part, '/'); i > 0 {
				part = part[:i]
			}
		}
		rest = strings.TrimPrefix(rest[len(part):], "/")
		if part == "" {
			part = "."
		}
		next, err := ignoringEINTR(func() (int, error) {
			return unix.Openat2(at, part, &unix.OpenHow{
				Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
				Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
			})
		})
		if fd >= 0 {
			unix.Close(fd)
		}
		if err != nil {
			return -1, fmt.Errorf("open %q: %w", path, err)
		}
		if rest == "" {
			return next, nil
		}
		at, fd = next, next
	}
}

// within returns the open directory in which path is, good until the next call, and
// the name in it.
func (a *applier) within(path string) (int, string, error) {
	dir, name := split(path)
	if dir == "" {
		return a.dir, name, nil
	}
	if a.parent >= 0 && a.parentPath == dir {
		return a.parent, name, nil
	}
	a.forgetParent()
	fd, err := a.beneath(dir)
	if err != nil {
		return -1, "", err
	}
	a.parent, a.parentPath = fd, dir
	return fd, name, nil
}

func (a *applier) forgetParent() {
	if a.parent >= 0 {
		unix.Close(a.parent)
	}
	a.parent = -1
}

// failed wraps an error of the file system, which means that the files are not
// what we think.
func (a *applier) failed(err error, path string) error {
	if err == nil {
		return nil
	}
	a.doubt = true
	return fmt.Errorf("write %q: %w", path, err)
}

// touch notes that path is about to change and clears it.
func (a *applier) touch(path string) error {
	there := a.target.Files.find(path) != nil
	if err := a.target.Files.touch(path); err != nil {
		return err
	}
	if err := a.target.Log.touch(path); err != nil {
		return err
	}
	if !there || path == nameRootFS {
		return nil
	}
	return a.clear(path)
}

// clear removes what is at path.
func (a *applier) clear(path string) error {
	dir, name, err := a.within(path)
	if err != nil {
		return a.failed(err, path)
	}
	err = unix.Unlinkat(dir, name, 0)
	if errors.Is(err, unix.EISDIR) {
		err = tree.Remove(proc(dir, name))
		a.forgetParent()
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return a.failed(err, path)
	}
	return nil
}

// put notes what is at a path now.
func (a *applier) put(e *Entry) error {
	if err := a.target.Files.put(e); err != nil {
		return err
	}
	return a.target.Log.put(e)
}

func (a *applier) remove(path string) error {
	if a.target.Files.find(path) == nil {
		return refused("%.100q is removed and was not there", path)
	}
	if err := a.touch(path); err != nil {
		return err
	}
	a.target.Files.drop(path)
	a.stats.Removed++
	return a.target.Log.drop(path)
}

// entry makes a file, of which data may follow.
func (a *applier) entry(e *Entry) error {
	a.stats.Files++
	if e.Kind == KindFile && e.Done > 0 {
		return a.resume(e)
	}
	// Before anything is touched: the entry must be possible.
	if e.Kind == KindLink {
		if t := a.target.Files.get(e.Target); t == nil || e.Target == e.Path || t.Kind == KindDir || formats[t.Kind] == 0 {
			return refused("%.100q links to %.100q, which is no file", e.Path, e.Target)
		}
	}
	if err := a.touch(e.Path); err != nil {
		return err
	}
	if e.Kind == KindFile {
		return a.create(e)
	}
	if err := a.failed(a.make(e), e.Path); err != nil {
		return err
	}
	return a.put(e)
}

// make makes what has no data.
func (a *applier) make(e *Entry) error {
	if e.Path == nameRootFS {
		return a.setOpen(a.root, e)
	}
	dir, name, err := a.within(e.Path)
	if err != nil {
		return err
	}
	switch e.Kind {
	case KindDir:
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return err
		}
		fd, err := tree.OpenDir(dir, name)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return a.setOpen(fd, e)
	case KindLink:
		return a.link(e, dir, name)
	case KindSymlink:
		err = unix.Symlinkat(e.Target, dir, name)
	default:
		err = unix.Mknodat(dir, name, formats[e.Kind]|0o600, int(e.Rdev))
		if errors.Is(err, unix.EPERM) && e.Kind == KindChar && e.Rdev == 0 {
			return refused("%.100q is an overlay's mark for a deleted file, which a pool of driver overlay cannot hold; use another pool", e.Path)
		}
	}
	if err != nil {
		return err
	}
	return a.setNamed(dir, name, e)
}

func (a *applier) link(e *Entry, dir int, name string) error {
	toDir, toName := split(e.Target)
	from := a.dir
	if toDir != "" {
		fd, err := a.beneath(toDir)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		from = fd
	}
	return unix.Linkat(from, toName, dir, name, 0)
}

// create begins a new regular file.
func (a *applier) create(e *Entry) error {
	dir, name, err := a.within(e.Path)
	if err != nil {
		return a.failed(err, e.Path)
	}
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return a.failed(err, e.Path)
	}
	a.file = &openFile{entry: e, fd: fd, sums: newSummer()}
	return nil
}

// resume goes on with a regular file of which a part is there.
func (a *applier) resume(e *Entry) error {
	m := a.target.Files.get(e.Path)
	if m == nil || m.Kind != KindPartial || m.Done != e.Done || e.Done%page != 0 {
		return refused("%.100q goes on at %d, which it does not have", e.Path, e.Done)
	}
	dir, name, err := a.within(e.Path)
	if err != nil {
		return a.failed(err, e.Path)
	}
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return a.failed(err, e.Path)
	}
	a.file = &openFile{entry: e, fd: fd, last: e.Done, mark: e.Done}
	if err := unix.Ftruncate(fd, e.Done); err != nil {
		return a.failed(err, e.Path)
	}
	a.file.sums, err = sumStart(a.ctx, fd, e.Done)
	return a.failed(err, e.Path)
}

// sumStart sums up the first done bytes of an open file.
func sumStart(ctx context.Context, fd int, done int64) (*summer, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	sums, end, err := sumFile(ctx, fd, make([]byte, chunk), &st, done)
	if err == nil && end != done {
		err = damaged("a file has %d bytes, not %d", end, done)
	}
	return sums, err
}

// SumPartial sets the sums of all files in t that came in part.
func SumPartial(ctx context.Context, t *Target) (err error) {
	a := &applier{ctx: ctx}
	if err := a.open(t); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close(nil)) }()
	for e := range t.Files.all() {
		if e.Kind != KindPartial {
			continue
		}
		dir, name, err := a.within(e.Path)
		if err != nil {
			return err
		}
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("read %q: %w", e.Path, err)
		}
		sums, err := sumStart(ctx, fd, e.Done)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("read %q: %w", e.Path, err)
		}
		e.Sum = sums.sum(e.Done)
	}
	return nil
}

func (a *applier) data(offset int64, data []byte) error {
	f := a.file
	switch {
	case f == nil:
		return refused("data of no file")
	case len(data) == 0 || offset < f.last || offset%page != 0 || offset > f.entry.Size-int64(len(data)):
		return refused("data of %.100q at %d", f.entry.Path, offset)
	}
	for done := 0; done < len(data); {
		n, err := ignoringEINTR(func() (int, error) { return unix.Pwrite(f.fd, data[done:], offset+int64(done)) })
		if err != nil {
			return fmt.Errorf("write %q: %w", f.entry.Path, err)
		}
		done += n
	}
	f.sums.add(offset, data)
	f.last = offset + int64(len(data))
	a.stats.Bytes += int64(len(data))
	if f.last-f.mark >= checkpoint {
		return a.note()
	}
	return nil
}

// note notes how much of the open file is there.
func (a *applier) note() error {
	f := a.file
	done := f.last &^ (page - 1)
	if done <= f.mark || a.doubt {
		return nil
	}
	part := *f.entry
	part.Kind, part.Done = KindPartial, done
	f.mark = done
	if err := a.put(&part); err != nil {
		return err
	}
	return a.target.Log.out.flush()
}

func (a *applier) endOfFile(payload []byte) error {
	f := a.file
	if f == nil {
		return refused("the end of no file")
	}
	d := &decoder{b: payload}
	size, sum := int64(d.uint(math.MaxInt64)), Sum{}
	copy(sum[:], d.bytes(len(sum)))
	if err := d.end(); err != nil {
		return err
	}
	if size < f.last || size > f.entry.Size {
		return refused("%.100q ends at %d", f.entry.Path, size)
	}
	defer func() {
		a.file = nil
		unix.Close(f.fd)
	}()
	if got := f.sums.sum(size); got != sum {
		return damaged("%.100q is not what was sent", f.entry.Path)
	}
	e := f.entry
	e.Size, e.Done, e.Sum = size, 0, sum
	err := unix.Ftruncate(f.fd, size)
	if err == nil {
		err = a.setOpen(f.fd, e)
	}
	if err != nil {
		return a.failed(err, e.Path)
	}
	return a.put(e)
}

// attributes changes the attributes of a file or directory.
func (a *applier) attributes(e *Entry) error {
	m := a.target.Files.get(e.Path)
	if m == nil || m.Kind != e.Kind || e.Kind != KindDir && (e.Kind != KindFile || e.Size != m.Size || e.Sum != m.Sum) {
		return refused("%.100q has new attributes and is not there", e.Path)
	}
	if m.sameAttributes(e) {
		return a.put(e)
	}
	a.stats.Changed++
	// Should we be cut off, its time is one that no file has, so that the
	// attributes come again.
	pending := *m
	pending.MTime = Time{Sec: math.MinInt64}
	if err := a.put(&pending); err != nil {
		return err
	}
	if err := a.target.Log.out.flush(); err != nil {
		return err
	}
	if err := a.failed(a.change(e), e.Path); err != nil {
		return err
	}
	return a.put(e)
}

func (a *applier) change(e *Entry) error {
	if e.Path == nameRootFS {
		return a.setOpen(a.root, e)
	}
	dir, name, err := a.within(e.Path)
	if err != nil {
		return err
	}
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return a.setOpen(fd, e)
}
