package image

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path"
	"strings"

	"muster/state"
)

// section is the part of an image that an entry of a tarball belongs to.
type section int

const (
	elsewhere section = iota // read over, never unpacked
	metadataFile
	templates
	rootFS
)

const (
	maxName  = 4000
	maxNames = 128 << 20
)

// entry is one checked entry of a tarball.
type entry struct {
	*tar.Header
	section section
	// name is relative to the section's directory, clean, and "" for the
	// directory itself.
	name string
	// link is the target of a hard link, relative to the section's directory.
	link string
	// xattrs are those that an image may set.
	xattrs map[string][]byte
}

// isRegular reports whether the entry brings a file's content.
func (e entry) isRegular() bool {
	switch e.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		return true
	}
	return false
}

// limits bound what an image may unpack to.
type limits struct {
	bytes   int64
	entries int
}

// walk reads a tarball to its end and calls visit for every entry of an image's
// sections, in order. It is where an image is refused: no entry that visit sees
// leaves its section, lies below anything but a directory, or links to what was
// not there before. The rules that need more than one entry are the reason for
// seen.
//
// Device nodes that would do nothing in a container are passed over: those in
// /dev, which every container gets anew, and whiteouts of an overlay.
type walk struct {
	role   Role
	limits limits
	visit  func(e entry, body io.Reader) error

	// seen holds the kind of each entry by its clean name in the archive: 'd',
	// 'f' (file, fifo, device), 'l' (symbolic link), or skipped.
	seen    map[string]byte
	names   int // bytes of names in seen
	entries int
	bytes   int64
}

// run walks the uncompressed tarball r.
func (w *walk) run(ctx context.Context, r io.Reader) error {
	w.seen = map[string]byte{}
	// Headers and padding come on top of what files hold; an archive of
	// nothing but those is bounded as well.
	counted := &counting{r: r, left: w.limits.bytes + w.limits.bytes/4 + 64<<20}
	archive := tar.NewReader(counted)
	body := explained{archive, w}
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		before := counted.n
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return w.finish(counted, counted.n-before)
		}
		if err != nil {
			return w.unreadable(err)
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		e, err := w.check(header)
		if err != nil {
			return err
		}
		if e.section != elsewhere {
			if err := w.visit(e, body); err != nil {
				return err
			}
		}
		// Read here what visit left, so that all that Next reads before the
		// next header is padding (see finish).
		if _, err := io.Copy(io.Discard, body); err != nil {
			return err
		}
	}
}

// skipped marks a device node that is passed over. Another name for it is passed
// over as well.
const skipped = '-'

// explained reads an entry's content and says what is wrong when it ends early.
type explained struct {
	r io.Reader
	w *walk
}

func (e explained) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = e.w.unreadable(err)
	}
	return n, err
}

// finish reads what follows the last entry. A tarball ends with a block of
// zeros; one that ends without was cut off between two entries. The last Next
// then read less than a block: the padding of the last entry.
func (w *walk) finish(r *counting, lastRead int64) error {
	if lastRead < 512 {
		if w.entries == 0 {
			return state.Errorf(state.ErrInvalid, "%s is neither a tarball (plain, gz, xz, zst or bz2) nor a squashfs", w.role.file())
		}
		return state.Errorf(state.ErrInvalid, "%s is cut off: the end of the tarball is missing", w.role.file())
	}
	// The checksums of compressed data come after the last entry.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return w.unreadable(err)
	}
	if w.entries == 0 {
		return state.Errorf(state.ErrInvalid, "%s is an empty tarball", w.role.file())
	}
	return nil
}

// unreadable explains an error of reading the archive. What has a kind comes
// from the layers below and is clear already.
func (w *walk) unreadable(err error) error {
	switch {
	case state.Kind(err) != nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return state.Errorf(state.ErrInvalid, "%s is cut off in the middle of an entry", w.role.file())
	case errors.Is(err, tar.ErrHeader) && w.entries == 0:
		return state.Errorf(state.ErrInvalid, "%s is neither a tarball (plain, gz, xz, zst or bz2) nor a squashfs", w.role.file())
	}
	if failed := new(os.PathError); errors.As(err, &failed) {
		return err
	}
	return state.Errorf(state.ErrInvalid, "%s is a damaged tarball: %w", w.role.file(), err)
}

