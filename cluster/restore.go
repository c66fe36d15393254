package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"muster/node"
	"muster/state"
	"muster/state/store"
)

// restoreInput is what the intent of a restore keeps.
type restoreInput struct {
	Snapshot string `json:"snapshot"`
	// Running says to start the instance again afterwards.
	Running bool `json:"running"`
}

// RestoreSnapshot makes an instance what it was when the snapshot was taken, in
// the background. A running instance is stopped for it and started again. Profiles that
// are no longer there are left out. A device whose network or pool is no longer there
// stays, and keeps the instance from starting. The operation's metadata lists both as
// "warnings".
func (c *Cluster) RestoreSnapshot(ctx context.Context, project, instance, name string) (OperationInfo, error) {
	inst, err := c.Instance(ctx, project, instance)
	if err != nil {
		return OperationInfo{}, err
	}
	if inst.Busy != "" {
		return OperationInfo{}, errBusy(inst)
	}
	if err := c.freeSnapshot(ctx, project, instance, name); err != nil {
		return OperationInfo{}, err
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: "Restoring snapshot", Project: project, Resources: snapshotResources(project, instance, name),
	}, func(ctx context.Context, op *Operation) error {
		return c.restore(ctx, project, instance, name, op)
	})
}

func (c *Cluster) restore(ctx context.Context, project, instance, name string, op *Operation) error {
	inst, err := c.hold(ctx, project, instance, "restore")
	if err != nil {
		return err
	}
	defer inst.release()
	snapshot, err := c.restorable(ctx, inst, name)
	if err != nil {
		return err
	}
	running := inst.Status != state.StatusStopped
	intent, done, err := c.beginInstance(ctx, inst, "restore", restoreInput{Snapshot: name, Running: running})
	if err != nil {
		return err
	}
	defer done()
	if running {
		volatile, err := c.node.Stop(ctx, inst.node, forced)
		if err != nil {
			c.end(ctx, intent)
			return err
		}
		if err := c.record(ctx, inst.Instance, state.StatusStopped, volatile, ""); err != nil {
			c.end(ctx, intent)
			return err
		}
	}
	// From here on it is carried through: half a restore helps nobody.
	ctx = context.WithoutCancel(ctx)
	if err := c.node.Restore(ctx, inst.node, name); err != nil {
		c.end(ctx, intent)
		return err
	}
	missing, err := c.recordRestore(ctx, inst.Instance, snapshot, intent)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		op.UpdateMetadata(map[string]any{"warnings": missing})
	}
	if !running {
		return nil
	}
	fresh, err := c.Instance(ctx, project, instance)
	if err != nil {
		return err
	}
	expanded, err := nodeInstance(c.store.View(), fresh)
	if err != nil {
		return err
	}
	if err := c.start(ctx, &held{Instance: fresh, node: expanded}); err != nil {
		return fmt.Errorf("instance %q was restored and does not start: %w", instance, err)
	}
	return nil
}

// restorable refuses a restore that can't succeed, before anything is recorded of it.
func (c *Cluster) restorable(ctx context.Context, inst *held, name string) (*state.Snapshot, error) {
	snapshot, err := c.Snapshot(ctx, inst.Project, inst.Name, name)
	if err != nil {
		return nil, err
	}
	there, err := c.node.HasSnapshot(ctx, inst.node, name)
	if err == nil && !there {
		err = state.Errorf(state.ErrNotFound, "snapshot %q of instance %q is recorded, but its files are gone: delete it", name, inst.Name)
	}
	if err != nil {
		return nil, err
	}
	_, _, err = c.restored(inst.Instance, snapshot)
	return snapshot, err
}

// restored is the instance as the snapshot has it, without the profiles that are no longer
// there. It keeps its volatile keys and its root disk, which is where its files are. A
// sentence in missing tells of each profile, and of each network and pool of a device, that
// is no longer there.
func (c *Cluster) restored(inst *state.Instance, snapshot *state.Snapshot) (after *state.Instance, missing []string, err error) {
	view := c.store.View()
	restored := *inst
	after = &restored
	after.Memo = nil
	after.Architecture, after.Description, after.Ephemeral = snapshot.Architecture, snapshot.Description, snapshot.Ephemeral
	after.Config, after.Profiles = state.Config{}, []string{}
	volatile := func(key string) bool { return strings.HasPrefix(key, "volatile.") }
	maps.Copy(after.Config, snapshot.Config)
	maps.DeleteFunc(after.Config, func(key, _ string) bool { return volatile(key) })
	for key, value := range inst.Config {
		if volatile(key) {
			after.Config[key] = value
		}
	}
	for _, name := range snapshot.Profiles {
		if _, err := view.Profile(inst.Project, name); err == nil {
			after.Profiles = append(after.Profiles, name)
		} else {
			missing = append(missing, fmt.Sprintf("profile %q is no longer there: the instance is without it", name))
		}
	}
	after.Devices = maps.Clone(snapshot.Devices)
	if after.Devices == nil {
		after.Devices = state.Devices{}
	}
	if err := keepRootDisk(view, inst, after); err != nil {
		return nil, nil, err
	}
	_, devices, err := expand(view, after.Project, after.Profiles, after.Config, after.Devices)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		device := devices[name]
		if network := device["network"]; device["type"] == "nic" && network != "" {
			if _, err := view.Network(state.DefaultProject, network); err != nil {
				missing = append(missing, fmt.Sprintf("device %q: network %q is no longer there: change the device before the instance starts", name, network))
			}
		}
		if pool := device["pool"]; device["type"] == "disk" && pool != "" {
			if _, err := view.Pool(pool); err != nil {
				missing = append(missing, fmt.Sprintf("device %q: storage pool %q is no longer there: change the device before the instance starts", name, pool))
			}
		}
	}
	return after, missing, nil
}

