package storage

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"muster/state"
)

// EnsureImage makes sure that the image is unpacked in the pool, calling
// unpack if it is not. Concurrent callers wait for one unpacking; a crash or an
// error leaves nothing that looks like an image.
func (p *Pool) EnsureImage(ctx context.Context, fingerprint string, unpack Unpack) error {
	if err := cmp.Or(p.usable(), checkFingerprint(fingerprint)); err != nil {
		return err
	}
	if p.ImagePresent(fingerprint) {
		return nil
	}
	unlock, err := p.contents.write(ctx, fingerprint)
	if err != nil {
		return err
	}
	defer unlock()
	if p.ImagePresent(fingerprint) {
		return nil
	}
	if kept, err := p.drv.keepImage(fingerprint); kept || err != nil {
		return p.fault(err, "take image %.12s back", fingerprint)
	}
	stage, err := p.staged()
	if err != nil {
		return p.fault(err, "unpack image %.12s", fingerprint)
	}
	defer p.tidy(ctx, stage)
	content := filepath.Join(stage, nameLive)
	if err := p.fill(ctx, content, state.VolumeImage, unpack); err != nil {
		return p.fault(err, "unpack image %.12s", fingerprint)
	}
	// Every volume made from the image trusts its files: after a power loss
	// they must not be there in name only.
	if err := syncFS(content); err != nil {
		return p.fault(err, "unpack image %.12s", fingerprint)
	}
	return p.fault(commit(content, p.image(fingerprint)), "unpack image %.12s", fingerprint)
}

func syncFS(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}

// fill makes a content at path from what unpack delivers.
func (p *Pool) fill(ctx context.Context, path string, kind state.VolumeType, unpack Unpack) error {
	if err := p.drv.create(ctx, path); err != nil {
		return err
	}
	// unpack gets an empty directory, as promised.
	if err := os.Remove(filepath.Join(path, nameRootFS)); err != nil {
		return err
	}
	if err := unpack(ctx, path); err != nil {
		return err
	}
	if err := checkContent(path); err != nil {
		return err
	}
	return p.drv.adopt(ctx, path, kind)
}

// checkContent refuses what unpack must not deliver. A link in the place of one
// of our names would lead later steps out of the pool.
func checkContent(path string) error {
	for name, wanted := range map[string]fs.FileMode{nameRootFS: fs.ModeDir, nameMetadata: 0, nameTemplates: fs.ModeDir} {
		info, err := os.Lstat(filepath.Join(path, name))
		switch {
		case errors.Is(err, fs.ErrNotExist) && name == nameRootFS:
			return state.Errorf(state.ErrInvalid, "the image has no directory rootfs")
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case info.Mode().Type() != wanted:
			return state.Errorf(state.ErrInvalid, "%s in the image is not a %s", name, map[bool]string{true: "directory", false: "file"}[wanted == fs.ModeDir])
		}
	}
	return nil
}

// DeleteImage forgets an unpacked image; one that is not there is no error.
// Volumes made from it are not touched: what they share with it stays on disk
// until the last of them is gone.
func (p *Pool) DeleteImage(ctx context.Context, fingerprint string) error {
	if err := cmp.Or(p.usable(), checkFingerprint(fingerprint)); err != nil {
		return err
	}
	unlock, err := p.contents.write(ctx, fingerprint)
	if err != nil {
		return err
	}
	defer unlock()
	if !p.ImagePresent(fingerprint) {
		return nil
	}
	return p.fault(p.drv.dropImage(ctx, fingerprint), "delete image %.12s", fingerprint)
}

// nameRetired marks an image that was deleted while volumes stand on it.
const nameRetired = "retired"

// ImagePresent reports whether the image is unpacked in the pool.
func (p *Pool) ImagePresent(fingerprint string) bool {
	if p.usable() != nil || checkFingerprint(fingerprint) != nil {
		return false
	}
	return exists(p.image(fingerprint)) && !exists(filepath.Join(p.image(fingerprint), nameRetired))
}

// Images returns the fingerprints of the unpacked images, sorted.
func (p *Pool) Images(context.Context) ([]string, error) {
	if err := p.usable(); err != nil {
		return nil, err
	}
	names, err := subdirs(p.in(dirImages))
	if err != nil {
		return nil, p.fault(err, "list images")
	}
	return slices.DeleteFunc(names, func(name string) bool { return !p.ImagePresent(name) }), nil
}
