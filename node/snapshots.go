package node

import (
	"context"
	"errors"

	"muster/state"
)

// Snapshot keeps the root file system as it is now. A running instance is frozen
// meanwhile, so that the copy is of one moment.
func (n *Node) Snapshot(ctx context.Context, inst Instance, name string) error {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return err
	}
	status, err := n.Status(ctx, inst)
	if err != nil {
		return err
	}
	if status == state.StatusRunning && pool.DriverName() != "btrfs" {
		if err := n.Freeze(ctx, inst); err != nil {
			return err
		}
		defer func() {
			if err := n.Unfreeze(context.WithoutCancel(ctx), inst); err != nil && !errors.Is(err, state.ErrNotFound) {
				n.log.Error("unfreeze after snapshot", "instance", inst.HostName(), "error", err)
			}
		}()
	}
	return pool.Snapshot(ctx, volume.At(name))
}

// DeleteSnapshot removes a snapshot; one that is gone already is no error.
func (n *Node) DeleteSnapshot(ctx context.Context, inst Instance, name string) error {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return err
	}
	return pool.DeleteVolume(ctx, volume.At(name))
}

// RenameSnapshot can be repeated after a crash.
func (n *Node) RenameSnapshot(ctx context.Context, inst Instance, name, newName string) error {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return err
	}
	if !pool.VolumePresent(volume.At(name)) && pool.VolumePresent(volume.At(newName)) {
		return nil
	}
	return pool.Rename(ctx, volume.At(name), newName)
}

// Restore makes the root file system what it was at the snapshot. The instance
// must not run.
func (n *Node) Restore(ctx context.Context, inst Instance, name string) error {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return err
	}
	return pool.Restore(ctx, volume.At(name))
}

// HasSnapshot reports whether the snapshot is there.
func (n *Node) HasSnapshot(ctx context.Context, inst Instance, name string) (bool, error) {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return false, err
	}
	return pool.VolumePresent(volume.At(name)), nil
}
