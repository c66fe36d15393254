package storage

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"muster/state"
)

// Snapshot keeps vol.Live() as it is now under the name vol.Snapshot. The
// volume may be in use: the snapshot is then what a crash at this moment would
// leave, taken at one instant on btrfs and file by file elsewhere (freeze the
// container to have one instant everywhere).
func (p *Pool) Snapshot(ctx context.Context, vol Volume) error {
	if err := cmp.Or(p.usable(), vol.checkSnapshot()); err != nil {
		return err
	}
	unlock, err := p.contents.read(ctx, vol.Live().key())
	if err != nil {
		return err
	}
	defer unlock()
	return p.addSnapshot(ctx, vol, func(content string) error {
		return p.deriveVolume(ctx, vol.Live(), content)
	})
}

// addSnapshot makes a snapshot of an existing volume, held for reading, out of
// the content that build makes.
func (p *Pool) addSnapshot(ctx context.Context, vol Volume, build func(content string) error) error {
	if err := p.need(vol.Live()); err != nil {
		return err
	}
	taken := state.Errorf(state.ErrExists, "snapshot %s exists on storage pool %s", vol, p.name)
	if exists(p.content(vol)) {
		return taken
	}
	stage, err := p.staged()
	if err != nil {
		return p.fault(err, "create snapshot %s", vol)
	}
	defer p.tidy(ctx, stage)
	content := filepath.Join(stage, nameLive)
	if err := build(content); err != nil {
		return p.fault(err, "create snapshot %s", vol)
	}
	err = commit(content, p.content(vol))
	if errors.Is(err, fs.ErrExist) {
		return taken
	}
	return p.fault(err, "create snapshot %s", vol)
}

// Restore makes vol.Live() what it was at the snapshot. The volume must not be
// mounted. Its other snapshots stay, and so does its quota.
func (p *Pool) Restore(ctx context.Context, vol Volume) error {
	if err := cmp.Or(p.usable(), vol.checkSnapshot()); err != nil {
		return err
	}
	live := vol.Live()
	unlock, err := p.changing(ctx, live)
	if err != nil {
		return err
	}
	defer unlock()
	if err := cmp.Or(p.need(live), p.need(vol)); err != nil {
		return err
	}
	if err := p.quiesce(ctx, live); err != nil {
		return err
	}
	stage, err := p.staged()
	if err != nil {
		return p.fault(err, "restore %s", vol)
	}
	// After the exchange this is the volume as it was before.
	defer p.tidy(ctx, stage)
	content := filepath.Join(stage, nameLive)
	if err := p.deriveVolume(ctx, vol, content); err != nil {
		return p.fault(err, "restore %s", vol)
	}
	defer p.forget(vol)
	if err := p.passQuota(ctx, p.content(live), content); err != nil {
		return p.fault(err, "restore %s", vol)
	}
	return p.fault(exchange(content, p.content(live)), "restore %s", vol)
}

// passQuota gives one content the limit of another.
func (p *Pool) passQuota(ctx context.Context, from, to string) error {
	limit, err := p.drv.limit(ctx, from)
	if err != nil || limit == 0 {
		return err
	}
	return p.drv.setQuota(ctx, to, limit)
}
