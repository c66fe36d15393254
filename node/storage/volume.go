package storage

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"muster/node/storage/tree"
	"muster/state"
)

// CreateEmpty makes a volume whose file system is an empty directory.
func (p *Pool) CreateEmpty(ctx context.Context, vol Volume) error {
	if err := cmp.Or(p.usable(), vol.checkLive()); err != nil {
		return err
	}
	return p.establish(ctx, vol, func(family string) error {
		live := filepath.Join(family, nameLive)
		if err := p.drv.create(ctx, live); err != nil {
			return err
		}
		return p.drv.adopt(ctx, live, vol.Type)
	})
}

// CreateFromImage makes a volume from an unpacked image (ErrNotFound when
// EnsureImage has not been called).
func (p *Pool) CreateFromImage(ctx context.Context, vol Volume, fingerprint string) error {
	if err := cmp.Or(p.usable(), vol.checkLive(), checkFingerprint(fingerprint)); err != nil {
		return err
	}
	if vol.Type != state.VolumeContainer {
		return state.Errorf(state.ErrInvalid, "custom volume %s cannot be made from an image", vol)
	}
	unlock, err := p.contents.read(ctx, fingerprint)
	if err != nil {
		return err
	}
	defer unlock()
	if !p.ImagePresent(fingerprint) {
		return state.Errorf(state.ErrNotFound, "image %.12s is not unpacked on storage pool %s", fingerprint, p.name)
	}
	return p.establish(ctx, vol, func(family string) error {
		return p.derive(ctx, p.image(fingerprint), false, filepath.Join(family, nameLive), vol.Type)
	})
}

// CreateFromUnpack makes a volume, or with vol.Snapshot set a snapshot of an
// existing volume, from what unpack delivers (backup, migration).
func (p *Pool) CreateFromUnpack(ctx context.Context, vol Volume, unpack Unpack) error {
	if err := cmp.Or(p.usable(), vol.check()); err != nil {
		return err
	}
	if vol.Snapshot == "" {
		return p.establish(ctx, vol, func(family string) error {
			return p.fill(ctx, filepath.Join(family, nameLive), vol.Type, unpack)
		})
	}
	unlock, err := p.contents.read(ctx, vol.Live().key())
	if err != nil {
		return err
	}
	defer unlock()
	return p.addSnapshot(ctx, vol, func(content string) error {
		return p.fill(ctx, content, vol.Type, unpack)
	})
}

// establish makes a new volume: build fills a family in staging, which then
// takes its place in one step.
func (p *Pool) establish(ctx context.Context, vol Volume, build func(family string) error) error {
	taken := state.Errorf(state.ErrExists, "%s %s exists on storage pool %s", vol.what(), vol, p.name)
	if exists(p.family(vol)) {
		return taken
	}
	stage, err := p.staged()
	if err != nil {
		return p.fault(err, "create %s", vol)
	}
	defer p.tidy(ctx, stage)
	family := filepath.Join(stage, "family")
	if err := errors.Join(os.Mkdir(family, 0o700), os.Mkdir(filepath.Join(family, nameSnapshots), 0o700)); err != nil {
		return p.fault(err, "create %s", vol)
	}
	if err := build(family); err != nil {
		return p.fault(err, "create %s", vol)
	}
	err = commit(family, p.family(vol))
	if errors.Is(err, fs.ErrExist) {
		return taken
	}
	return p.fault(err, "create %s", vol)
}

// derive makes a content at path from another, src.
func (p *Pool) derive(ctx context.Context, src string, mounted bool, path string, kind state.VolumeType) error {
	from, err := p.drv.hold(ctx, src, mounted)
	if err != nil {
		return err
	}
	defer p.drv.release(context.WithoutCancel(ctx), from)
	return p.drv.clone(ctx, from, path, kind)
}

// deriveVolume makes a content at path from a volume or snapshot. The caller
// holds it for reading.
func (p *Pool) deriveVolume(ctx context.Context, src Volume, path string) error {
	from, err := p.holdVolume(ctx, src)
	if err != nil {
		return err
	}
	defer p.drv.release(context.WithoutCancel(ctx), from)
	return p.drv.clone(ctx, from, path, src.Type)
}

func (p *Pool) holdVolume(ctx context.Context, src Volume) (*origin, error) {
	unlock, err := p.mounting.write(ctx, src.key())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := p.need(src); err != nil {
		return nil, err
	}
	mounted := false
	if src.Snapshot == "" {
		if mounted, err = p.anyMount(src); err != nil {
			return nil, err
		}
	}
	return p.drv.hold(ctx, p.content(src), mounted)
}

