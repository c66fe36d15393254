package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"muster/node"
	"muster/node/storage"
	"muster/state"
	"muster/state/store"
)

// StoragePool returns a pool.
func (c *Cluster) StoragePool(ctx context.Context, name string) (*state.Pool, error) {
	return c.store.View().Pool(name)
}

func poolSubject(name string) string { return fmt.Sprintf("storage pool %q", name) }

// poolPart is this member's part of a pool.
func (c *Cluster) poolPart(pool *state.Pool) part {
	here := pool.On(c.Self())
	return part{
		subject: poolSubject(pool.Name), locals: pool.Locals, config: here.Config,
		make: func(ctx context.Context) (state.Config, error) {
			config, err := c.node.CreatePool(ctx, here)
			_, local := state.SplitConfig(config, state.PoolLocalKey)
			return local, err
		},
		change: func(ctx context.Context) error {
			if _, shut := c.node.Pool(ctx, here.Name); shut != nil {
				return c.node.OpenPool(ctx, here, c.known(c.store.View()))
			}
			return c.node.UpdatePool(ctx, here)
		},
		lost: func(ctx context.Context) bool {
			_, shut := c.node.Pool(ctx, here.Name)
			return shut != nil
		},
		remove: func(ctx context.Context) error { return c.node.DeletePool(ctx, here) },
		set: func(local state.Local) store.Command {
			return store.SetPoolLocal{Name: pool.Name, Member: c.Self(), Local: local}
		},
		drop: store.DropPoolLocal{Name: pool.Name, Member: c.Self()},
	}
}

// poolLocals are a pool's parts; none when it is gone.
func poolLocals(name string) func(*store.View) state.Locals {
	return func(view *store.View) state.Locals {
		if pool, err := view.Pool(name); err == nil {
			return pool.Locals
		}
		return nil
	}
}

func checkPool(pool *state.Pool) error {
	if err := state.ValidatePoolName(pool.Name); err != nil {
		return err
	}
	if pool.Driver == "" {
		pool.Driver = state.PoolDrivers[0]
	}
	if err := state.ValidatePoolDriver(pool.Driver); err != nil {
		return err
	}
	if pool.Config == nil {
		pool.Config = state.Config{}
	}
	return storage.Validate(*pool)
}

// DefinePool says what a storage pool will be on this member, before CreatePool makes it
// on all: only keys that differ from member to member may be set.
func (c *Cluster) DefinePool(ctx context.Context, pool state.Pool) error {
	if err := checkPool(&pool); err != nil {
		return err
	}
	whole, local := state.SplitConfig(pool.Config, state.PoolLocalKey)
	for key := range whole {
		return state.Errorf(state.ErrInvalid, "config key %q of a storage pool holds for all members: give it without ?target= (--target)", key)
	}
	if err := c.mustHost(); err != nil {
		return err
	}
	return c.apply(ctx, store.DefinePool{Name: pool.Name, Driver: pool.Driver, Member: c.Self(), Config: local})
}

// CreatePool makes a storage pool on every member, and waits for those that are online.
// When one can't, the pool stays as Errored: it is tried again by itself, with what is
// changed of it, and when it is created once more. A server alone takes it back.
func (c *Cluster) CreatePool(ctx context.Context, pool state.Pool) error {
	if before, err := c.store.View().Pool(pool.Name); err == nil && before.Locals.Errored() && len(pool.Config) == 0 {
		pool.Config, pool.Description = before.Config, before.Description
	}
	if err := checkPool(&pool); err != nil {
		return err
	}
	whole, local := state.SplitConfig(pool.Config, state.PoolLocalKey)
	// The size of what is made is a fair wish for every member; a source is not.
	if local["source"] != "" {
		if err := c.memberKeys("storage pool", local); err != nil {
			return err
		}
	}
	locals, err := c.everywhere(local)
	if err != nil {
		return err
	}
	pool.Config, pool.Locals = whole, locals
	c.keeper.begin(poolSubject(pool.Name))
	if err := c.apply(ctx, store.CreatePool{Pool: pool}); err != nil {
		return err
	}
	err = c.tendPart(ctx, poolSubject(pool.Name), true)
	if others := c.made(ctx, poolSubject(pool.Name), poolLocals(pool.Name)); err == nil {
		err = others
	}
	if err != nil && !errors.Is(err, state.ErrUnavailable) && !c.Clustered() {
		c.dropPool(ctx, pool.Name)
	}
	return err
}

// dropPool takes back a creation that failed.
func (c *Cluster) dropPool(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err := c.apply(ctx, store.DeletePool{Name: name, Hint: store.Hint{Action: store.NoEvent}})
	if err == nil {
		err = c.tendPart(ctx, poolSubject(name), true)
	}
	if err == nil {
		err = c.gone(ctx, poolSubject(name), poolLocals(name))
	}
	if err != nil {
		c.log.Error("take back the creation of a storage pool", "pool", name, "error", err)
	}
}

