package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"muster/node/network"
	"muster/state"
	"muster/state/store"
)

// Network returns a managed network.
func (c *Cluster) Network(_ context.Context, project, name string) (*state.Network, error) {
	return c.store.View().Network(project, name)
}

func networkSubject(name string) string { return fmt.Sprintf("network %q", name) }

// networkPart is this member's part of a network.
func (c *Cluster) networkPart(made *state.Network) part {
	here := made.On(c.Self())
	return part{
		subject: networkSubject(made.Name), locals: made.Locals, config: here.Config,
		make: func(ctx context.Context) (state.Config, error) {
			local := maps.Clone(made.Locals[c.Self()].Config)
			if local == nil {
				local = state.Config{}
			}
			if local["volatile.bridge.hwaddr"] == "" {
				local["volatile.bridge.hwaddr"] = c.node.Networks().NewHWAddr()
				here.Config["volatile.bridge.hwaddr"] = local["volatile.bridge.hwaddr"]
			}
			err := c.node.Networks().Start(ctx, here)
			if err != nil {
				// It may be half there.
				err = errors.Join(err, c.node.Networks().Delete(ctx, here.Name))
			}
			return local, err
		},
		change: func(ctx context.Context) error {
			if _, there := c.keeper.has(networkSubject(here.Name)); !there {
				return c.node.StartNetwork(ctx, here)
			}
			return c.node.Networks().Start(ctx, here)
		},
		lost:   func(context.Context) bool { return c.node.Networks().Lost(here.Name) },
		remove: func(ctx context.Context) error { return c.node.Networks().Delete(ctx, here.Name) },
		set: func(local state.Local) store.Command {
			return store.SetNetworkLocal{Project: made.Project, Name: made.Name, Member: c.Self(), Local: local}
		},
		drop: store.DropNetworkLocal{Project: made.Project, Name: made.Name, Member: c.Self()},
	}
}

// networkLocals are a network's parts; none when it is gone.
func networkLocals(project, name string) func(*store.View) state.Locals {
	return func(view *store.View) state.Locals {
		if network, err := view.Network(project, name); err == nil {
			return network.Locals
		}
		return nil
	}
}

func checkNetwork(created *state.Network) error {
	if err := state.ValidateNetworkName(created.Name); err != nil {
		return err
	}
	if created.Type == "" {
		created.Type = "bridge"
	}
	if created.Type != "bridge" {
		return state.Errorf(state.ErrInvalid, "type %q: managed networks are of type bridge", created.Type)
	}
	return state.ValidateNetworkConfig(created.Config)
}

// DefineNetwork says what a network will be on this member, before CreateNetwork makes
// it on all: only keys that differ from member to member may be set.
func (c *Cluster) DefineNetwork(ctx context.Context, created state.Network) error {
	if err := checkNetwork(&created); err != nil {
		return err
	}
	whole, local := state.SplitConfig(created.Config, state.NetworkLocalKey)
	for key := range whole {
		return state.Errorf(state.ErrInvalid, "config key %q of a network holds for all members: give it without ?target= (--target)", key)
	}
	if err := c.mustHost(); err != nil {
		return err
	}
	if err := checkExternal(local); err != nil {
		return err
	}
	return c.apply(ctx, store.DefineNetwork{Project: created.Project, Name: created.Name, Type: created.Type, Member: c.Self(), Config: local})
}

// CreateNetwork makes a managed bridge on every member, and waits for those that are
// online. See CreatePool for what becomes of one that can't be made.
func (c *Cluster) CreateNetwork(ctx context.Context, created state.Network) error {
	if before, err := c.store.View().Network(created.Project, created.Name); err == nil && before.Locals.Errored() && len(created.Config) == 0 {
		created.Config, created.Description = before.Config, before.Description
	}
	if err := checkNetwork(&created); err != nil {
		return err
	}
	config, err := network.FillDefaults(created.Config)
	if err != nil {
		return err
	}
	whole, local := state.SplitConfig(config, state.NetworkLocalKey)
	if err := c.memberKeys("network", local); err != nil {
		return err
	}
	if err := checkExternal(local); err != nil {
		return err
	}
	locals, err := c.everywhere(local)
	if err != nil {
		return err
	}
	created.Config, created.Locals = whole, locals
	subject := networkSubject(created.Name)
	c.keeper.begin(subject)
	if err := c.apply(ctx, store.CreateNetwork{Network: created}); err != nil {
		return err
	}
	if err = c.tendPart(ctx, subject, true); err != nil {
		err = fmt.Errorf("%s: %w", subject, err)
	}
	if others := c.made(ctx, subject, networkLocals(created.Project, created.Name)); err == nil {
		err = others
	}
	if err != nil && !errors.Is(err, state.ErrUnavailable) && !c.Clustered() {
		c.dropNetwork(ctx, created)
	}
	return err
}

// checkExternal refuses interfaces of this member that can't be put into a bridge.
func checkExternal(local state.Config) error {
	names := strings.FieldsFunc(local["bridge.external_interfaces"], func(r rune) bool { return r == ',' || r == ' ' })
	return network.CheckExternal(names)
}

// dropNetwork takes back a creation that failed.
func (c *Cluster) dropNetwork(ctx context.Context, dropped state.Network) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	subject := networkSubject(dropped.Name)
	err := c.apply(ctx, store.DeleteNetwork{Project: dropped.Project, Name: dropped.Name, Hint: store.Hint{Action: store.NoEvent}})
	if err == nil {
		err = c.tendPart(ctx, subject, true)
	}
	if err == nil {
		err = c.gone(ctx, subject, networkLocals(dropped.Project, dropped.Name))
	}
	if err != nil {
		c.log.Error("take back the creation of a network", "network", dropped.Name, "error", err)
	}
}

