package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster/state"
	"muster/state/store"
)

// SnapshotSpec describes a snapshot to take.
type SnapshotSpec struct {
	// Name comes from the instance's snapshots.pattern, or is "snapN", when
	// empty.
	Name string
	// ExpiresAt is from the instance's snapshots.expiry when nil; the zero time
	// never expires.
	ExpiresAt *time.Time
	Stateful  bool
}

func snapshotResources(project, instance, snapshot string) map[string][]string {
	resources := instanceResources(project, instance)
	resources["instances_snapshots"] = []string{resource(project, "instances", instance, "snapshots", snapshot)}
	return resources
}

// CreateSnapshot keeps an instance as it is now, in the background.
func (c *Cluster) CreateSnapshot(ctx context.Context, project, instance string, spec SnapshotSpec) (OperationInfo, error) {
	if spec.Stateful {
		return OperationInfo{}, state.Errorf(state.ErrInvalid, "stateful: keeping the memory of a container is not supported; leave it out")
	}
	inst, err := c.Instance(ctx, project, instance)
	if err != nil {
		return OperationInfo{}, err
	}
	if inst.Busy != "" {
		return OperationInfo{}, errBusy(inst)
	}
	view := c.store.View()
	config, _, err := expand(view, project, inst.Profiles, inst.Config, inst.Devices)
	if err != nil {
		return OperationInfo{}, err
	}
	now := time.Now().UTC()
	if spec.Name == "" {
		spec.Name = freeSnapshotName(view, inst, config["snapshots.pattern"])
	}
	if err := state.ValidateSnapshotName(spec.Name); err != nil {
		return OperationInfo{}, err
	}
	if spec.ExpiresAt == nil && config["snapshots.expiry"] != "" {
		expiry, err := state.ParseExpiry(config["snapshots.expiry"], now)
		if err != nil {
			return OperationInfo{}, err
		}
		spec.ExpiresAt = &expiry
	}
	snapshot := state.Snapshot{Project: project, Instance: instance, Name: spec.Name, CreatedAt: now}
	if spec.ExpiresAt != nil {
		snapshot.ExpiresAt = spec.ExpiresAt.UTC()
	}
	if _, err := view.Snapshot(project, instance, spec.Name); err == nil {
		return OperationInfo{}, state.Errorf(state.ErrExists, "snapshot %q of instance %q already exists", spec.Name, instance)
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: "Snapshotting instance", Project: project, Resources: snapshotResources(project, instance, spec.Name),
	}, func(ctx context.Context, _ *Operation) error {
		return c.createSnapshot(ctx, snapshot)
	})
}

func (c *Cluster) createSnapshot(ctx context.Context, snapshot state.Snapshot) error {
	inst, err := c.hold(ctx, snapshot.Project, snapshot.Instance, "snapshot")
	if err != nil {
		return err
	}
	defer inst.release()
	intent := uuid.NewString()
	defer c.carry(intent)()
	err = c.apply(ctx, store.CreateSnapshot{
		Snapshot: snapshot,
		Intent:   &state.Intent{ID: intent, Kind: "create", Member: inst.Location},
	})
	if err != nil {
		return err
	}
	if err := c.node.Snapshot(ctx, inst.node, snapshot.Name); err != nil {
		c.dropSnapshot(ctx, inst, snapshot.Name, intent, store.NoEvent)
		return err
	}
	return c.finish(ctx, store.FinishSnapshot{
		Project: snapshot.Project, Instance: snapshot.Instance, Name: snapshot.Name, IntentID: intent,
	})
}

// dropSnapshot removes a snapshot from the host and the record; what fails is
// done again later (tendIntents), because the intent stays.
func (c *Cluster) dropSnapshot(ctx context.Context, inst *held, name, intent, event string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
	defer cancel()
	err := c.node.DeleteSnapshot(ctx, inst.node, name)
	if err == nil {
		err = c.apply(ctx, store.DeleteSnapshot{
			Project: inst.Project, Instance: inst.Name, Name: name, IntentID: intent, Hint: store.Hint{Action: event},
		})
	}
	if err != nil {
		c.log.Error("remove a snapshot", "instance", inst.Name, "snapshot", name, "error", err)
	}
}

// freeSnapshotName is the pattern with its counter filled in, or snapN: N is one
// more than the largest in use.
func freeSnapshotName(view *store.View, inst *state.Instance, pattern string) string {
	if pattern == "" || strings.Contains(pattern, "{{") {
		// Patterns with a template are for schedules, which are not there yet.
		pattern = "snap%d"
	}
	if !strings.Contains(pattern, "%d") {
		if _, err := view.Snapshot(inst.Project, inst.Name, pattern); err != nil {
			return pattern
		}
		pattern += "-%d"
	}
	next := 0
	for _, snapshot := range view.Snapshots(inst.Project, inst.Name) {
		var number int
		if _, err := fmt.Sscanf(snapshot.Name, pattern, &number); err == nil && number >= next {
			next = number + 1
		}
	}
	return fmt.Sprintf(pattern, next)
}

