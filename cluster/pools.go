package cluster

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster/node"
	"muster/node/storage"
	"muster/state"
	"muster/state/store"
)

// StoragePool returns a pool.
func (c *Cluster) StoragePool(ctx context.Context, name string) (*state.Pool, error) {
	return found(ctx, c, func(v *store.View) (*state.Pool, error) { return v.Pool(name) })
}

// CreatePool makes a storage pool on this member.
func (c *Cluster) CreatePool(ctx context.Context, pool state.Pool) error {
	if !c.hosts() {
		return c.errNoHost()
	}
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
	if err := storage.Validate(pool); err != nil {
		return err
	}
	intent := uuid.NewString()
	err := c.apply(ctx, store.CreatePool{
		Pool: pool, Intent: &state.Intent{ID: intent, Kind: "create", Member: c.Self()},
		Hint: store.Hint{Action: store.NoEvent},
	})
	if err != nil {
		return err
	}
	config, err := c.node.CreatePool(ctx, pool)
	if err != nil {
		c.forgetPool(ctx, pool.Name, intent)
		return err
	}
	err = c.finish(ctx, store.UpdatePool{
		Name: pool.Name, Description: pool.Description, Config: config, IntentID: intent,
		Hint: store.Hint{Action: "storage-pool-created"},
	})
	if err != nil {
		c.dropPool(ctx, pool, intent)
	}
	return err
}

// forgetPool takes back the record of a pool whose making left nothing.
func (c *Cluster) forgetPool(ctx context.Context, name, intent string) {
	err := c.finish(ctx, store.DeletePool{Name: name, IntentID: intent, Hint: store.Hint{Action: store.NoEvent}})
	if err != nil {
		c.log.Error("take back the creation of a storage pool", "pool", name, "error", err)
	}
}

func (c *Cluster) dropPool(ctx context.Context, pool state.Pool, intent string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := c.node.DeletePool(ctx, pool); err != nil {
		c.log.Error("take back the creation of a storage pool", "pool", pool.Name, "error", err)
		return
	}
	c.forgetPool(ctx, pool.Name, intent)
}

func (c *Cluster) holdPool(ctx context.Context, name, action string, expect state.Revision) (*state.Pool, func(), error) {
	release, err := c.locks.acquire(ctx, "storage pool "+name, action)
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

// UpdatePool replaces a pool's description and configuration.
func (c *Cluster) UpdatePool(ctx context.Context, changed state.Pool, expect state.Revision) error {
	before, release, err := c.holdPool(ctx, changed.Name, "update", expect)
	if err != nil {
		return err
	}
	defer release()
	after := *before
	after.Memo = nil
	after.Description = changed.Description
	after.Config = maps.Clone(changed.Config)
	if after.Config == nil {
		after.Config = state.Config{}
	}
	for key, value := range before.Config {
		if _, given := after.Config[key]; !given && (key == "source" || strings.HasPrefix(key, "volatile.")) {
			after.Config[key] = value
		}
	}
	if err := storage.Validate(after); err != nil {
		return err
	}
	if err := c.node.UpdatePool(ctx, after); err != nil {
		return err
	}
	return c.finish(ctx, store.UpdatePool{
		Name: after.Name, Description: after.Description, Config: after.Config, ExpectRevision: before.Revision,
	})
}

// DeletePool removes a pool that nothing uses.
func (c *Cluster) DeletePool(ctx context.Context, name string) error {
	pool, release, err := c.holdPool(ctx, name, "delete", 0)
	if err != nil {
		return err
	}
	defer release()
	if users := c.PoolUsers(name); len(users) > 0 {
		return state.Errorf(state.ErrConflict, "storage pool %q is in use by %s", name, users[0])
	}
	intent := uuid.NewString()
	err = c.apply(ctx, store.Begin{Intent: state.Intent{
		ID: intent, Member: c.Self(), Kind: "delete", Subject: store.SubjectPool, Name: name,
	}})
	if err != nil {
		return err
	}
	if err := c.node.DeletePool(context.WithoutCancel(ctx), *pool); err != nil {
		c.end(ctx, intent)
		return err
	}
	return c.finish(ctx, store.DeletePool{Name: name, IntentID: intent})
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
