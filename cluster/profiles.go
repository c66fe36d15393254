package cluster

import (
	"context"
	"errors"
	"fmt"

	"muster/node"
	"muster/state"
	"muster/state/store"
)

// UpdateProfile replaces a profile and applies it to the running instances that
// have it. An instance on this member that refuses the change keeps the profile from
// changing; those on other members are changed by their members soon after.
func (c *Cluster) UpdateProfile(ctx context.Context, profile state.Profile, expect state.Revision) error {
	if err := c.checkProfile(ctx, &profile); err != nil {
		return err
	}
	release, err := c.locks.acquire(ctx, profileSubject(&profile), "update")
	if err != nil {
		return err
	}
	defer release()
	view := c.store.View()
	before, err := c.store.View().Profile(profile.Project, profile.Name)
	if err != nil {
		return err
	}
	if expect != 0 && expect != before.Revision {
		return state.Errorf(state.ErrStale, "the ETag does not match: profile %q changed since it was read", profile.Name)
	}
	if err := checkProfileClaims(view, &profile, before); err != nil {
		return err
	}
	type change struct {
		inst     *held
		from, to node.Instance
		volatile state.Config
	}
	var changes []change
	defer func() {
		for _, change := range changes {
			change.inst.release()
		}
	}()
	undo := func() {
		for _, change := range changes {
			if change.volatile == nil {
				continue
			}
			if _, err := c.node.Update(context.WithoutCancel(ctx), change.to, change.from); err != nil {
				c.log.Error("take back an update", "instance", change.inst.Name, "error", err)
			}
		}
	}
	for _, user := range view.ProfileUsers(profile.Project, profile.Name) {
		if user.Location != c.Self() {
			if err := c.keepsRoot(view, user, &profile); err != nil {
				undo()
				return err
			}
			continue
		}
		inst, err := c.hold(ctx, user.Project, user.Name, "update")
		if err != nil {
			undo()
			return err
		}
		changes = append(changes, change{inst: inst, from: inst.node})
		current := &changes[len(changes)-1]
		if current.to, err = c.withProfile(inst, &profile); err != nil {
			undo()
			return fmt.Errorf("instance %q: %w", inst.Name, err)
		}
		if err := checkChanged(current.from.Devices, current.to.Devices); err != nil {
			undo()
			return fmt.Errorf("instance %q: %w", inst.Name, err)
		}
		if err := c.node.Try(ctx, current.from, current.to); err != nil {
			undo()
			return err
		}
		if current.volatile, err = c.node.Update(ctx, current.from, current.to); err != nil {
			undo()
			return fmt.Errorf("instance %q: %w", inst.Name, err)
		}
	}
	err = c.finish(ctx, store.UpdateProfile{
		Project: profile.Project, Name: profile.Name, Description: profile.Description,
		Config: profile.Config, Devices: profile.Devices, ExpectRevision: before.Revision,
	})
	if err != nil {
		undo()
		return err
	}
	if now, err := c.store.View().Profile(profile.Project, profile.Name); err == nil {
		c.noteProfile(now)
	}
	for _, change := range changes {
		if len(change.volatile) == 0 {
			continue
		}
		if err := c.record(ctx, change.inst.Instance, "", change.volatile, ""); err != nil {
			return err
		}
	}
	return nil
}

// keepsRoot refuses a profile that would take the root disk from an instance of another
// member, or put it into another pool: its member could neither run nor delete it.
func (c *Cluster) keepsRoot(view *store.View, user *state.Instance, profile *state.Profile) error {
	from, err := nodeInstance(view, user)
	if err != nil {
		return err
	}
	to, err := c.withProfile(&held{Instance: user, node: from}, profile)
	if err != nil {
		return fmt.Errorf("instance %q: %w", user.Name, err)
	}
	if err := checkChanged(from.Devices, to.Devices); err != nil {
		return fmt.Errorf("instance %q: %w", user.Name, err)
	}
	before, err := from.Pool()
	if err != nil {
		return nil //nolint:nilerr // it has none to lose
	}
	after, err := to.Pool()
	switch {
	case err != nil:
		return state.Errorf(state.ErrInvalid, "instance %q of member %q would have no root disk: %w", user.Name, user.Location, err)
	case before != after:
		return state.Errorf(state.ErrInvalid, "instance %q of member %q has its root disk in storage pool %q: it can't go to %q by a change of its profile", user.Name, user.Location, before, after)
	}
	return nil
}

// withProfile is the instance for the node with one profile as it will be.
func (c *Cluster) withProfile(inst *held, profile *state.Profile) (node.Instance, error) {
	view := c.store.View()
	profiles, err := profilesOf(view, inst.Instance, profile)
	if err != nil {
		return node.Instance{}, err
	}
	config, devices := state.Expand(profiles, inst.Config, inst.Devices)
	if err := c.checkDevices(view, devices); err != nil {
		return node.Instance{}, err
	}
	bare := *inst.Instance
	bare.Config, bare.Devices, bare.Profiles = config, devices, nil
	return nodeInstance(view, &bare)
}

