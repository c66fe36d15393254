package node

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"muster/node/image"
	"muster/node/storage"
	"muster/state"
)

// applyTemplate is the volatile key that says which templates the next start is
// to render besides its own. A new root file system need then not be mounted
// only to write two files.
const applyTemplate = "volatile.apply_template"

// Source says what a new root file system is made from: one field is set, or
// none for an empty one.
type Source struct {
	// Image is a fingerprint; the image's files are on this machine.
	Image string
	// Copy is another instance of this machine.
	Copy *CopySource
}

// CopySource is what to copy.
type CopySource struct {
	From Instance
	// Snapshot is a snapshot of From, or empty for From as it is now.
	Snapshot string
	// Snapshots are the snapshots of From to copy along.
	Snapshots []string
}

// Progress is told what is being done and how far it is; total is zero when
// unknown.
type Progress func(stage string, done, total int64)

// Create makes the instance's root file system and returns the volatile keys to
// record. After an error Delete removes what may be left.
func (n *Node) Create(ctx context.Context, inst Instance, source Source, progress Progress) (state.Config, error) {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return nil, err
	}
	volatile := n.hwaddrs(inst)
	switch {
	case source.Image != "":
		if err := n.ensureImage(ctx, pool, source.Image, progress); err != nil {
			return nil, err
		}
		if err := pool.CreateFromImage(ctx, volume, source.Image); err != nil {
			return nil, fmt.Errorf("create the root file system: %w", err)
		}
		volatile[applyTemplate] = string(image.TriggerCreate)
	case source.Copy != nil:
		if err := n.copyVolume(ctx, pool, volume, *source.Copy); err != nil {
			return nil, fmt.Errorf("copy the root file system: %w", err)
		}
		if inst.Config[applyTemplate] == "" {
			volatile[applyTemplate] = string(image.TriggerCopy)
		}
	default:
		if err := pool.CreateEmpty(ctx, volume); err != nil {
			return nil, fmt.Errorf("create the root file system: %w", err)
		}
	}
	if err := n.applyNewRootSize(ctx, inst, pool, volume); err != nil {
		return nil, err
	}
	if err := n.claimAddresses(ctx, inst.with(volatile)); err != nil {
		return nil, err
	}
	return volatile, nil
}

// ensureImage unpacks the image in the pool if it is not there yet.
func (n *Node) ensureImage(ctx context.Context, pool *storage.Pool, fingerprint string, progress Progress) error {
	err := pool.EnsureImage(ctx, fingerprint, func(ctx context.Context, dir string) error {
		return n.cfg.Images.Unpack(ctx, fingerprint, dir, func(written int64) {
			if progress != nil {
				progress("unpack", written, 0)
			}
		})
	})
	if err != nil {
		return fmt.Errorf("unpack image %.12s: %w", fingerprint, err)
	}
	return nil
}

func (n *Node) copyVolume(ctx context.Context, pool *storage.Pool, volume storage.Volume, source CopySource) error {
	from, fromVolume, err := n.volume(ctx, source.From)
	if err != nil {
		return err
	}
	if source.Snapshot != "" {
		fromVolume = fromVolume.At(source.Snapshot)
	}
	return pool.Copy(ctx, volume, from, fromVolume, source.Snapshots)
}

// applyNewRootSize limits a new root file system as its device says, or as the pool says
// for new volumes.
func (n *Node) applyNewRootSize(ctx context.Context, inst Instance, pool *storage.Pool, volume storage.Volume) error {
	_, root, err := RootDisk(inst.Devices)
	if err != nil || root["size"] != "" {
		return n.applyRootSize(ctx, inst, pool, volume)
	}
	size, err := pool.NewVolumeSize()
	if err != nil || size == 0 {
		return err
	}
	return pool.SetQuota(ctx, volume, size)
}

// applyRootSize limits the root file system as its device says.
func (n *Node) applyRootSize(ctx context.Context, inst Instance, pool *storage.Pool, volume storage.Volume) error {
	_, root, err := RootDisk(inst.Devices)
	if err != nil || root["size"] == "" {
		return err
	}
	size, err := state.ParseSize(root["size"])
	if err != nil {
		return err
	}
	return pool.SetQuota(ctx, volume, size)
}

// Delete removes everything that the instance has on this machine: root file
// system, snapshots, logs. What is gone already, or only half there, is no
// error, so that a deletion can be repeated. The instance must not run.
func (n *Node) Delete(ctx context.Context, inst Instance) error {
	if err := n.cfg.Runtime.Remove(ctx, inst.HostName()); err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	n.releaseAddresses(ctx, inst.HostName())
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return err
	}
	// One that was still on its way here goes too.
	if err := pool.Abandon(ctx, volume); err != nil {
		return err
	}
	if err := pool.DeleteVolume(ctx, volume); err != nil {
		return err
	}
	return n.removeLogs(inst)
}

// Rename gives the instance's things on this machine the new name. It can be
// repeated after a crash half-way. The instance must not run. It returns the
// volatile keys to record.
func (n *Node) Rename(ctx context.Context, inst Instance, newName string) (state.Config, error) {
	renamed := inst
	renamed.Name = newName
	if err := n.cfg.Runtime.Rename(ctx, inst.HostName(), renamed.HostName()); err != nil {
		return nil, err
	}
	if err := n.renameLogs(inst, renamed); err != nil {
		return nil, err
	}
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return nil, err
	}
	if pool.VolumePresent(volume) {
		if err := pool.Rename(ctx, volume, renamed.HostName()); err != nil {
			return nil, err
		}
	}
	n.releaseAddresses(ctx, inst.HostName())
	n.keepAddresses(ctx, renamed)
	volatile := NewInstanceID()
	if inst.Config[applyTemplate] == "" {
		volatile[applyTemplate] = string(image.TriggerRename)
	}
	return volatile, nil
}

// hwaddrs gives each nic that has no address of its own, nor a recorded one, a
// new one.
func (n *Node) hwaddrs(inst Instance) state.Config {
	volatile := state.Config{}
	for _, name := range deviceNames(inst.Devices) {
		device := inst.Devices[name]
		key := "volatile." + name + ".hwaddr"
		if device["type"] == "nic" && device["hwaddr"] == "" && inst.Config[key] == "" {
			volatile[key] = n.cfg.Networks.NewHWAddr()
		}
	}
	return volatile
}

// with returns the instance with volatile keys laid over its configuration; an
// empty value removes the key.
func (i Instance) with(volatile state.Config) Instance {
	config := maps.Clone(i.Config)
	if config == nil {
		config = state.Config{}
	}
	for key, value := range volatile {
		if value == "" {
			delete(config, key)
		} else {
			config[key] = value
		}
	}
	i.Config = config
	return i
}