// file names a part in messages.
func (r Role) file() string {
	switch r {
	case RoleMetadata:
		return "the metadata file"
	case RoleRootFS:
		return "the root file system"
	}
	return "the image file"
}

// check decides about one entry.
func (w *walk) check(header *tar.Header) (entry, error) {
	full, err := cleanName(header.Name)
	if err != nil {
		return entry{}, state.Errorf(state.ErrInvalid, "%s holds an entry %s: %s", w.role.file(), shown(header.Name), err)
	}
	refuse := func(format string, args ...any) (entry, error) {
		args = append([]any{w.role.file(), shown(header.Name)}, args...)
		return entry{}, state.Errorf(state.ErrInvalid, "%s holds an entry %s "+format, args...)
	}
	kind, err := kindOf(header.Typeflag)
	if err != nil {
		return refuse("that %w", err)
	}
	if w.entries++; w.entries > w.limits.entries {
		return entry{}, state.Errorf(state.ErrInvalid, "%s holds more than %d entries", w.role.file(), w.limits.entries)
	}
	e := entry{Header: header}
	if e.isRegular() {
		if header.Size < 0 || header.Size > w.limits.bytes-w.bytes {
			return entry{}, state.Errorf(state.ErrInvalid, "%s unpacks to more than the %d bytes allowed here (reached at %s)", w.role.file(), w.limits.bytes, shown(header.Name))
		}
		w.bytes += header.Size
	}
	if header.Uid < 0 || header.Gid < 0 || header.Uid >= math.MaxUint32 || header.Gid >= math.MaxUint32 {
		return refuse("with an owner out of range (%d:%d)", header.Uid, header.Gid)
	}

	e.section, e.name = w.sectionOf(full)
	if isDisk(w.role, full) {
		return entry{}, state.Errorf(state.ErrInvalid, "%s is a virtual machine's (it holds %s): muster runs containers only", w.role.file(), shown(header.Name))
	}
	if w.role == RoleMetadata && e.section == rootFS {
		return entry{}, state.Errorf(state.ErrInvalid, "the metadata file holds a root file system of its own: upload it as a unified image, without a second file")
	}
	if parent, what := w.blockedBy(full); parent != "" {
		return refuse("that lies below %s, which is %s", shown(parent), what)
	}
	if was, again := w.seen[full]; again && (was == 'd') != (kind == 'd') {
		return refuse("twice, once as a directory and once as something else")
	}
	switch e.section {
	case metadataFile:
		if !e.isRegular() {
			return refuse("that is not a regular file")
		}
		if w.seen[full] != 0 {
			return refuse("twice")
		}
	case templates:
		if !e.isRegular() && kind != 'd' {
			return refuse("that is not a regular file")
		}
	case rootFS:
		if e.name == "" && kind != 'd' {
			return refuse("that is not a directory")
		}
	}
	switch header.Typeflag {
	case tar.TypeChar, tar.TypeBlock:
		if header.Devmajor < 0 || header.Devmajor > maxMajor || header.Devminor < 0 || header.Devminor > maxMinor {
			return refuse("that is a device of an impossible number (%d:%d)", header.Devmajor, header.Devminor)
		}
		if e.section != rootFS || uselessDevice(e.name, header.Typeflag == tar.TypeChar, header.Devmajor, header.Devminor) {
			e.section, kind = elsewhere, skipped
		}
	case tar.TypeLink:
		target, err := cleanName(header.Linkname)
		if err != nil {
			return refuse("linked to %s: %w", shown(header.Linkname), err)
		}
		section, link := w.sectionOf(target)
		switch was := w.seen[target]; {
		case section != e.section:
			return refuse("linked to %s, which is outside", shown(header.Linkname))
		case was == 0 || was == 'd' || target == full:
			return refuse("linked to %s, which is no file before it", shown(header.Linkname))
		case was == skipped:
			e.section, kind = elsewhere, skipped
		default:
			kind = was
		}
		e.link = link
	case tar.TypeSymlink:
		if header.Linkname == "" || len(header.Linkname) > maxName || strings.ContainsRune(header.Linkname, 0) {
			return refuse("that is a symbolic link to nowhere")
		}
	}
	if e.xattrs, err = xattrsOf(header); err != nil {
		return refuse("with an extended attribute that %w", err)
	}
	return e, w.see(full, kind)
}