func (c *Cluster) holdPool(ctx context.Context, name, action string, expect state.Revision) (*state.Pool, func(), error) {
	release, err := c.locks.acquire(ctx, poolSubject(name), action)
	if err != nil {
		return nil, nil, err
	}
	pool, err := c.StoragePool(ctx, name)
	switch {
	case err != nil:
	case pool.Busy != "":
		err = state.Errorf(state.ErrConflict, "storage pool %q is busy: %s is under way", name, pool.Busy)
	case expect != 0 && expect != pool.Revision:
		err = state.Errorf(state.ErrStale, "the ETag does not match: storage pool %q changed since it was read", name)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return pool, release, nil
}

// UpdatePool replaces a pool's description and configuration: with here that of this
// member's part, otherwise what holds for all. It is applied on this member at once and
// on the others soon.
func (c *Cluster) UpdatePool(ctx context.Context, changed state.Pool, here bool, expect state.Revision) error {
	before, release, err := c.holdPool(ctx, changed.Name, "update", expect)
	if err != nil {
		return err
	}
	defer release()
	self := c.Self()
	if _, found := before.Locals[self]; !found {
		return state.Errorf(state.ErrNotFound, "storage pool %q is not on member %q", changed.Name, self)
	}
	kept := before.Locals[self].Config
	whole, own, err := c.splitUpdate("storage pool", before.Config, changed.Config, kept, here, state.PoolLocalKey)
	if err != nil {
		return err
	}
	own = maps.Clone(own)
	for key, value := range kept {
		if _, given := own[key]; !given && (key == "source" || strings.HasPrefix(key, "volatile.")) {
			own[key] = value
		}
	}
	after := *before
	after.Memo, after.Description, after.Config = nil, changed.Description, whole
	after.Locals = maps.Clone(before.Locals)
	local := after.Locals[self]
	local.Config = own
	after.Locals[self] = local
	for _, member := range after.Locals.Members() {
		if err := storage.Validate(after.On(member)); err != nil {
			return err
		}
	}
	if before.Locals.Ready(self) {
		if err := c.node.UpdatePool(ctx, after.On(self)); err != nil {
			return err
		}
		c.keeper.note(poolSubject(after.Name), after.On(self).Config)
	}
	// A part that is not there yet is made with it.
	err = c.finish(ctx, store.UpdatePool{
		Name: after.Name, Description: after.Description, Config: whole, ExpectRevision: before.Revision, Member: self, Local: own,
	})
	if err == nil {
		c.repair(ctx, poolSubject(after.Name), local)
	}
	return err
}

// DeletePool removes a pool that nothing uses, from every member.
func (c *Cluster) DeletePool(ctx context.Context, name string) error {
	pool, release, err := c.holdPool(ctx, name, "delete", 0)
	if err != nil {
		return err
	}
	defer release()
	if users := c.PoolUsers(name); len(users) > 0 {
		return state.Errorf(state.ErrConflict, "storage pool %q is in use by %s", name, users[0])
	}
	if err := c.allOnline(c.store.View(), poolSubject(name), pool.Locals); err != nil {
		return err
	}
	if err := c.apply(ctx, store.DeletePool{Name: name}); err != nil {
		return err
	}
	if err := c.makePart(ctx, poolSubject(name), true); err != nil {
		return err
	}
	// Waiting with the lock, for a member that waits so for this one, would have no end.
	release()
	return c.gone(ctx, poolSubject(name), poolLocals(name))
}

// PoolUsers returns the URLs of the instances and profiles whose root disk is in
// the pool.
func (c *Cluster) PoolUsers(name string) []string {
	view := c.store.View()
	users := []string{}
	for _, inst := range view.Instances("") {
		if rootPool(view, inst) == name {
			users = append(users, resource(inst.Project, "instances", inst.Name))
		}
	}
	for _, profile := range view.Profiles("") {
		for _, device := range profile.Devices {
			if device["type"] == "disk" && device["pool"] == name {
				users = append(users, resource(profile.Project, "profiles", profile.Name))
				break
			}
		}
	}
	return users
}

func rootPool(view *store.View, inst *state.Instance) string {
	_, devices, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
	if err != nil {
		return ""
	}
	_, root, err := node.RootDisk(devices)
	if err != nil {
		return ""
	}
	return root["pool"]
}

// PoolResources tells the space of a pool on this member.
func (c *Cluster) PoolResources(ctx context.Context, name string) (storage.Resources, error) {
	if _, err := c.StoragePool(ctx, name); err != nil {
		return storage.Resources{}, err
	}
	pool, err := c.node.Pool(ctx, name)
	if err != nil {
		return storage.Resources{}, err
	}
	return pool.Resources(ctx)
}

// PoolVolumes returns the volumes of instances in a pool: they are made and
// deleted with their instance. An empty project means all.
func (c *Cluster) PoolVolumes(ctx context.Context, name, project string) ([]state.Volume, error) {
	if _, err := c.StoragePool(ctx, name); err != nil {
		return nil, err
	}
	view := c.store.View()
	volumes := []state.Volume{}
	for _, inst := range view.Instances(project) {
		if rootPool(view, inst) != name {
			continue
		}
		volumes = append(volumes, state.Volume{
			Meta: inst.Meta, Pool: name, Project: inst.Project, Type: state.VolumeContainer, Name: inst.Name,
			Description: inst.Description, Config: state.Config{}, Location: inst.Location, CreatedAt: inst.CreatedAt,
		})
	}
	return volumes, nil
}

// VolumeUsage tells the space that an instance's volume takes.
func (c *Cluster) VolumeUsage(ctx context.Context, name, project, instance string) (storage.Usage, error) {
	if _, err := c.Instance(ctx, project, instance); err != nil {
		return storage.Usage{}, err
	}
	pool, err := c.node.Pool(ctx, name)
	if err != nil {
		return storage.Usage{}, err
	}
	return pool.Usage(ctx, storage.Instance(node.HostName(project, instance)))
}
