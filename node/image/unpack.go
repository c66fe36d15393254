package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"muster/state"
)

// Unpack verifies an image and fills dir with its rootfs/, metadata.yaml and
// templates/. Owners are those in the image, unshifted, so it needs root. dir is
// made when it is missing (mode 0700) and must be empty; when Unpack fails, dir
// is as it was. progress is told how many bytes have been written so far; it may
// be nil. What was written is not synced to disk.
//
// Damage is state.ErrConflict as from Verify, and so is a lack of space; an
// image that is not here is state.ErrNotFound.
func (s *Store) Unpack(ctx context.Context, fingerprint, dir string, progress func(written int64)) error {
	files, err := s.Export(fingerprint)
	if err != nil {
		return err
	}
	defer files.Close()
	if err := files.verify(ctx, fingerprint); err != nil {
		return err
	}
	made, err := emptyDir(dir)
	if err != nil {
		return fmt.Errorf("unpack image %s: %w", short(fingerprint), err)
	}
	u := &unpacking{dir: dir, limits: s.limits, progress: progress}
	if err := u.run(ctx, s, files); err != nil {
		empty(dir, made)
		return noRoom(fmt.Errorf("unpack image %s: %w", short(fingerprint), err))
	}
	return nil
}

// emptyDir makes dir unless it is there and empty; made says that it was missing.
func emptyDir(dir string) (made bool, err error) {
	err = os.Mkdir(dir, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err == nil, err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = state.Errorf(state.ErrConflict, "%s is not empty", dir)
	}
	return false, err
}

// empty brings dir back to what it was before unpacking.
func empty(dir string, made bool) {
	if made {
		_ = os.RemoveAll(dir)
		return
	}
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		_ = os.RemoveAll(filepath.Join(dir, entry.Name()))
	}
}

// unpacking fills a directory that nobody else uses. The walk has made sure that
// no entry leaves its section or lies below a symbolic link, and every name is
// made new, so plain paths are safe here.
type unpacking struct {
	dir      string
	limits   limits
	progress func(int64)
	room     *room
	written  int64
	// times are set last, children before parents: making an entry changes its
	// directory.
	times []dirTime
}

type dirTime struct {
	path string
	at   time.Time
}

func (u *unpacking) run(ctx context.Context, s *Store, files Files) error {
	top, err := os.Open(u.dir)
	if err != nil {
		return err
	}
	defer top.Close()
	u.room = s.newRoom(top, "unpack an image")
	for _, file := range files {
		if file.Role == RoleRootFS && filepath.Ext(file.Name) == ".squashfs" {
			if err := unpackSquashfs(ctx, file.file.Name(), filepath.Join(u.dir, "rootfs")); err != nil {
				return err
			}
			continue
		}
		walk := contents{role: file.Role, limits: u.limits, visit: u.entry}
		if err := walk.read(ctx, io.NewSectionReader(file.file, 0, file.Size)); err != nil {
			return err
		}
	}
	for _, dir := range slices.Backward(u.times) {
		if err := setTime(dir.path, dir.at); err != nil {
			return err
		}
	}
	return nil
}

// path is where an entry goes.
func (u *unpacking) path(section section, name string) string {
	switch section {
	case metadataFile:
		return filepath.Join(u.dir, "metadata.yaml")
	case templates:
		return filepath.Join(u.dir, "templates", name)
	default:
		return filepath.Join(u.dir, "rootfs", name)
	}
}

func (u *unpacking) entry(e entry, body io.Reader) error {
	target := u.path(e.section, e.name)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if e.Typeflag != tar.TypeDir {
		// An archive may hold a name twice; the later one counts.
		if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	var err error
	switch e.Typeflag {
	case tar.TypeDir:
		err = os.Mkdir(target, 0o755)
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
	case tar.TypeSymlink:
		err = os.Symlink(e.Linkname, target)
	case tar.TypeLink:
		// Owner and mode are the first name's.
		return os.Link(u.path(e.section, e.link), target)
	case tar.TypeFifo:
		err = unix.Mkfifo(target, 0o600)
	default:
		err = u.file(target, e.Size, body)
	}
	if err != nil {
		return err
	}
	return u.attributes(target, e)
}

// file writes the content, leaving out blocks of zeros.
func (u *unpacking) file(target string, size int64, body io.Reader) error {
	file, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(&sparse{file: file, unpacking: u}, onlyReader{body}, make([]byte, chunkSize))
	if err == nil {
		err = file.Truncate(size)
	}
	return errors.Join(err, file.Close())
}

// onlyReader hides WriterTo, so that io.CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }

// sparse skips over blocks of zeros instead of writing them.
type sparse struct {
	file      *os.File
	unpacking *unpacking
	at        int64
}

const sparseBlock = 4096

func (s *sparse) Write(p []byte) (int, error) {
	if err := s.unpacking.room.take(int64(len(p))); err != nil {
		return 0, err
	}
	for rest := p; len(rest) > 0; {
		count := min(sparseBlock, len(rest))
		// Runs of data are written at once.
		for count < len(rest) && !zero(rest[count:min(count+sparseBlock, len(rest))]) {
			count = min(count+sparseBlock, len(rest))
		}
		first := rest[:min(sparseBlock, count)]
		if zero(first) {
			s.at += int64(len(first))
			rest = rest[len(first):]
			continue
		}
		if _, err := s.file.WriteAt(rest[:count], s.at); err != nil {
			return 0, err
		}
		s.at += int64(count)
		rest = rest[count:]
	}
	s.unpacking.written += int64(len(p))
	if s.unpacking.progress != nil {
		s.unpacking.progress(s.unpacking.written)
	}
	return len(p), nil
}

func zero(block []byte) bool {
	for _, b := range block {
		if b != 0 {
			return false
		}
	}
	return true
}

// attributes sets owner, mode, extended attributes and time, in the order in which
// none undoes another.
func (u *unpacking) attributes(target string, e entry) error {
	if err := os.Lchown(target, e.Uid, e.Gid); err != nil {
		return err
	}
	if e.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(target, uint32(e.Mode)&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: target, Err: err}
		}
	}
	for name, value := range e.xattrs {
		if err := unix.Lsetxattr(target, name, value, 0); err != nil {
			return &fs.PathError{Op: "set " + name + " of", Path: target, Err: err}
		}
	}
	if e.Typeflag == tar.TypeDir {
		u.times = append(u.times, dirTime{target, e.ModTime})
		return nil
	}
	return setTime(target, e.ModTime)
}

func setTime(path string, at time.Time) error {
	if at.IsZero() {
		return nil
	}
	spec := unix.NsecToTimespec(at.UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{spec, spec}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "set the time of", Path: path, Err: err}
	}
	return nil
}