// need refuses a volume or snapshot that does not exist.
func (p *Pool) need(vol Volume) error {
	if !exists(p.content(vol)) {
		return state.Errorf(state.ErrNotFound, "%s %s does not exist on storage pool %s", vol.what(), vol, p.name)
	}
	return nil
}

// Copy makes dst from src, a volume or a snapshot of the pool from, which may
// be p itself, and copies the named snapshots of src along. A source in use is
// copied as by a snapshot.
func (p *Pool) Copy(ctx context.Context, dst Volume, from *Pool, src Volume, snapshots []string) error {
	if err := cmp.Or(p.usable(), from.usable(), dst.checkLive(), src.check()); err != nil {
		return err
	}
	if dst.Type != src.Type {
		return state.Errorf(state.ErrInvalid, "%s is a %s volume and %s a %s volume; a copy keeps the type", src, src.Type, dst, dst.Type)
	}
	sources := []Volume{src}
	for _, name := range snapshots {
		snapshot := src.At(name)
		if err := snapshot.checkSnapshot(); err != nil {
			return err
		}
		sources = append(sources, snapshot)
	}
	unlock, err := from.readAll(ctx, sources)
	if err != nil {
		return err
	}
	defer unlock()
	return p.establish(ctx, dst, func(family string) error {
		for i, s := range sources {
			path := filepath.Join(family, nameLive)
			if i > 0 {
				path = filepath.Join(family, nameSnapshots, s.Snapshot)
			}
			if err := p.take(ctx, from, s, path); err != nil {
				return err
			}
		}
		return nil
	})
}

// take makes a content at path from a volume of the pool from.
func (p *Pool) take(ctx context.Context, from *Pool, src Volume, path string) error {
	if from == p {
		return p.deriveVolume(ctx, src, path)
	}
	return from.viewLocked(ctx, src, false, func(m Mounted) error {
		return p.fill(ctx, path, src.Type, func(ctx context.Context, dir string) error {
			if err := copyMeta(ctx, m.Dir, dir); err != nil {
				return err
			}
			rootfs := filepath.Join(dir, nameRootFS)
			if err := os.Mkdir(rootfs, 0o700); err != nil {
				return err
			}
			return tree.Copy(ctx, rootfs, m.RootFS, tree.Options{})
		})
	})
}