// Snapshot returns a snapshot as it is recorded.
func (c *Cluster) Snapshot(_ context.Context, project, instance, name string) (*state.Snapshot, error) {
	view := c.store.View()
	if _, err := view.Instance(project, instance); err != nil {
		return nil, err
	}
	return view.Snapshot(project, instance, name)
}

// UpdateSnapshot replaces when a snapshot expires.
func (c *Cluster) UpdateSnapshot(ctx context.Context, project, instance, name string, expiresAt time.Time, expect state.Revision) error {
	snapshot, err := c.Snapshot(ctx, project, instance, name)
	if err != nil {
		return err
	}
	return c.apply(ctx, store.UpdateSnapshot{
		Project: project, Instance: instance, Name: name, Description: snapshot.Description,
		ExpiresAt: expiresAt, ExpectRevision: expect,
	})
}

// beginSnapshot opens an intent for a snapshot of an instance that the caller holds.
func (c *Cluster) beginSnapshot(ctx context.Context, inst *held, snapshot, kind string, input any) (id string, done func(), err error) {
	return c.begin(ctx, state.Intent{
		Member: inst.Location, Kind: kind, Project: inst.Project, Subject: store.SubjectSnapshot, Name: inst.Name + "/" + snapshot,
	}, input)
}

// freeSnapshot returns a snapshot with nothing under way for it.
func (c *Cluster) freeSnapshot(ctx context.Context, project, instance, name string) error {
	snapshot, err := c.Snapshot(ctx, project, instance, name)
	if err != nil {
		return err
	}
	if snapshot.Busy != "" {
		return state.Errorf(state.ErrConflict, "snapshot %q is busy: %s is under way", name, snapshot.Busy)
	}
	return nil
}

// RenameSnapshot gives a snapshot another name, in the background.
func (c *Cluster) RenameSnapshot(ctx context.Context, project, instance, name, newName string) (OperationInfo, error) {
	if err := state.ValidateSnapshotName(newName); err != nil {
		return OperationInfo{}, err
	}
	if err := c.freeSnapshot(ctx, project, instance, name); err != nil {
		return OperationInfo{}, err
	}
	if _, err := c.store.View().Snapshot(project, instance, newName); err == nil {
		return OperationInfo{}, state.Errorf(state.ErrExists, "snapshot %q of instance %q already exists", newName, instance)
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: "Renaming snapshot", Project: project, Resources: snapshotResources(project, instance, name),
	}, func(ctx context.Context, _ *Operation) error {
		inst, err := c.hold(ctx, project, instance, "rename of a snapshot")
		if err != nil {
			return err
		}
		defer inst.release()
		intent, done, err := c.beginSnapshot(ctx, inst, name, "rename", renameInput{NewName: newName})
		if err != nil {
			return err
		}
		defer done()
		if err := c.node.RenameSnapshot(ctx, inst.node, name, newName); err != nil {
			c.end(ctx, intent)
			return err
		}
		return c.finish(ctx, store.RenameSnapshot{Project: project, Instance: instance, Name: name, NewName: newName, IntentID: intent})
	})
}

// DeleteSnapshot removes a snapshot, in the background.
func (c *Cluster) DeleteSnapshot(ctx context.Context, project, instance, name string) (OperationInfo, error) {
	if err := c.freeSnapshot(ctx, project, instance, name); err != nil {
		return OperationInfo{}, err
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: "Deleting snapshot", Project: project, Resources: snapshotResources(project, instance, name),
	}, func(ctx context.Context, _ *Operation) error {
		return c.deleteSnapshot(ctx, project, instance, name)
	})
}

func (c *Cluster) deleteSnapshot(ctx context.Context, project, instance, name string) error {
	inst, err := c.hold(ctx, project, instance, "removal of a snapshot")
	if err != nil {
		return err
	}
	defer inst.release()
	intent, done, err := c.beginSnapshot(ctx, inst, name, "delete", nil)
	if err != nil {
		return err
	}
	defer done()
	if err := c.node.DeleteSnapshot(context.WithoutCancel(ctx), inst.node, name); err != nil {
		c.end(ctx, intent)
		return err
	}
	return c.finish(ctx, store.DeleteSnapshot{Project: project, Instance: instance, Name: name, IntentID: intent})
}