// holdNetwork locks a network that nothing else changes.
func (c *Cluster) holdNetwork(ctx context.Context, project, name, action string, expect state.Revision) (*state.Network, func(), error) {
	release, err := c.locks.acquire(ctx, networkSubject(name), action)
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

// UpdateNetwork replaces a network's description and configuration: with here that of
// this member's part, otherwise what holds for all. It is applied on this member, where
// nothing is recorded when that fails, and on the others soon.
func (c *Cluster) UpdateNetwork(ctx context.Context, changed state.Network, here bool, expect state.Revision) error {
	if err := state.ValidateNetworkConfig(addressed(changed.Config)); err != nil {
		return err
	}
	before, release, err := c.holdNetwork(ctx, changed.Project, changed.Name, "update", expect)
	if err != nil {
		return err
	}
	defer release()
	self := c.Self()
	if _, found := before.Locals[self]; !found {
		return state.Errorf(state.ErrNotFound, "network %q is not on member %q", changed.Name, self)
	}
	kept := before.Locals[self].Config
	filled, err := network.FillAuto(changed.Config)
	if err != nil {
		return err
	}
	whole, own, err := c.splitUpdate("network", before.Config, filled, kept, here, state.NetworkLocalKey)
	if err != nil {
		return err
	}
	own = maps.Clone(own)
	if own == nil {
		own = state.Config{}
	}
	// Clients don't see it.
	own["volatile.bridge.hwaddr"] = kept["volatile.bridge.hwaddr"]
	if own["volatile.bridge.hwaddr"] == "" {
		own["volatile.bridge.hwaddr"] = c.node.Networks().NewHWAddr()
	}
	after := *before
	after.Memo, after.Description, after.Config = nil, changed.Description, whole
	after.Locals = maps.Clone(before.Locals)
	local := after.Locals[self]
	local.Config = own
	after.Locals[self] = local
	if err := checkNetworkClaims(c.store.View(), before, &after); err != nil {
		return err
	}
	// A part that is not there yet is made with it.
	command := store.UpdateNetwork{
		Project: after.Project, Name: after.Name, Description: after.Description, Config: whole, ExpectRevision: before.Revision,
		Member: self, Local: own,
	}
	ready := before.Locals.Ready(self)
	if ready {
		if err := c.node.Networks().Start(ctx, after.On(self)); err != nil {
			c.putBack(ctx, before.On(self))
			return fmt.Errorf("%s: %w", networkSubject(after.Name), err)
		}
		c.keeper.note(networkSubject(after.Name), after.On(self).Config)
	}
	err = c.finish(ctx, command)
	if err != nil && ready {
		c.putBack(ctx, before.On(self))
	}
	if err == nil {
		c.repair(ctx, networkSubject(after.Name), local)
	}
	return err
}

// addressed says in words what a missing address means once a network is made: none. Only
// a new network is given addresses without being asked.
func addressed(config state.Config) state.Config {
	said := maps.Clone(config)
	if said == nil {
		said = state.Config{}
	}
	for _, key := range []string{"ipv4.address", "ipv6.address"} {
		if said[key] == "" {
			said[key] = "none"
		}
	}
	return said
}

func (c *Cluster) putBack(ctx context.Context, before state.Network) {
	subject := networkSubject(before.Name)
	if err := c.node.Networks().Start(context.WithoutCancel(ctx), before); err != nil {
		c.keeper.forget(subject)
		c.log.Error("take back the change of a network", "network", before.Name, "error", err)
		return
	}
	c.keeper.note(subject, before.Config)
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
	if len(c.store.View().Members()) > 1 {
		return state.Errorf(state.ErrInvalid, "network %q is on several members and can't be renamed: make another one", name)
	}
	if _, err := c.store.View().Network(project, newName); err == nil {
		return state.Errorf(state.ErrExists, "network %q already exists", newName)
	}
	if users := c.NetworkUsers(held.Name); len(users) > 0 {
		return state.Errorf(state.ErrConflict, "network %q is in use by %s", name, users[0])
	}
	intent, done, err := c.begin(ctx, state.Intent{
		Member: c.Self(), Kind: "rename", Project: held.Project, Subject: store.SubjectNetwork, Name: held.Name,
	}, renameInput{NewName: newName})
	if err != nil {
		return err
	}
	defer done()
	if err := c.node.Networks().Rename(ctx, held.On(c.Self()), newName); err != nil {
		c.putBack(ctx, held.On(c.Self()))
		c.end(ctx, intent)
		return err
	}
	if err := c.finish(ctx, store.RenameNetwork{Project: project, Name: name, NewName: newName, IntentID: intent}); err != nil {
		return err
	}
	c.noteApplied(networkSubject(newName))
	return nil
}

// DeleteNetwork removes a network that nothing uses, from every member.
func (c *Cluster) DeleteNetwork(ctx context.Context, project, name string) error {
	held, release, err := c.holdNetwork(ctx, project, name, "delete", 0)
	if err != nil {
		return err
	}
	defer release()
	if users := c.NetworkUsers(held.Name); len(users) > 0 {
		return state.Errorf(state.ErrConflict, "network %q is in use by %s", name, users[0])
	}
	if err := c.allOnline(c.store.View(), networkSubject(name), held.Locals); err != nil {
		return err
	}
	if err := c.apply(ctx, store.DeleteNetwork{Project: project, Name: name}); err != nil {
		return err
	}
	if err := c.makePart(ctx, networkSubject(name), true); err != nil {
		return err
	}
	// Waiting with the lock, for a member that waits so for this one, would have no end.
	release()
	return c.gone(ctx, networkSubject(name), networkLocals(project, name))
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
