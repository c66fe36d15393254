package cluster

import (
	"context"
	"maps"
	"strings"

	"muster/state"
	"muster/state/store"
)

// InstanceChange is what users may edit of an instance; it replaces all of it.
type InstanceChange struct {
	Architecture string
	Description  string
	Ephemeral    bool
	Config       state.Config
	Devices      state.Devices
	Profiles     []string
}

// UpdateInstance replaces what users may edit of an instance and applies at once
// what can be changed while it runs. An expect that is not zero must be the
// instance's revision (ErrStale). When the host refuses, nothing is recorded.
func (c *Cluster) UpdateInstance(ctx context.Context, project, name string, change InstanceChange, expect state.Revision) error {
	inst, err := c.hold(ctx, project, name, "update")
	if err != nil {
		return err
	}
	defer inst.release()
	if expect != 0 && expect != inst.Revision {
		return state.Errorf(state.ErrStale, "the ETag does not match: instance %q changed since it was read", name)
	}
	after, err := c.planUpdate(inst, change, expect != 0)
	if err != nil {
		return err
	}
	afterNode, err := nodeInstance(c.store.View(), after)
	if err != nil {
		return err
	}
	if err := c.node.Try(ctx, inst.node, afterNode); err != nil {
		return err
	}
	volatile, err := c.node.Update(ctx, inst.node, afterNode)
	if err != nil {
		return err
	}
	for key, value := range volatile {
		if value == "" {
			delete(after.Config, key)
		} else {
			after.Config[key] = value
		}
	}
	err = c.finish(ctx, store.UpdateInstance{
		Project: project, Name: name, Architecture: after.Architecture, Description: after.Description,
		Ephemeral: after.Ephemeral, Config: after.Config, Devices: after.Devices, Profiles: after.Profiles, Need: needOf(afterNode),
		ExpectRevision: inst.Revision,
	})
	if err != nil {
		// The host is ahead of the record: bring it back.
		if _, back := c.node.Update(context.WithoutCancel(ctx), afterNode, inst.node); back != nil {
			c.log.Error("take back an update", "instance", name, "error", back)
		}
	}
	return err
}

// CheckUpdate says whether UpdateInstance would accept the change, so that a
// background operation need not be started to refuse it.
func (c *Cluster) CheckUpdate(ctx context.Context, project, name string, change InstanceChange, expect state.Revision) error {
	inst, err := c.Instance(ctx, project, name)
	if err != nil {
		return err
	}
	if inst.Busy != "" {
		return errBusy(inst)
	}
	if expect != 0 && expect != inst.Revision {
		return state.Errorf(state.ErrStale, "the ETag does not match: instance %q changed since it was read", name)
	}
	_, err = c.planUpdate(&held{Instance: inst}, change, expect != 0)
	return err
}

// UpdateInstanceLater is UpdateInstance in the background, refused at once when
// it can be.
func (c *Cluster) UpdateInstanceLater(ctx context.Context, project, name string, change InstanceChange, expect state.Revision) (OperationInfo, error) {
	if err := c.CheckUpdate(ctx, project, name, change, expect); err != nil {
		return OperationInfo{}, err
	}
	later := func(ctx context.Context, op *Operation) error {
		err := c.UpdateInstance(ctx, project, name, change, expect)
		if err == nil {
			c.warn(ctx, op, project, name)
		}
		return err
	}
	if expect != 0 {
		// Of several changes of one version all but one are refused at once: they are
		// made within the request, which has a status for that.
		if err := c.UpdateInstance(ctx, project, name, change, expect); err != nil {
			return OperationInfo{}, err
		}
		later = func(ctx context.Context, op *Operation) error {
			c.warn(ctx, op, project, name)
			return nil
		}
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: "Updating instance", Project: project, Resources: instanceResources(project, name),
	}, later)
}

// planUpdate is the instance as it will be. A change is exact when it was made from the
// instance as it is.
func (c *Cluster) planUpdate(inst *held, change InstanceChange, exact bool) (*state.Instance, error) {
	after := *inst.Instance
	after.Memo = nil
	after.Description, after.Ephemeral = change.Description, change.Ephemeral
	if change.Architecture != "" {
		after.Architecture = change.Architecture
	}
	after.Config = maps.Clone(change.Config)
	if after.Config == nil {
		after.Config = state.Config{}
	}
	maps.DeleteFunc(after.Config, func(_, value string) bool { return value == "" })
	if err := keepVolatile(inst.Config, after.Config, exact); err != nil {
		return nil, err
	}
	after.Devices = change.Devices
	if after.Devices == nil {
		after.Devices = state.Devices{}
	}
	after.Profiles = change.Profiles
	if after.Profiles == nil {
		after.Profiles = []string{}
	}
	view := c.store.View()
	if err := c.checkInstance(view, &after); err != nil {
		return nil, err
	}
	before, err := claimsOfInstance(view, inst.Instance)
	if err != nil {
		before = nil // one of its profiles is gone
	}
	if err := checkClaims(view, &after, before); err != nil {
		return nil, err
	}
	return &after, nil
}

// keepVolatile takes the volatile keys over, which are ours: a client that leaves them out
// does not mean to remove them. One that changes them is told, if it knows them as they
// are; other clients read the instance some time ago, and write back what it was then.
func keepVolatile(is, next state.Config, exact bool) error {
	for key, given := range next {
		if !strings.HasPrefix(key, "volatile.") || given == is[key] || key == "volatile.apply_template" || strings.HasSuffix(key, ".hwaddr") {
			continue
		}
		if exact {
			return state.Errorf(state.ErrInvalid, "config key %q is the server's: leave it as it is", key)
		}
		delete(next, key)
	}
	for key, value := range is {
		if _, set := next[key]; !set && strings.HasPrefix(key, "volatile.") {
			next[key] = value
		}
	}
	return nil
}