// withoutGone leaves out of the copy of a snapshot the profiles that the snapshot names and
// that are no longer there, as a restore does: clients name them because the snapshot does.
// A copy that has no root disk then gets that of the source.
func withoutGone(view *store.View, from *state.Instance, named []string, spec *InstanceSpec) error {
	gone := func(name string) bool {
		_, err := view.Profile(from.Project, name)
		return err != nil && slices.Contains(named, name)
	}
	if !slices.ContainsFunc(spec.Profiles, gone) {
		return nil
	}
	spec.Profiles = slices.DeleteFunc(slices.Clone(spec.Profiles), gone)
	_, devices, err := expand(view, spec.Project, spec.Profiles, spec.Config, spec.Devices)
	if err != nil {
		return err
	}
	if _, _, err := node.RootDisk(devices); err == nil {
		return nil
	}
	copied := &state.Instance{Project: spec.Project, Profiles: spec.Profiles, Config: spec.Config, Devices: maps.Clone(spec.Devices)}
	if copied.Devices == nil {
		copied.Devices = state.Devices{}
	}
	if err := keepRootDisk(view, from, copied); err != nil {
		return err
	}
	spec.Devices = copied.Devices
	return nil
}

// keepRootDisk gives after the root disk of before as its own when its profiles or devices
// say nothing else of it, or another pool: the files stay in the pool where they are.
func keepRootDisk(view *store.View, before, after *state.Instance) error {
	_, devices, err := expand(view, before.Project, before.Profiles, before.Config, before.Devices)
	if err != nil {
		return err
	}
	name, root, err := node.RootDisk(devices)
	if err != nil {
		return err
	}
	_, devices, err = expand(view, after.Project, after.Profiles, after.Config, after.Devices)
	if err != nil {
		return err
	}
	pool := root["pool"]
	if other, then, err := node.RootDisk(devices); err == nil {
		if then["pool"] == pool {
			return nil
		}
		name, root = other, then
	}
	for devices[name] != nil && devices[name]["path"] != "/" {
		name += "-root" // another device has the name
	}
	after.Devices[name] = maps.Clone(root)
	after.Devices[name]["pool"] = pool
	return nil
}

// recordRestore gives the instance what the snapshot has and ends the intent. It returns
// sentences about what is no longer there.
func (c *Cluster) recordRestore(ctx context.Context, inst *state.Instance, snapshot *state.Snapshot, intent string) (missing []string, err error) {
	for range 3 {
		now, err := c.store.View().Instance(inst.Project, inst.Name)
		if err != nil {
			return nil, err
		}
		var after *state.Instance
		if after, missing, err = c.restored(now, snapshot); err != nil {
			return nil, err
		}
		expanded, err := nodeInstance(c.store.View(), after)
		if err != nil {
			return nil, err
		}
		before, err := nodeInstance(c.store.View(), now)
		if err != nil {
			return nil, err
		}
		maps.Copy(after.Config, node.InstanceIDAfter(before, expanded))
		err = c.finish(ctx, store.UpdateInstance{
			Project: after.Project, Name: after.Name, Architecture: after.Architecture, Description: after.Description,
			Ephemeral: after.Ephemeral, Config: after.Config, Devices: after.Devices, Profiles: after.Profiles, Need: needOf(expanded),
			AnyTarget: true, IntentID: intent,
			Hint: store.Hint{Action: "instance-restored", Context: map[string]any{"snapshot": snapshot.Name}},
		})
		if err == nil {
			// Its nics may ask for other addresses than before.
			if err := c.node.KeepAddresses(ctx, expanded); err != nil {
				c.log.Warn("keep the addresses of a restored instance; its start is refused unless it can be done", "instance", after.Name, "error", err)
			}
		}
		if !errors.Is(err, state.ErrNotFound) {
			return missing, err
		}
		// A profile went in between: look again.
		if err := c.store.Barrier(ctx); err != nil {
			return nil, err
		}
	}
	return nil, state.Errorf(state.ErrConflict, "the profiles of instance %q are being deleted: restore it again", inst.Name)
}
