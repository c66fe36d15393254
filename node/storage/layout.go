package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"muster/node/storage/tree"
	"muster/state"
)

// The layout of a pool, the same for every driver:
//
//	pool.json                          what the pool is
//	images/<fingerprint>               an unpacked image
//	containers/<name>/live             an instance's volume
//	containers/<name>/snapshots/<s>    a snapshot of it
//	custom/<name>/…                    the same for custom volumes
//	layers/<id>/{diff,work}            overlay's layers
//	staging/<random>                   what is being made
//	incoming/<type>-<name>             a volume that comes from another member
//	trash/<random>                     what is being removed
//	mounts/…/rootfs                    where volumes are mounted
//	mounts/idmaps/<random>             passing mounts of layers with other ids
//	mounts/gone/<random>               mounts of volumes that are going
//
// mounts is a small file system in memory: a full pool must not keep a volume
// from being mounted, and it goes with the mounts when the machine stops.
//
// An image, a volume and a snapshot are each a directory that the driver fills
// (its content). Each comes into being by one rename out of staging and ends by
// one rename into trash, so a crash leaves either all of it or none.
const (
	dirImages   = "images"
	dirCustom   = "custom"
	dirInstance = "containers"
	dirLayers   = "layers"
	dirStaging  = "staging"
	dirIncoming = "incoming"
	dirTrash    = "trash"
	dirMounts   = "mounts"
	dirOther    = "other"  // in mounts
	dirIDMaps   = "idmaps" // in mounts
	dirGone     = "gone"   // in mounts

	nameLive      = "live"
	nameSnapshots = "snapshots"
	nameRootFS    = "rootfs"
	nameMetadata  = "metadata.yaml"
	nameTemplates = "templates"
	markerFile    = "pool.json"
)

// poolDirs are made with the pool. Only those that lead to mounts can be
// crossed by anybody but root: the files of images and volumes keep their owner
// and set-uid bits on disk, which must not work for the host's users.
var poolDirs = map[string]fs.FileMode{
	dirImages: 0o700, dirCustom: 0o700, dirInstance: 0o700, dirLayers: 0o700,
	dirStaging: 0o700, dirIncoming: 0o700, dirTrash: 0o700, dirMounts: 0o711,
}

// maxName leaves room in a directory entry for what we append to names. Nothing is
// appended to those of snapshots.
const (
	maxName         = 200
	maxSnapshotName = 255
)

// checkName refuses what must not become the name of a directory.
func checkName(what, name string) error {
	most := maxName
	if what == "snapshot" {
		most = maxSnapshotName
	}
	switch {
	case name == "":
		return state.Errorf(state.ErrInvalid, "the %s needs a name", what)
	case len(name) > most:
		return state.Errorf(state.ErrInvalid, "the name of the %s is longer than %d bytes", what, most)
	case name == "." || name == "..", strings.ContainsRune(name, '/'):
		return state.Errorf(state.ErrInvalid, "the name %q of the %s must not be a path", name, what)
	}
	for _, r := range name {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return state.Errorf(state.ErrInvalid, "the name %q of the %s has a character that cannot be printed", name, what)
		}
	}
	return nil
}

func (v Volume) check() error {
	switch v.Type {
	case state.VolumeContainer, state.VolumeCustom:
	default:
		return state.Errorf(state.ErrInvalid, "volume %q has type %q; the types are container and custom", v.Name, v.Type)
	}
	if err := checkName("volume", v.Name); err != nil {
		return err
	}
	if v.Snapshot != "" {
		return checkName("snapshot", v.Snapshot)
	}
	return nil
}

// checkLive refuses snapshots.
func (v Volume) checkLive() error {
	if v.Snapshot != "" {
		return state.Errorf(state.ErrInvalid, "%s is a snapshot; this needs a volume", v)
	}
	return v.check()
}

// checkSnapshot refuses what is not a snapshot.
func (v Volume) checkSnapshot() error {
	if v.Snapshot == "" {
		return state.Errorf(state.ErrInvalid, "%s is a volume; this needs a snapshot", v)
	}
	return v.check()
}

// what names v in an error.
func (v Volume) what() string {
	switch {
	case v.Snapshot != "":
		return "snapshot"
	case v.Type == state.VolumeCustom:
		return "custom volume"
	}
	return "volume"
}

func checkFingerprint(fingerprint string) error {
	if len(fingerprint) != 64 || strings.Trim(fingerprint, "0123456789abcdef") != "" {
		return state.Errorf(state.ErrInvalid, "image fingerprint %q is not 64 lower-case hex digits", fingerprint)
	}
	return nil
}

// in returns a path inside the pool.
func (p *Pool) in(parts ...string) string {
	return filepath.Join(append([]string{p.root}, parts...)...)
}

func folder(t state.VolumeType) string {
	if t == state.VolumeCustom {
		return dirCustom
	}
	return dirInstance
}

// family is the directory of a volume with its snapshots.
func (p *Pool) family(v Volume) string { return p.in(folder(v.Type), v.Name) }

// content is the directory of the volume or snapshot itself.
func (p *Pool) content(v Volume) string {
	if v.Snapshot != "" {
		return filepath.Join(p.family(v), nameSnapshots, v.Snapshot)
	}
	return filepath.Join(p.family(v), nameLive)
}

func (p *Pool) image(fingerprint string) string { return p.in(dirImages, fingerprint) }

// key names v among locks.
func (v Volume) key() string { return string(v.Type) + "/" + v.Name + "/" + v.Snapshot }

// staged makes a new directory in staging.
func (p *Pool) staged() (string, error) {
	dir := p.in(dirStaging, rand.Text())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, nil
}

// commit gives what was made in staging its place, which must be free.
func commit(from, to string) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
}

// exchange swaps two directories.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// bin moves what is at path into trash and returns where it is now, or "" when
// there was nothing.
func (p *Pool) bin(path string) (string, error) {
	to := p.in(dirTrash, rand.Text())
	err := os.Rename(path, to)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return to, err
}

// discard removes a directory in staging or trash with all contents in it.
func (p *Pool) discard(ctx context.Context, path string) error {
	if path == "" {
		return nil
	}
	if p.drv.isContent(path) {
		return p.drv.remove(ctx, path)
	}
	inside, err := subdirs(path)
	if err != nil {
		return err
	}
	for _, name := range inside {
		if err := p.discard(ctx, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return tree.Remove(path)
}

// tidy discards what a failed or finished change left in staging. The change
// may have failed because ctx ended, so the clean-up does not end with it; what
// it cannot remove is left to Reconcile.
func (p *Pool) tidy(ctx context.Context, path string) {
	if err := p.discard(context.WithoutCancel(ctx), path); err != nil {
		p.log.Warn("leftovers stay until the next start", "path", path, "error", err)
	}
}

// exists reports whether there is anything at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// subdirs returns the names of the directories in dir; none when dir is absent.
func subdirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