// The numbers that Linux has for devices (12 and 20 bits).
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// uselessDevice reports whether a device node of a root file system can do
// nothing in a container: /dev is mounted over, and the character device 0:0 is
// how an overlay marks what was deleted. name is relative to the root file system.
func uselessDevice(name string, character bool, major, minor int64) bool {
	return name == "dev" || strings.HasPrefix(name, "dev/") || character && major == 0 && minor == 0
}

func kindOf(flag byte) (byte, error) {
	switch flag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse, tar.TypeFifo, tar.TypeLink, tar.TypeChar, tar.TypeBlock:
		return 'f', nil
	case tar.TypeDir:
		return 'd', nil
	case tar.TypeSymlink:
		return 'l', nil
	}
	return 0, errors.New("is of no type that an image may hold")
}

// see remembers an entry and the directories that it implies.
func (w *walk) see(full string, kind byte) error {
	for name := full; name != "."; name, kind = path.Dir(name), 'd' {
		if _, known := w.seen[name]; known && name != full {
			break
		} else if !known {
			w.names += len(name)
		}
		w.seen[name] = kind
	}
	if w.names > maxNames {
		return state.Errorf(state.ErrInvalid, "%s holds more than %d bytes of names", w.role.file(), maxNames)
	}
	return nil
}

// blockedBy returns the nearest entry above name that is no directory.
func (w *walk) blockedBy(name string) (parent, what string) {
	for parent = path.Dir(name); parent != "."; parent = path.Dir(parent) {
		switch w.seen[parent] {
		case 'l':
			return parent, "a symbolic link"
		case 'f', skipped:
			return parent, "not a directory"
		case 'd':
			return "", "" // what is above it was checked when it was seen
		}
	}
	return "", ""
}

// sectionOf says where a clean name of the archive belongs.
func (w *walk) sectionOf(full string) (section, string) {
	if w.role == RoleRootFS {
		if full == "." {
			full = ""
		}
		return rootFS, full
	}
	top, rest, _ := strings.Cut(full, "/")
	switch {
	case top == "rootfs":
		return rootFS, rest
	case top == "templates":
		return templates, rest
	case full == "metadata.yaml":
		return metadataFile, ""
	}
	return elsewhere, full
}

// isDisk knows the disks of virtual machine images by their names (LXD
// documentation, "Image format").
func isDisk(role Role, full string) bool {
	return role != RoleRootFS && (full == "rootfs.img" || path.Dir(full) == "." && strings.HasSuffix(full, ".qcow2"))
}

// cleanName returns an entry's name without what changes nothing ("./", "//",
// slashes at the beginning, which tar strips as well, and at the end), or says
// why no image may have it. The top is ".".
func cleanName(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("it has no name")
	case len(name) > maxName:
		return "", errors.New("its name is too long")
	case strings.ContainsRune(name, 0):
		return "", errors.New("its name holds a NUL byte")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return "", errors.New(`its name leaves the image by ".."`)
		case len(part) > 255:
			return "", errors.New("a part of its name is longer than 255 bytes")
		}
	}
	return path.Clean(cmp.Or(strings.TrimLeft(name, "/"), ".")), nil
}

// counting counts what is read, up to a limit.
type counting struct {
	r       io.Reader
	n, left int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.left -= int64(n); c.left < 0 {
		return 0, state.Errorf(state.ErrInvalid, "the image unpacks to more than is allowed here (%d bytes read)", c.n)
	}
	return n, err
}
