package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/storage/tree"
)

// Source is where a content to send is read: directories in which owners are
// as the container sees them.
type Source struct {
	RootFS string
	// Dir holds metadata.yaml and templates; empty if the volume has none.
	Dir string
	// Live says that it may change meanwhile: what vanishes is left out.
	Live bool
	// IDs is set where RootFS shows other ids than the container sees.
	IDs *IDs
}

// Stats is what a stream came to.
type Stats struct {
	Files   int64 // new or replaced
	Bytes   int64 // of their data; holes and zeros are not sent
	Changed int64 // files that only got other attributes
	Removed int64
	// Compared are the bytes that the sender read of files that the receiver
	// turned out to have.
	Compared int64
}

// settled is how old a change must be so that a later one has another time.
// The clocks of file systems tick every ten milliseconds at the slowest.
const settled = time.Second

// Sender writes one stream. It works on one thread.
//
//nolint:containedctx // it lives exactly as long as the call it is made for
type Sender struct {
	ctx   context.Context
	out   *frameWriter
	inv   *Inventory
	stats Stats
	// fresh is the change time from which on files may still be changing.
	fresh Time
	// prev is the content sent last, with what the receiver has of it (nil:
	// not known).
	prev  *string
	files *Manifest
	// trust says that equal change times mean equal files.
	trust bool
	links map[inode]string
	live  bool
	ids   *IDs // of the tree at hand
	// skip leaves out attributes.
	skip  func(attr string) bool
	buf   []byte // of data
	enc   []byte
	names []byte
	value []byte
}

type inode struct{ dev, ino uint64 }

// NewSender returns a Sender to a receiver with this inventory. now is a moment
// before which every change of the sources is on disk.
func NewSender(ctx context.Context, inv *Inventory, w io.Writer, now time.Time) *Sender {
	t := now.Add(-settled)
	return &Sender{
		ctx: ctx, out: newFrameWriter(w), inv: inv, fresh: Time{t.Unix(), uint32(t.Nanosecond())},
		buf: make([]byte, chunk), names: make([]byte, 4<<10), value: make([]byte, maxValue),
	}
}

// Begin tells which contents the volume has, snapshots in the order of age and
// Live last. The receiver forgets any other.
func (s *Sender) Begin(contents []string) error {
	head := binary.AppendUvarint(binary.AppendUvarint(nil, version), uint64(len(contents)))
	for _, name := range contents {
		head = appendString(head, name)
	}
	return s.out.write(frameHello, head)
}

// Has reports whether the receiver has the whole snapshot, which then need not
// be sent, and takes note that it comes next.
func (s *Sender) Has(name, token string) bool {
	have := s.inv.find(name)
	if name == Live || have == nil || !have.Complete || have.Token != token {
		return false
	}
	s.prev, s.files = &name, have.Files
	return true
}

// Content sends the difference between a content and what the receiver has.
func (s *Sender) Content(name, token string, src Source) error {
	head := s.start(name, token)
	b := []byte{byte(head.Start)}
	b = appendString(appendString(appendString(b, head.Name), head.Token), head.From)
	if err := s.out.write(frameContent, b); err != nil {
		return err
	}
	s.links, s.live = map[inode]string{}, src.Live
	if err := s.content(src); err != nil {
		return err
	}
	s.prev = &name
	digest := s.files.Digest()
	if err := s.out.write(frameDigest, digest[:]); err != nil {
		return err
	}
	return s.out.flush()
}

// start chooses what the receiver begins the content with.
func (s *Sender) start(name, token string) Content {
	head := Content{Name: name, Token: token}
	have, live := s.inv.find(name), s.inv.find(Live)
	switch {
	case have != nil && have.Files != nil:
		head.Start, s.files = FromItself, have.Files
		// Another snapshot of the same name has times of its own.
		s.trust = have.Token == token
	case live != nil && live.Complete && live.Files != nil:
		// An earlier stream brought the volume, and the snapshot is newer: it
		// is nearer to the volume as it was than to any other snapshot.
		head.Start, head.From, s.files = FromContent, Live, live.Files.clone()
		s.files.Inherit()
		s.trust = true
	case s.prev != nil && s.files != nil:
		head.Start, head.From = FromContent, *s.prev
		s.files.Inherit()
		s.trust = true
	case s.prev == nil && s.inv.Image != nil:
		head.Start, s.files, s.trust = FromImage, s.inv.Image, false
	default:
		head.Start, s.files, s.trust = FromNothing, NewManifest(), false
	}
	return head
}

// End ends the stream.
func (s *Sender) End() (Stats, error) {
	if err := s.out.write(frameEnd); err != nil {
		return s.stats, err
	}
	return s.stats, s.out.flush()
}