// copyMeta copies what a content holds besides its root file system.
func copyMeta(ctx context.Context, src, dst string) error {
	if src == "" {
		return nil
	}
	data, err := readRegular(filepath.Join(src, nameMetadata))
	if err == nil {
		err = os.WriteFile(filepath.Join(dst, nameMetadata), data, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = os.Mkdir(filepath.Join(dst, nameTemplates), 0o700)
	if err == nil {
		err = tree.Copy(ctx, filepath.Join(dst, nameTemplates), filepath.Join(src, nameTemplates), tree.Options{})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return os.Remove(filepath.Join(dst, nameTemplates))
	}
	return err
}

func readRegular(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, state.Errorf(state.ErrInvalid, "%s is not a file", filepath.Base(path))
	}
	return os.ReadFile(path)
}

// readAll locks volumes, and the volumes that snapshots among them are of, for
// reading.
func (p *Pool) readAll(ctx context.Context, volumes []Volume) (unlock func(), err error) {
	var keys []string
	for _, v := range volumes {
		keys = append(keys, v.key(), v.Live().key())
	}
	slices.Sort(keys)
	var unlocks []func()
	unlock = func() {
		for _, u := range unlocks {
			u()
		}
	}
	for _, key := range slices.Compact(keys) {
		u, err := p.contents.read(ctx, key)
		if err != nil {
			unlock()
			return nil, err
		}
		unlocks = append(unlocks, u)
	}
	return unlock, nil
}

// Rename gives a volume with its snapshots, or one snapshot, a new name. A
// volume must not be mounted.
func (p *Pool) Rename(ctx context.Context, vol Volume, name string) error {
	to := vol
	if vol.Snapshot == "" {
		to.Name = name
	} else {
		to.Snapshot = name
	}
	if err := cmp.Or(p.usable(), vol.check(), to.check()); err != nil {
		return err
	}
	if name == "" {
		return checkName(vol.what(), name)
	}
	unlock, err := p.changing(ctx, vol)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.need(vol); err != nil {
		return err
	}
	if err := p.quiesce(ctx, vol); err != nil {
		return err
	}
	defer p.forget(vol)
	source, target := p.family(vol), p.family(to)
	if vol.Snapshot != "" {
		source, target = p.content(vol), p.content(to)
	}
	err = commit(source, target)
	if errors.Is(err, fs.ErrExist) {
		return state.Errorf(state.ErrExists, "%s %s exists on storage pool %s", to.what(), to, p.name)
	}
	return p.fault(err, "rename %s to %s", vol, to)
}

// changing locks a volume for a change that moves, replaces or removes it.
func (p *Pool) changing(ctx context.Context, vol Volume) (unlock func(), err error) {
	if vol.Snapshot == "" {
		return p.contents.write(ctx, vol.key())
	}
	// In the order of their keys: the volume's is a prefix of the snapshot's.
	unlockLive, err := p.contents.read(ctx, vol.Live().key())
	if err != nil {
		return nil, err
	}
	unlockSnapshot, err := p.contents.write(ctx, vol.key())
	if err != nil {
		unlockLive()
		return nil, err
	}
	return func() {
		unlockSnapshot()
		unlockLive()
	}, nil
}

// DeleteVolume removes a volume with all its snapshots, or one snapshot. A
// volume or snapshot that is gone already, or only half there, is no error;
// one that is mounted is ErrConflict.
func (p *Pool) DeleteVolume(ctx context.Context, vol Volume) error {
	if err := cmp.Or(p.usable(), vol.check()); err != nil {
		return err
	}
	unlock, err := p.changing(ctx, vol)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.quiesce(ctx, vol); err != nil {
		return err
	}
	path := p.family(vol)
	if vol.Snapshot != "" {
		path = p.content(vol)
	}
	defer p.forget(vol)
	trash, err := p.bin(path)
	if err != nil {
		return p.fault(err, "delete %s", vol)
	}
	// From here on the volume is gone; if removing its files is interrupted,
	// Reconcile ends it.
	if err := p.discard(context.WithoutCancel(ctx), trash); err != nil || vol.Snapshot == "" {
		return p.fault(err, "delete %s", vol)
	}
	return p.fault(p.compact(ctx, vol.Live()), "delete %s", vol)
}

// compact lets the driver tidy a volume up, unless it is mounted.
func (p *Pool) compact(ctx context.Context, vol Volume) error {
	unlock, err := p.mounting.write(ctx, vol.key())
	if err != nil {
		return err
	}
	defer unlock()
	mounted, err := p.anyMount(vol)
	if err != nil || mounted || !exists(p.content(vol)) {
		return err
	}
	return p.drv.compact(ctx, p.content(vol))
}

// VolumePresent reports whether the volume or snapshot exists.
func (p *Pool) VolumePresent(vol Volume) bool {
	return p.usable() == nil && vol.check() == nil && exists(p.content(vol))
}

// Volumes returns all volumes of the pool with the sorted names of their
// snapshots.
func (p *Pool) Volumes(context.Context) (map[Volume][]string, error) {
	if err := p.usable(); err != nil {
		return nil, err
	}
	volumes := map[Volume][]string{}
	for _, kind := range []state.VolumeType{state.VolumeContainer, state.VolumeCustom} {
		names, err := subdirs(p.in(folder(kind)))
		if err != nil {
			return nil, p.fault(err, "list volumes")
		}
		for _, name := range names {
			v := Volume{Type: kind, Name: name}
			snapshots, err := subdirs(filepath.Join(p.family(v), nameSnapshots))
			if err != nil {
				return nil, p.fault(err, "list the snapshots of %s", v)
			}
			volumes[v] = snapshots
		}
	}
	return volumes, nil
}

// VolumeDir returns the directory that holds the volume's metadata.yaml and
// templates, mounted or not.
func (p *Pool) VolumeDir(vol Volume) (string, error) {
	if err := cmp.Or(p.usable(), vol.check()); err != nil {
		return "", err
	}
	if err := p.need(vol); err != nil {
		return "", err
	}
	return p.content(vol), nil
}

// SetQuota limits the volume to this many bytes; zero lifts the limit. It is
// ErrInvalid where the pool cannot limit volumes; the error names a driver
// that can.
func (p *Pool) SetQuota(ctx context.Context, vol Volume, bytes int64) error {
	if err := cmp.Or(p.usable(), vol.checkLive()); err != nil {
		return err
	}
	if bytes < 0 {
		return state.Errorf(state.ErrInvalid, "volume %s: a size cannot be negative", vol)
	}
	unlock, err := p.contents.read(ctx, vol.key())
	if err != nil {
		return err
	}
	defer unlock()
	unlockMount, err := p.mounting.write(ctx, vol.key())
	if err != nil {
		return err
	}
	defer unlockMount()
	if err := p.need(vol); err != nil {
		return err
	}
	defer p.forget(vol)
	return p.fault(p.drv.setQuota(ctx, p.content(vol), bytes), "limit %s", vol)
}
