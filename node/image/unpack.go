package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
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
func (s *Store) Unpack(ctx context.Context, fingerprint, dir string, progress func(written int64)) (err error) {
	files, err := s.Export(fingerprint)
	if err != nil {
		return err
	}
	defer files.Close()
	made, err := emptyDir(dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if clearErr := clearDir(dir, made); clearErr != nil {
				s.cfg.Log.Warn("what was unpacked of an image could not be removed", "dir", dir, "error", clearErr)
			}
		}
	}()

	// The hash is taken while unpacking goes on, since both read the same pages.
	// Unpacking is safe whatever the file holds.
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return files.verify(groupCtx, fingerprint) })
	group.Go(func() error { return s.fill(groupCtx, files, dir, progress) })
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// A damaged file fails in both ways, whichever comes first; only one of
		// them says how to mend it.
		if errors.Is(err, state.ErrInvalid) {
			if damage := files.verify(ctx, fingerprint); damage != nil {
				return damage
			}
		}
		return noRoom(fmt.Errorf("unpack image %s: %w", short(fingerprint), err))
	}
	return nil
}

// emptyDir makes dir, or checks that it is an empty directory.
func emptyDir(dir string) (made bool, err error) {
	err = os.Mkdir(dir, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err == nil, noRoom(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	if len(entries) > 0 {
		return false, state.Errorf(state.ErrConflict, "%s is not empty: an image is unpacked into an empty directory", dir)
	}
	return false, nil
}

// clearDir undoes emptyDir and all that was put into dir since.
func clearDir(dir string, made bool) error {
	if made {
		return os.RemoveAll(dir)
	}
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	return err
}

// fill writes the contents of an image's files into dir.
func (s *Store) fill(ctx context.Context, files Files, dir string, progress func(int64)) error {
	t, err := openTree(dir)
	if err != nil {
		return err
	}
	defer t.close()
	t.progress = progress
	t.room = s.newRoom(t.top, "unpack the image")
	for _, name := range []string{"rootfs", "templates"} {
		if err := t.directory(treeEntry{name: name, mode: 0o755}); err != nil {
			return err
		}
	}
	for _, file := range files {
		if err := s.fillFrom(ctx, file, t, dir); err != nil {
			return err
		}
	}
	return t.finish()
}

func (s *Store) fillFrom(ctx context.Context, file File, t *tree, dir string) error {
	head := make([]byte, sniffed)
	n, err := file.file.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if file.Role == RoleRootFS && sniff(head[:n]).container == squashfs {
		return s.fillSquashfs(ctx, file.file, t, filepath.Join(dir, "rootfs"))
	}
	return contents{role: file.Role, limits: s.limits, visit: t.add}.read(ctx, file.file)
}

// fillSquashfs lets unsquashfs fill an empty directory, and then takes away what
// a tarball could not have brought either: attributes that mean something to the
// host, sockets, and device nodes that are of no use.
func (s *Store) fillSquashfs(ctx context.Context, file *os.File, t *tree, rootfs string) error {
	size, err := checkSquashfs(ctx, file, s.limits)
	if err != nil {
		return err
	}
	if err := t.room.need(size); err != nil {
		return err
	}
	t.forget("rootfs") // unsquashfs sets its owner, mode and times
	err = unsquash(ctx, file, func(line squashLine) error {
		if line.kind == '-' {
			t.wrote(line.size)
		}
		return nil
	}, "-li", "-f", "-d", rootfs)
	if err != nil {
		return err
	}
	return sweep(ctx, rootfs)
}

// sweep removes what images do not carry from a tree that nobody else uses:
// attributes, sockets and useless device nodes.
func sweep(ctx context.Context, dir string) error {
	return filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if entry.Type()&(fs.ModeDevice|fs.ModeSocket) != 0 {
			var st unix.Stat_t
			if err := unix.Lstat(name, &st); err != nil {
				return &fs.PathError{Op: "lstat", Path: name, Err: err}
			}
			relative, err := filepath.Rel(dir, name)
			if err != nil {
				return err
			}
			if entry.Type()&fs.ModeSocket != 0 || uselessDevice(relative, entry.Type()&fs.ModeCharDevice != 0, int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))) {
				return os.Remove(name)
			}
		}
		attrs, err := listXattrs(func(buf []byte) (int, error) { return unix.Llistxattr(name, buf) })
		if err != nil {
			return fmt.Errorf("attributes of %s: %w", name, err)
		}
		for _, attr := range attrs {
			if carried(attr) || attr == "security.selinux" {
				continue
			}
			if err := unix.Lremovexattr(name, attr); err != nil {
				return fmt.Errorf("remove attribute %s of %s: %w", attr, name, err)
			}
		}
		return nil
	})
}
