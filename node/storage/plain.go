package storage

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"

	"muster/node/storage/tree"
	"muster/state"
)

// MakePlain gives an instance's volume a root file system of its own files, if it is a
// stack of layers: the kernel takes no overlay as the upper directory of another, so what
// stacks overlays inside (Docker, Podman) needs one that is none. It copies every file
// once; from then on the volume, its snapshots and its copies are as in a pool of driver
// dir. The volume must not be mounted (ErrConflict). Pools of the other drivers have
// nothing to do.
func (p *Pool) MakePlain(ctx context.Context, vol Volume) error {
	if err := cmp.Or(p.usable(), vol.checkLive()); err != nil {
		return err
	}
	unlock, err := p.changing(ctx, vol)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.need(vol); err != nil {
		return err
	}
	if p.stacks(vol) {
		err = p.unstack(ctx, vol)
	}
	return p.fault(err, "give %s files of its own", vol)
}

// Stacks reports whether the volume's root file system is an overlay.
func (p *Pool) Stacks(vol Volume) bool { return p.usable() == nil && p.stacks(vol) }

func (p *Pool) stacks(vol Volume) bool {
	if p.driverName != driverOverlay || vol.Type != state.VolumeContainer {
		return false
	}
	c, err := readChain(p.content(vol))
	return c != nil || err != nil
}

func (p *Pool) unstack(ctx context.Context, vol Volume) error {
	if err := p.quiesce(ctx, vol); err != nil {
		return err
	}
	stage, err := p.staged()
	if err != nil {
		return err
	}
	// After the exchange this is the volume as it was before.
	defer p.tidy(ctx, stage)
	content := filepath.Join(stage, nameLive)
	rootfs := filepath.Join(content, nameRootFS)
	if err := errors.Join(os.Mkdir(content, 0o700), os.Mkdir(rootfs, 0o700)); err != nil {
		return err
	}
	err = p.viewLocked(ctx, vol, false, func(m Mounted) error {
		if err := copyMeta(ctx, m.Dir, content); err != nil {
			return err
		}
		return tree.Copy(ctx, rootfs, m.RootFS, tree.Options{})
	})
	if err != nil {
		return err
	}
	defer p.forget(vol)
	if err := p.passQuota(ctx, p.content(vol), content); err != nil {
		return err
	}
	// Once the old files are gone the new ones must be on the disk.
	if err := syncFS(content); err != nil {
		return err
	}
	return exchange(content, p.content(vol))
}
