package stream

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// Kind is what a file is.
type Kind byte

// The kinds of file.
const (
	KindDir     Kind = 'd'
	KindFile    Kind = 'f'
	KindSymlink Kind = 'l'
	KindLink    Kind = 'h' // another name of a file that comes before
	KindChar    Kind = 'c'
	KindBlock   Kind = 'b'
	KindFIFO    Kind = 'p'
	KindSocket  Kind = 's'
	// KindPartial is a regular file of which the first Done bytes arrived.
	KindPartial Kind = 'P'
	// KindUnknown is something, or nothing, that has to be sent again.
	KindUnknown Kind = '?'
)

var formats = map[Kind]uint32{
	KindDir: unix.S_IFDIR, KindFile: unix.S_IFREG, KindSymlink: unix.S_IFLNK, KindChar: unix.S_IFCHR,
	KindBlock: unix.S_IFBLK, KindFIFO: unix.S_IFIFO, KindSocket: unix.S_IFSOCK,
}

// Time is a moment as file systems keep it.
type Time struct {
	Sec  int64
	Nsec uint32
}

func timeOf(t unix.Timespec) Time { return Time{t.Sec, uint32(t.Nsec)} }

func (t Time) timespec() unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)} }

func (t Time) before(o Time) bool { return t.Sec < o.Sec || t.Sec == o.Sec && t.Nsec < o.Nsec }

// Sum is the SHA-256 of a file's data as summer counts them.
type Sum [32]byte

// Entry is a file as the source has it: ids as the container sees them.
type Entry struct {
	Path     string
	Kind     Kind
	Mode     uint32 // without the type
	UID, GID uint32
	MTime    Time
	ATime    Time // set once, never compared
	// CTime is when the source's file was last changed in any way. It is zero
	// where that is too near to when the file was read to tell it from a later
	// change.
	CTime  Time
	Size   int64
	Done   int64 // of a KindPartial, or where the data of a frameEntry begin
	Rdev   uint64
	Target string // of a symbolic link, or the path that KindLink means
	Sum    Sum    // of a KindFile, or of the first Done bytes of a KindPartial
	Attrs  map[string]string
}

// sameAttributes reports whether both have the same owner, mode, time and
// extended attributes.
func (e *Entry) sameAttributes(o *Entry) bool {
	return e.Mode == o.Mode && e.UID == o.UID && e.GID == o.GID && e.MTime == o.MTime && maps.Equal(e.Attrs, o.Attrs)
}

func (e *Entry) append(b []byte) []byte {
	b = append(b, byte(e.Kind))
	b = appendString(b, e.Path)
	for _, n := range []uint64{uint64(e.Mode), uint64(e.UID), uint64(e.GID)} {
		b = binary.AppendUvarint(b, n)
	}
	for _, t := range []Time{e.MTime, e.ATime, e.CTime} {
		b = binary.AppendVarint(b, t.Sec)
		b = binary.AppendUvarint(b, uint64(t.Nsec))
	}
	for _, n := range []uint64{uint64(e.Size), uint64(e.Done), e.Rdev} {
		b = binary.AppendUvarint(b, n)
	}
	b = appendString(b, e.Target)
	if e.Kind == KindFile || e.Kind == KindPartial {
		b = append(b, e.Sum[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(e.Attrs)))
	if len(e.Attrs) == 0 {
		return b
	}
	for _, name := range slices.Sorted(maps.Keys(e.Attrs)) {
		b = appendString(b, name)
		b = appendString(b, e.Attrs[name])
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder takes a payload apart. After the first error everything is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = refused(format, args...)
	}
	d.b = nil
}

func (d *decoder) uint(most uint64) uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 || n > most {
		d.fail("a number is out of range")
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) int() int64 {
	n, size := binary.Varint(d.b)
	if size <= 0 {
		d.fail("a number is out of range")
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.fail("a frame is too short")
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) string(most int) string { return string(d.bytes(int(d.uint(uint64(most))))) }

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) time() Time {
	return Time{Sec: d.int(), Nsec: uint32(d.uint(999_999_999))}
}

// end returns the first error; bytes that are left over are one.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("a frame is too long")
	}
	return d.err
}

func decodeEntry(payload []byte) (*Entry, error) {
	d := &decoder{b: payload}
	e := &Entry{Kind: Kind(d.byte()), Path: d.string(maxPath)}
	e.Mode = uint32(d.uint(0o7777))
	e.UID, e.GID = uint32(d.uint(math.MaxUint32)), uint32(d.uint(math.MaxUint32))
	e.MTime, e.ATime, e.CTime = d.time(), d.time(), d.time()
	e.Size, e.Done = int64(d.uint(math.MaxInt64)), int64(d.uint(math.MaxInt64))
	e.Rdev = d.uint(math.MaxUint64)
	e.Target = d.string(maxPath)
	if e.Kind == KindFile || e.Kind == KindPartial {
		copy(e.Sum[:], d.bytes(len(e.Sum)))
	}
	if n := d.uint(maxAttrs); n > 0 {
		e.Attrs = map[string]string{}
		for range n {
			name := d.string(maxName)
			e.Attrs[name] = d.string(maxValue)
		}
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return e, e.check()
}

// check refuses an entry that cannot be.
func (e *Entry) check() error {
	if err := checkPath(e.Path); err != nil {
		return err
	}
	_, plain := formats[e.Kind]
	switch {
	case !plain && e.Kind != KindLink && e.Kind != KindPartial && e.Kind != KindUnknown:
		return refused("%.100q is of the unknown kind %q", e.Path, e.Kind)
	case e.Kind == KindUnknown:
	case (e.Path == nameRootFS || e.Path == nameTemplates) && e.Kind != KindDir:
		return refused("%s is not a directory", e.Path)
	case e.Path == nameMetadata && e.Kind != KindFile && e.Kind != KindPartial:
		return refused("%s is not a file", e.Path)
	case e.Kind == KindSymlink && (e.Target == "" || len(e.Target) > maxTarget):
		return refused("%.100q has an impossible target", e.Path)
	case e.Done > e.Size && e.Kind == KindFile:
		return refused("%.100q begins after its end", e.Path)
	}
	if e.Kind == KindLink {
		if err := checkPath(e.Target); err != nil {
			return err
		}
		if top(e.Target) != top(e.Path) {
			return refused("%.100q links to another tree", e.Path)
		}
	}
	for name := range e.Attrs {
		if name == "" {
			return refused("%.100q has an attribute without a name", e.Path)
		}
	}
	return nil
}

// top is the first part of a path.
func top(path string) string {
	for i := range len(path) {
		if path[i] == '/' {
			return path[:i]
		}
	}
	return path
}