func (s *Sender) content(src Source) error {
	root, err := tree.OpenDir(unix.AT_FDCWD, src.RootFS)
	if err != nil {
		return fmt.Errorf("open %s: %w", src.RootFS, err)
	}
	defer unix.Close(root)
	s.ids = src.IDs
	if err := s.directory(root, nameRootFS); err != nil {
		return err
	}
	s.ids = nil
	if src.Dir == "" {
		return errors.Join(s.gone(nameMetadata), s.gone(nameTemplates))
	}
	dir, err := tree.OpenDir(unix.AT_FDCWD, src.Dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", src.Dir, err)
	}
	defer unix.Close(dir)
	for name, kind := range map[string]uint32{nameMetadata: unix.S_IFREG, nameTemplates: unix.S_IFDIR} {
		var st unix.Stat_t
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT == kind {
			err = s.entry(dir, name, name)
		} else if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = s.gone(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// gone tells that nothing is at the path any more.
func (s *Sender) gone(path string) error {
	if s.files.find(path) == nil {
		return nil
	}
	s.files.drop(path)
	s.stats.Removed++
	return s.out.write(frameRemove, []byte(path))
}

// vanished reports whether the file, and nothing else, was not there any more:
// something else may have taken the name between our looking and our opening.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ESTALE)
}

// directory sends an open directory and what is in it.
func (s *Sender) directory(fd int, path string) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	e, err := s.describe(fd, "", path, KindDir, &st)
	if err != nil {
		return err
	}
	m := s.files.get(path)
	switch {
	case m == nil || m.Kind != KindDir:
		err = s.replace(e)
	case !m.sameAttributes(e):
		err = s.attributes(e)
	}
	if err != nil {
		return err
	}
	names, err := tree.List(fd)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // just removed, so empty
		return fmt.Errorf("list %q: %w", path, err)
	}
	slices.Sort(names)
	for _, name := range s.files.kids(path) {
		if _, there := slices.BinarySearch(names, name); !there {
			if err := s.gone(join(path, name)); err != nil {
				return err
			}
		}
	}
	for _, name := range names {
		if err := s.entry(fd, name, join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sender) entry(dir int, name, path string) error {
	err := s.entryOnce(dir, name, path)
	if s.live && vanished(err) {
		return s.gone(path)
	}
	return err
}

func (s *Sender) entryOnce(dir int, name, path string) error {
	if len(path) > maxPath {
		return fmt.Errorf("the path %.100q is longer than %d bytes", path, maxPath)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fd, err := tree.OpenDir(dir, name)
		if err != nil {
			return fmt.Errorf("read %q: %w", path, err)
		}
		defer unix.Close(fd)
		return s.directory(fd, path)
	case unix.S_IFREG:
		return s.regular(dir, name, path)
	}
	return s.special(dir, name, path, &st)
}

// special sends what is neither directory nor regular file.
func (s *Sender) special(dir int, name, path string, st *unix.Stat_t) error {
	if done, err := s.linked(path, st); done || err != nil {
		return err
	}
	kind := KindUnknown
	for k, format := range formats {
		if st.Mode&unix.S_IFMT == format {
			kind = k
		}
	}
	e, err := s.describe(dir, name, path, kind, st)
	if err != nil {
		return err
	}
	switch kind {
	case KindSymlink:
		n, err := unix.Readlinkat(dir, name, s.value)
		if errors.Is(err, unix.EINVAL) {
			err = unix.ENXIO // something else took the name
		}
		if err != nil {
			return fmt.Errorf("read %q: %w", path, err)
		}
		e.Target = string(s.value[:n])
	case KindChar, KindBlock:
		e.Rdev = st.Rdev
	}
	m := s.files.get(path)
	if m != nil && m.Kind == kind && m.Target == e.Target && m.Rdev == e.Rdev && m.sameAttributes(e) {
		return nil
	}
	return s.replace(e)
}

// linked sends another name of a file that was seen before, and is done then.
func (s *Sender) linked(path string, st *unix.Stat_t) (done bool, err error) {
	if st.Nlink < 2 {
		return false, nil
	}
	id := inode{st.Dev, st.Ino}
	first, ok := s.links[id]
	if !ok || top(first) != top(path) {
		s.links[id] = path
		return false, nil
	}
	if m := s.files.get(path); m != nil && m.Kind == KindLink && m.Target == first {
		return true, nil
	}
	return true, s.replace(&Entry{Path: path, Kind: KindLink, Target: first})
}

// regular sends a regular file if the receiver has not the same.
func (s *Sender) regular(dir int, name, path string) error {
	// NONBLOCK: should a FIFO have taken the name, opening must not wait.
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("read %q: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("read %q: %w", path, unix.ENXIO)
	}
	if done, err := s.linked(path, &st); done || err != nil {
		return err
	}
	e, err := s.describe(fd, "", path, KindFile, &st)
	if err != nil {
		return err
	}
	e.Size = st.Size
	m := s.files.get(path)
	if m == nil || m.Kind != KindFile || m.Size != e.Size {
		return s.data(fd, e, &st)
	}
	same, err := s.same(fd, e, m, &st)
	switch {
	case err != nil:
		return fmt.Errorf("read %q: %w", path, err)
	case same && m.sameAttributes(e) && (e.CTime == Time{} || e.CTime == m.CTime):
		return nil
	case same && (m.sameAttributes(e) || st.Nlink < 2 && !s.files.grouped(path)):
		return s.attributes(e)
	}
	// A file with several names is sent again for an attribute too: where the
	// receiver's file system copies a file before its first change, its names
	// would come apart.
	return s.data(fd, e, &st)
}

// same reports whether the receiver's file m, of the same size, holds the same,
// and sets e.Sum if so.
func (s *Sender) same(fd int, e, m *Entry, st *unix.Stat_t) (bool, error) {
	if s.trust && e.CTime != (Time{}) && e.CTime == m.CTime && e.MTime == m.MTime {
		e.Sum = m.Sum
		return true, nil
	}
	sum, end, err := sumFile(s.ctx, fd, s.buf, st, st.Size)
	if err != nil || end != st.Size {
		return false, err
	}
	e.Sum = sum.sum(end)
	if e.Sum == m.Sum {
		s.stats.Compared += end
	}
	return e.Sum == m.Sum, nil
}

// replace sends a file without data.
func (s *Sender) replace(e *Entry) error {
	if err := errors.Join(s.files.touch(e.Path), s.files.put(e)); err != nil {
		return err
	}
	s.stats.Files++
	s.enc = e.append(s.enc[:0])
	return s.out.write(frameEntry, s.enc)
}

// attributes sends a file's new attributes.
func (s *Sender) attributes(e *Entry) error {
	if err := s.files.put(e); err != nil {
		return err
	}
	s.stats.Changed++
	s.enc = e.append(s.enc[:0])
	return s.out.write(frameAttr, s.enc)
}

// data sends a regular file with its data, from where the receiver has it.
func (s *Sender) data(fd int, e *Entry, st *unix.Stat_t) error {
	sums, err := s.resume(fd, e, st)
	if err != nil {
		return fmt.Errorf("read %q: %w", e.Path, err)
	}
	if e.Done == 0 {
		if err := s.files.touch(e.Path); err != nil {
			return err
		}
	}
	e.Sum = Sum{}
	s.enc = e.append(s.enc[:0])
	if err := s.out.write(frameEntry, s.enc); err != nil {
		return err
	}
	last, head := e.Done, make([]byte, 8)
	var sending error
	end, err := readData(s.ctx, fd, s.buf, e.Done, e.Size, sparse(st), func(offset int64, data []byte) error {
		sums.add(offset, data)
		sending = runs(offset, data, func(offset int64, data []byte) error {
			binary.LittleEndian.PutUint64(head, uint64(offset))
			last = offset + int64(len(data))
			s.stats.Bytes += int64(len(data))
			return s.out.write(frameData, head, data)
		})
		return sending
	})
	if sending != nil {
		return sending
	}
	if err != nil {
		// %v: the file is open, so no error of reading it means that it went.
		return fmt.Errorf("read %q: %v", e.Path, err) //nolint:errorlint // see above
	}
	// It may have become shorter than what was sent.
	e.Size, e.Done = max(last, end), 0
	e.Sum = sums.sum(e.Size)
	if err := s.files.put(e); err != nil {
		return err
	}
	s.stats.Files++
	return s.out.write(frameFile, binary.AppendUvarint(nil, uint64(e.Size)), e.Sum[:])
}

// resume sets e.Done to what the receiver has of the file already, and returns
// the sum of that.
func (s *Sender) resume(fd int, e *Entry, st *unix.Stat_t) (*summer, error) {
	m := s.files.get(e.Path)
	if m == nil || m.Kind != KindPartial || m.Done > e.Size || m.Done%page != 0 {
		return newSummer(), nil
	}
	sums, end, err := sumFile(s.ctx, fd, s.buf, st, m.Done)
	if err != nil {
		return nil, err
	}
	if end != m.Done || sums.sum(end) != m.Sum {
		return newSummer(), nil
	}
	e.Done = m.Done
	return sums, nil
}

// Scan returns the manifest of files that were not received, with the sum of
// each. skip leaves out attributes.
func Scan(ctx context.Context, src Source, skip func(attr string) bool) (*Manifest, error) {
	s := NewSender(ctx, &Inventory{}, io.Discard, time.Now())
	s.out.silent, s.skip = true, skip
	if err := s.Content(Live, "", src); err != nil {
		return nil, err
	}
	for e := range s.files.all() {
		e.CTime = Time{} // of this member's files, not of the source's
	}
	return s.files, nil
}
