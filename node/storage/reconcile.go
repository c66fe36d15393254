package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"muster/node/storage/mount"
)

// Reconcile brings a mounted pool in order after a crash: it removes staging
// leftovers and the mounts of volumes that are not running, counts one user
// for each running volume, and drops layers that nothing uses any more. The
// daemon calls it once, after Mount and before anything else.
func (p *Pool) Reconcile(ctx context.Context, known Known) (Report, error) {
	unlock, err := p.whole.write(ctx, "pool")
	if err != nil {
		return Report{}, err
	}
	defer unlock()
	var report Report
	if err := p.usable(); err != nil {
		return report, err
	}
	for _, step := range []func(context.Context, Known, *Report) error{
		p.reconcileMounts, p.reconcileLeftovers, p.reconcileImages, p.compare,
	} {
		if err := step(ctx, known, &report); err != nil {
			return report, p.fault(err, "reconcile")
		}
	}
	return report, nil
}

// reconcileMounts keeps the mounts of running volumes and takes down the rest.
func (p *Pool) reconcileMounts(ctx context.Context, known Known, report *Report) error {
	slots, err := p.slots()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for slot, note := range slots {
		mounted, err := mount.At(filepath.Join(slot, nameRootFS))
		if err != nil {
			return err
		}
		if mounted && slices.Contains(known.Running, note.Volume) {
			keep[slot] = true
		}
	}
	p.retiring.Wait()
	inside, err := mount.Table(p.root)
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(inside) {
		if m.Path == p.root || m.Path == p.in(dirMounts) || keep[filepath.Dir(m.Path)] {
			continue
		}
		if err := p.unmountPath(ctx, m.Path); err != nil {
			return err
		}
		report.Unmounted = append(report.Unmounted, m.Path)
	}
	p.mu.Lock()
	for slot := range keep {
		p.users[slot] = 1
	}
	p.mu.Unlock()
	for slot := range slots {
		if !keep[slot] {
			p.dropSlot(slot)
		}
	}
	return nil
}

// reconcileLeftovers removes what was being made or removed.
func (p *Pool) reconcileLeftovers(ctx context.Context, known Known, report *Report) error {
	wanted := map[string]bool{}
	for _, v := range known.Incoming {
		wanted[p.incomingDir(v)] = true
	}
	for _, folder := range []string{dirStaging, dirIncoming, dirTrash} {
		names, err := subdirs(p.in(folder))
		if err != nil {
			return err
		}
		for _, name := range names {
			if wanted[p.in(folder, name)] {
				continue
			}
			if err := p.discard(ctx, p.in(folder, name)); err != nil {
				return err
			}
			report.Removed = append(report.Removed, fmt.Sprintf("%s/%s", folder, name))
		}
	}
	for _, folder := range []string{dirIDMaps, dirGone} {
		names, err := subdirs(p.in(dirMounts, folder))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := unix.Rmdir(p.in(dirMounts, folder, name)); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
			report.Removed = append(report.Removed, fmt.Sprintf("%s/%s/%s", dirMounts, folder, name))
		}
	}
	removed, err := p.drv.reconcile(ctx)
	report.Removed = append(report.Removed, removed...)
	return err
}

func (p *Pool) reconcileImages(ctx context.Context, known Known, report *Report) error {
	if known.Images == nil {
		return nil
	}
	images, err := p.Images(ctx)
	if err != nil {
		return err
	}
	for _, fingerprint := range images {
		if slices.Contains(known.Images, fingerprint) {
			continue
		}
		if err := p.DeleteImage(ctx, fingerprint); err != nil {
			return err
		}
		report.Removed = append(report.Removed, "image "+fingerprint)
	}
	return nil
}

// compare tells what is known and not there, and what is there and not known.
func (p *Pool) compare(ctx context.Context, known Known, report *Report) error {
	have, err := p.Volumes(ctx)
	if err != nil {
		return err
	}
	differences := func(a, b map[Volume][]string) (only []Volume) {
		for v, snapshots := range a {
			if _, ok := b[v]; !ok {
				only = append(only, v)
			}
			for _, s := range snapshots {
				if !slices.Contains(b[v], s) {
					only = append(only, v.At(s))
				}
			}
		}
		slices.SortFunc(only, func(a, b Volume) int { return cmp.Compare(a.key(), b.key()) })
		return only
	}
	report.Missing = differences(known.Volumes, have)
	report.Strangers = differences(have, known.Volumes)
	return nil
}
