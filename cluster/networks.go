package cluster

import (
	"context"
	"maps"
	"time"

	"github.com/google/uuid"

	"muster/node/network"
	"muster/state"
	"muster/state/store"
)

// Network returns a managed network.
func (c *Cluster) Network(ctx context.Context, project, name string) (*state.Network, error) {
	return found(ctx, c, func(v *store.View) (*state.Network, error) { return v.Network(project, name) })
}

// CreateNetwork makes a managed bridge on this member.
func (c *Cluster) CreateNetwork(ctx context.Context, created state.Network) error {
	if !c.hosts() {
		return c.errNoHost()
	}
	if err := state.ValidateNetworkName(created.Name); err != nil {
		return err
	}
	if created.Type == "" {
		created.Type = "bridge"
	}
	if created.Type != "bridge" {
		return state.Errorf(state.ErrInvalid, "type %q: managed networks are of type bridge", created.Type)
	}
	if err := state.ValidateNetworkConfig(created.Config); err != nil {
		return err
	}
	config, err := network.FillDefaults(created.Config)
	if err != nil {
		return err
	}
	if config["bridge.hwaddr"] == "" {
		config["volatile.bridge.hwaddr"] = c.node.Networks().NewHWAddr()
	}
	created.Config = config
	intent := uuid.NewString()
	err = c.apply(ctx, store.CreateNetwork{
		Network: created, Intent: &state.Intent{ID: intent, Kind: "create", Member: c.Self()},
		Hint: store.Hint{Action: store.NoEvent},
	})
	if err != nil {
		return err
	}
	if err := c.node.Networks().Start(ctx, created); err != nil {
		c.dropNetwork(ctx, created, intent)
		return err
	}
	return c.finish(ctx, store.End{ID: intent, Hint: store.Hint{Action: "network-created"}})
}

// dropNetwork takes a creation back; what fails is done again when the daemon
// starts next, because the intent stays.
func (c *Cluster) dropNetwork(ctx context.Context, dropped state.Network, intent string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	err := c.node.Networks().Delete(ctx, dropped.Name)
	if err == nil {
		err = c.apply(ctx, store.DeleteNetwork{
			Project: dropped.Project, Name: dropped.Name, IntentID: intent, Hint: store.Hint{Action: store.NoEvent},
		})
	}
	if err != nil {
		c.log.Error("take back the creation of a network", "network", dropped.Name, "error", err)
	}
}

// holdNetwork locks a network that nothing else changes.
func (c *Cluster) holdNetwork(ctx context.Context, project, name, action string, expect state.Revision) (*state.Network, func(), error) {
	release, err := c.locks.acquire(ctx, "network "+name, action)
	if err != nil {
		return nil, nil, err
	}
	held, err := c.Network(ctx, project, name)
	switch {
	case err != nil:
	case held.Busy != "":
		err = state.Errorf(state.ErrConflict, "network %q is busy: %s is under way", name, held.Busy)
	case expect != 0 && expect != held.Revision:
		err = state.Errorf(state.ErrStale, "the ETag does not match: network %q changed since it was read", name)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return held, release, nil
}

// UpdateNetwork replaces a network's description and configuration, and applies
// them on this member; when that fails nothing is recorded.
func (c *Cluster) UpdateNetwork(ctx context.Context, changed state.Network, expect state.Revision) error {
	if err := state.ValidateNetworkConfig(changed.Config); err != nil {
		return err
	}
	before, release, err := c.holdNetwork(ctx, changed.Project, changed.Name, "update", expect)
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
		// Ours, and what "auto" stood for, stay unless they are named.
		if _, given := after.Config[key]; !given && key == "volatile.bridge.hwaddr" {
			after.Config[key] = value
		}
	}
	if after.Config, err = network.FillDefaults(after.Config); err != nil {
		return err
	}
	if err := c.node.Networks().Start(ctx, after); err != nil {
		c.putBack(ctx, *before)
		return err
	}
	err = c.finish(ctx, store.UpdateNetwork{
		Project: after.Project, Name: after.Name, Description: after.Description, Config: after.Config, ExpectRevision: before.Revision,
	})
	if err != nil {
		c.putBack(ctx, *before)
	}
	return err
}

