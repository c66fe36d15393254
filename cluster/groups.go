package cluster

import (
	"context"

	"muster/state"
	"muster/state/store"
)

// Group returns a cluster group.
func (c *Cluster) Group(_ context.Context, name string) (*state.Group, error) {
	return c.store.View().Group(name)
}

// CreateGroup makes a cluster group with the named members.
func (c *Cluster) CreateGroup(ctx context.Context, group state.Group, members []string) error {
	if !c.Clustered() {
		return errAlone()
	}
	if err := state.ValidateGroupName(group.Name); err != nil {
		return err
	}
	return c.apply(ctx, store.CreateGroup{Group: group, Members: members})
}

// UpdateGroup replaces a group's description and members; see UpdateInstance for expect.
func (c *Cluster) UpdateGroup(ctx context.Context, name, description string, members []string, expect state.Revision) error {
	if !c.Clustered() {
		return errAlone()
	}
	return c.apply(ctx, store.UpdateGroup{Name: name, Description: description, Members: members, ExpectRevision: expect})
}

// RenameGroup gives a group another name.
func (c *Cluster) RenameGroup(ctx context.Context, name, newName string) error {
	if err := state.ValidateGroupName(newName); err != nil {
		return err
	}
	return c.apply(ctx, store.RenameGroup{Name: name, NewName: newName})
}

// DeleteGroup removes a group that no member is in.
func (c *Cluster) DeleteGroup(ctx context.Context, name string) error {
	return c.apply(ctx, store.DeleteGroup{Name: name})
}