func profileSubject(profile *state.Profile) string {
	return fmt.Sprintf("profile %q of project %q", profile.Name, profile.Project)
}

// noteProfile notes that the instances of this member are as the profile says.
func (c *Cluster) noteProfile(profile *state.Profile) {
	c.profilesMu.Lock()
	defer c.profilesMu.Unlock()
	if c.profiles == nil {
		c.profiles = map[string]*state.Profile{}
	}
	c.profiles[profileSubject(profile)] = profile
}

func (c *Cluster) notedProfile(subject string) *state.Profile {
	c.profilesMu.Lock()
	defer c.profilesMu.Unlock()
	return c.profiles[subject]
}

// tendProfiles applies profiles that were changed through other members to the running
// instances of this one, until ctx ends.
func (c *Cluster) tendProfiles(ctx context.Context) error {
	for _, profile := range c.store.View().Profiles("") {
		c.noteProfile(profile)
	}
	for {
		view := c.store.View()
		for _, profile := range view.Profiles("") {
			before := c.notedProfile(profileSubject(profile))
			if before != nil && before.Revision >= profile.Revision {
				continue
			}
			if err := c.tendProfile(ctx, profile); err != nil && ctx.Err() == nil {
				c.log.Error("apply a changed profile", "profile", profile.Name, "error", err)
			}
		}
		if err := c.store.WaitRevision(ctx, view.Revision()+1); ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is how this ends
		} else if err != nil {
			return err
		}
	}
}

// tendProfile applies one profile. What an instance refuses now, it gets at its next
// start.
func (c *Cluster) tendProfile(ctx context.Context, profile *state.Profile) error {
	release, err := c.locks.acquire(ctx, profileSubject(profile), "apply")
	if err != nil {
		return err
	}
	defer release()
	before := c.notedProfile(profileSubject(profile))
	if before != nil && before.Revision >= profile.Revision {
		return nil // applied by UpdateProfile here
	}
	c.noteProfile(profile)
	if before == nil {
		return nil // new: nobody has it yet, or had it before this daemon
	}
	var failed []error
	for _, user := range c.store.View().ProfileUsers(profile.Project, profile.Name) {
		// What does not run takes configuration at its start; what its nics leave on the
		// host, and the size of its root disk, change at once.
		if user.Location != c.Self() || user.Status == state.StatusStopped && sameDevices(before.Devices, profile.Devices) {
			continue
		}
		if err := c.applyProfile(ctx, user, before, profile); err != nil {
			failed = append(failed, fmt.Errorf("instance %q: %w", user.Name, err))
		}
	}
	return errors.Join(failed...)
}

func (c *Cluster) applyProfile(ctx context.Context, user *state.Instance, before, after *state.Profile) error {
	inst, err := c.hold(ctx, user.Project, user.Name, "update")
	if err != nil {
		return err
	}
	defer inst.release()
	from, err := c.withProfile(inst, before)
	if err != nil {
		return err
	}
	to, err := c.withProfile(inst, after)
	if err != nil {
		return err
	}
	volatile, err := c.node.Update(ctx, from, to)
	if err != nil || len(volatile) == 0 {
		return err
	}
	return c.record(ctx, inst.Instance, "", volatile, "")
}

// checkProfile refuses a profile that could never be.
func (c *Cluster) checkProfile(ctx context.Context, profile *state.Profile) error {
	if err := state.ValidateProfileName(profile.Name); err != nil {
		return err
	}
	if err := state.ValidateInstanceConfig(profile.Config, true); err != nil {
		return err
	}
	if err := state.ValidateDevices(profile.Devices, true); err != nil {
		return err
	}
	if err := c.node.CheckConfig(ctx, profile.Config); err != nil {
		return err
	}
	view := c.store.View()
	for name, device := range profile.Devices {
		if pool := device["pool"]; pool != "" {
			if _, err := view.Pool(pool); err != nil {
				return fmt.Errorf("device %q: %w", name, err)
			}
		}
		if network := device["network"]; device["type"] == "nic" && network != "" {
			if _, err := view.Network(state.DefaultProject, network); err != nil {
				return fmt.Errorf("device %q: %w", name, err)
			}
		}
	}
	return nil
}

// CreateProfile makes a profile.
func (c *Cluster) CreateProfile(ctx context.Context, profile state.Profile) error {
	if err := c.checkProfile(ctx, &profile); err != nil {
		return err
	}
	return c.apply(ctx, store.CreateProfile{Profile: profile})
}

// RenameProfile gives a profile another name, also in the instances that have it.
func (c *Cluster) RenameProfile(ctx context.Context, project, name, newName string) error {
	if err := state.ValidateProfileName(newName); err != nil {
		return err
	}
	return c.apply(ctx, store.RenameProfile{Project: project, Name: name, NewName: newName})
}

// DeleteProfile removes a profile that no instance has.
func (c *Cluster) DeleteProfile(ctx context.Context, project, name string, expect state.Revision) error {
	return c.apply(ctx, store.DeleteProfile{Project: project, Name: name, ExpectRevision: expect})
}