func (c *Cluster) putBack(ctx context.Context, before state.Network) {
	if err := c.node.Networks().Start(context.WithoutCancel(ctx), before); err != nil {
		c.log.Error("take back the change of a network", "network", before.Name, "error", err)
	}
}

// beginNetwork opens an intent for a network.
func (c *Cluster) beginNetwork(ctx context.Context, held *state.Network, kind string, input any) (string, error) {
	intent := uuid.NewString()
	return intent, c.apply(ctx, store.Begin{Intent: state.Intent{
		ID: intent, Member: c.Self(), Kind: kind, Project: held.Project,
		Subject: store.SubjectNetwork, Name: held.Name, Input: encodeInput(input),
	}})
}

// RenameNetwork gives a network that nothing uses another name.
func (c *Cluster) RenameNetwork(ctx context.Context, project, name, newName string) error {
	if err := state.ValidateNetworkName(newName); err != nil {
		return err
	}
	held, release, err := c.holdNetwork(ctx, project, name, "rename", 0)
	if err != nil {
		return err
	}
	defer release()
	if _, err := c.store.View().Network(project, newName); err == nil {
		return state.Errorf(state.ErrExists, "network %q already exists", newName)
	}
	if users := c.NetworkUsers(held.Name); len(users) > 0 {
		return state.Errorf(state.ErrConflict, "network %q is in use by %s", name, users[0])
	}
	intent, err := c.beginNetwork(ctx, held, "rename", renameInput{NewName: newName})
	if err != nil {
		return err
	}
	if err := c.node.Networks().Rename(ctx, *held, newName); err != nil {
		c.putBack(ctx, *held)
		c.end(ctx, intent)
		return err
	}
	return c.finish(ctx, store.RenameNetwork{Project: project, Name: name, NewName: newName, IntentID: intent})
}

// DeleteNetwork removes a network that nothing uses.
func (c *Cluster) DeleteNetwork(ctx context.Context, project, name string) error {
	held, release, err := c.holdNetwork(ctx, project, name, "delete", 0)
	if err != nil {
		return err
	}
	defer release()
	if users := c.NetworkUsers(held.Name); len(users) > 0 {
		return state.Errorf(state.ErrConflict, "network %q is in use by %s", name, users[0])
	}
	intent, err := c.beginNetwork(ctx, held, "delete", nil)
	if err != nil {
		return err
	}
	if err := c.node.Networks().Delete(context.WithoutCancel(ctx), name); err != nil {
		c.end(ctx, intent)
		return err
	}
	return c.finish(ctx, store.DeleteNetwork{Project: project, Name: name, IntentID: intent})
}

// NetworkUsers returns the URLs of the instances and profiles with a nic on the
// interface of that name.
func (c *Cluster) NetworkUsers(name string) []string {
	view := c.store.View()
	users := []string{}
	uses := func(devices state.Devices) bool {
		for _, device := range devices {
			if device["type"] == "nic" && (device["network"] == name || device["network"] == "" && device["parent"] == name) {
				return true
			}
		}
		return false
	}
	for _, inst := range view.Instances("") {
		_, devices, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
		if err == nil && uses(devices) {
			users = append(users, resource(inst.Project, "instances", inst.Name))
		}
	}
	for _, profile := range view.Profiles("") {
		if uses(profile.Devices) {
			users = append(users, resource(profile.Project, "profiles", profile.Name))
		}
	}
	return users
}

// Interfaces returns the interfaces of this member.
func (c *Cluster) Interfaces(ctx context.Context) ([]network.Interface, error) {
	return network.Interfaces(ctx)
}

// NetworkState tells how an interface of this member is.
func (c *Cluster) NetworkState(ctx context.Context, name string) (network.State, error) {
	return network.StateOf(ctx, name)
}

// NetworkLeases returns the leases of a managed network.
func (c *Cluster) NetworkLeases(ctx context.Context, project, name string) ([]network.Lease, error) {
	if _, err := c.Network(ctx, project, name); err != nil {
		return nil, err
	}
	return c.node.Networks().Leases(ctx, name)
}
