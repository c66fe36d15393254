package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"muster/state"
	"muster/state/store/sqlgen"
)

// usersNamed is how many users of a thing an error names.
const usersNamed = 5

// enumerate names users in an error, the first few of them.
func enumerate(users []string) string {
	if len(users) > usersNamed {
		return strings.Join(users[:usersNamed], ", ") + " and others"
	}
	return strings.Join(users, ", ")
}

// users returns the profiles and instances that have a device which uses says uses
// something. Devices are free-form, so they are looked through: with 10,000
// instances that takes tens of milliseconds, and it happens when something is
// deleted or renamed.
func (t *tx) users(ctx context.Context, uses func(project string, device map[string]string) bool) ([]string, error) {
	var found []string
	look := func(kind, project, name, column string) error {
		devices, err := decodeColumn[state.Devices](column)
		if err != nil {
			return err
		}
		for _, device := range devices {
			if uses(project, device) {
				if project != state.DefaultProject {
					name = project + "/" + name
				}
				found = append(found, fmt.Sprintf("%s %q", kind, name))
				return nil
			}
		}
		return nil
	}
	profiles, err := t.q.ListProfileDevices(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range profiles {
		if err := look("profile", p.Project, p.Name, p.Devices); err != nil {
			return nil, err
		}
	}
	instances, err := t.q.ListInstanceDevices(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range instances {
		if err := look("instance", i.Project, i.Name, i.Devices); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// unused refuses with ErrConflict when a device uses the thing.
func (t *tx) unused(ctx context.Context, what string, uses func(project string, device map[string]string) bool) error {
	users, err := t.users(ctx, uses)
	if err != nil {
		return wrap(err, "see who uses %s", what)
	}
	if len(users) > 0 {
		return state.Errorf(state.ErrConflict, "%s is in use by %s", what, enumerate(users))
	}
	return nil
}

func (t *tx) networkUnused(ctx context.Context, n *state.Network) error {
	return t.unused(ctx, fmt.Sprintf("network %q", n.Name), func(project string, device map[string]string) bool {
		// Projects without networks of their own use those of the default project.
		return device["type"] == "nic" && device["network"] == n.Name && (project == n.Project || n.Project == state.DefaultProject)
	})
}

func (t *tx) volumeUnused(ctx context.Context, r VolumeRef) error {
	if r.Type != state.VolumeCustom {
		return nil
	}
	return t.unused(ctx, fmt.Sprintf("storage volume %q of pool %q", r.Name, r.Pool), func(project string, device map[string]string) bool {
		return device["type"] == "disk" && device["pool"] == r.Pool && device["source"] == r.Name && (project == r.Project || r.Project == state.DefaultProject)
	})
}

func (t *tx) poolUnused(ctx context.Context, p *state.Pool) error {
	volumes, err := t.q.ListVolumesOfPool(ctx, p.Name)
	if err != nil {
		return wrap(err, "see what is in storage pool %q", p.Name)
	}
	var kept []string
	for _, v := range volumes {
		if v.Type != string(state.VolumeImage) {
			kept = append(kept, fmt.Sprintf("%s volume %q", v.Type, v.Name))
		}
	}
	if len(kept) > 0 {
		return state.Errorf(state.ErrConflict, "storage pool %q is not empty: it has %s", p.Name, enumerate(kept))
	}
	return t.unused(ctx, fmt.Sprintf("storage pool %q", p.Name), func(_ string, device map[string]string) bool {
		return device["type"] == "disk" && device["pool"] == p.Name
	})
}

// deviceTargets refuses devices whose managed network or storage pool does not
// exist or is on its way out.
func (t *tx) deviceTargets(ctx context.Context, project string, devices state.Devices) error {
	for name, device := range devices {
		var err error
		switch {
		case device["type"] == "nic" && device["network"] != "":
			err = t.networkStays(ctx, project, device["network"])
		case device["type"] == "disk" && device["pool"] != "":
			err = t.poolStays(ctx, device["pool"])
		}
		if kind := state.Kind(err); kind != nil {
			return state.Errorf(kind, "device %q: %w", name, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) networkStays(ctx context.Context, project, name string) error {
	network, err := t.network(ctx, project, name)
	if errors.Is(err, state.ErrNotFound) && project != state.DefaultProject {
		network, err = t.network(ctx, state.DefaultProject, name)
	}
	if err == nil && isLeaving(network.Busy) {
		return busy(networkSubject(project, name), network.Busy)
	}
	return err
}

func (t *tx) poolStays(ctx context.Context, name string) error {
	row, err := t.q.FindPool(ctx, name)
	if err != nil {
		return found(err, "storage pool %q", name)
	}
	if isLeaving(row.Busy) {
		return busy(poolSubject(name), row.Busy)
	}
	return nil
}

// isLeaving reports whether what is under way takes the name away.
func isLeaving(busy string) bool { return busy == "delete" || busy == "rename" }

// imageUnheld refuses with ErrConflict while an instance is being created from the
// image.
func (t *tx) imageUnheld(ctx context.Context, project, fingerprint string) error {
	instance, err := t.q.FindImageHold(ctx, holdName(project, fingerprint))
	if err == nil {
		return state.Errorf(state.ErrConflict, "image %q is in use: instance %q is being created from it", short(fingerprint), instance)
	}
	err = found(err, "image")
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	return err
}

// holdName is what an intent writes down of the image it holds.
func holdName(project, fingerprint string) string { return project + "/" + fingerprint }

// short is a fingerprint as people see it.
func short(fingerprint string) string { return fingerprint[:min(12, len(fingerprint))] }

// network reads a network.
func (t *tx) network(ctx context.Context, project, name string) (*state.Network, error) {
	row, err := t.q.FindNetwork(ctx, sqlgen.FindNetworkParams{Project: project, Name: name})
	if err != nil {
		return nil, found(err, "network %q", name)
	}
	n, err := networkNoun(row)
	if err != nil {
		return nil, err
	}
	n.Locals, err = t.locals(ctx, networkSubject(project, name))
	return n, err
}
