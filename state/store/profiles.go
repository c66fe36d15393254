package store

import (
	"context"

	"muster/state"
	"muster/state/store/sqlgen"
)

// CreateProfile makes a profile.
type CreateProfile struct {
	Profile state.Profile
	Hint    Hint
}

// UpdateProfile replaces a profile's description, configuration and devices.
type UpdateProfile struct {
	Project        string
	Name           string
	Description    string
	Config         state.Config
	Devices        state.Devices
	ExpectRevision state.Revision
	Hint           Hint
}

// RenameProfile gives a profile another name, also in the instances that have it.
// The default profile keeps its name (ErrForbidden).
type RenameProfile struct {
	Project string
	Name    string
	NewName string
	Hint    Hint
}

// DeleteProfile removes a profile: ErrConflict naming the instances that have it,
// ErrForbidden for the default profile.
type DeleteProfile struct {
	Project        string
	Name           string
	ExpectRevision state.Revision
	Hint           Hint
}

// defaultProfile is the profile that every project has.
const defaultProfile = "default"

func (CreateProfile) name() string { return "create-profile" }

func (c CreateProfile) apply(ctx context.Context, t *tx) error {
	if _, err := t.project(ctx, c.Profile.Project); err != nil {
		return err
	}
	return t.createProfile(ctx, c.Profile, c.Hint)
}

func (t *tx) createProfile(ctx context.Context, p state.Profile, hint Hint) error {
	if err := nameable("profile", p.Name); err != nil {
		return err
	}
	if err := t.deviceTargets(ctx, p.Project, p.Devices); err != nil {
		return err
	}
	err := t.q.InsertProfile(ctx, sqlgen.InsertProfileParams{
		Project: p.Project, Name: p.Name, Description: p.Description, Config: encodeConfig(p.Config), Devices: encodeDevices(p.Devices), Revision: t.rev(),
	})
	if err != nil {
		return fresh(err, "profile %q", p.Name)
	}
	t.record(KindProfile, &p, hint, "profile-created")
	return nil
}

func (UpdateProfile) name() string { return "update-profile" }

func (c UpdateProfile) apply(ctx context.Context, t *tx) error {
	p, err := t.profile(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, int64(p.Revision), "profile %q", c.Name); err != nil {
		return err
	}
	if err := t.deviceTargets(ctx, p.Project, c.Devices); err != nil {
		return err
	}
	p.Description, p.Config, p.Devices = c.Description, c.Config, c.Devices
	err = t.q.UpdateProfile(ctx, sqlgen.UpdateProfileParams{
		Description: p.Description, Config: encodeConfig(p.Config), Devices: encodeDevices(p.Devices), Revision: t.rev(), Project: p.Project, Name: p.Name,
	})
	if err != nil {
		return wrap(err, "update profile %q", c.Name)
	}
	t.record(KindProfile, p, c.Hint, "profile-updated")
	return nil
}

func (RenameProfile) name() string { return "rename-profile" }

func (c RenameProfile) apply(ctx context.Context, t *tx) error {
	if c.Name == defaultProfile {
		return state.Errorf(state.ErrForbidden, "the default profile keeps its name")
	}
	if err := nameable("profile", c.NewName); err != nil {
		return err
	}
	before, err := t.profile(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if c.Name == c.NewName {
		return nil
	}
	err = t.q.RenameProfile(ctx, sqlgen.RenameProfileParams{NewName: c.NewName, Revision: t.rev(), Project: c.Project, Name: c.Name})
	if err != nil {
		return fresh(err, "profile %q", c.NewName)
	}
	after := *before
	after.Name = c.NewName
	t.recordRename(KindProfile, before, &after, c.Hint, "profile-renamed")
	if err := t.q.TouchProfileUsers(ctx, sqlgen.TouchProfileUsersParams{Revision: t.rev(), Project: c.Project, Profile: c.NewName}); err != nil {
		return wrap(err, "rename profile %q", c.Name)
	}
	users, err := t.q.ListInstancesAt(ctx, t.rev())
	if err != nil {
		return wrap(err, "rename profile %q", c.Name)
	}
	for _, row := range users {
		user, err := instanceNoun(row.Instance, row.Profiles)
		if err != nil {
			return err
		}
		t.record(KindInstance, user, silent, "")
	}
	return t.replaceImageProfile(ctx, c.Project, c.Name, c.NewName)
}

func (DeleteProfile) name() string { return "delete-profile" }

func (c DeleteProfile) apply(ctx context.Context, t *tx) error {
	if c.Name == defaultProfile {
		return state.Errorf(state.ErrForbidden, "the default profile stays")
	}
	p, err := t.profile(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, int64(p.Revision), "profile %q", c.Name); err != nil {
		return err
	}
	users, err := t.q.ListProfileUsers(ctx, sqlgen.ListProfileUsersParams{Project: c.Project, Profile: c.Name, Limit: usersNamed + 1})
	if err != nil {
		return wrap(err, "see who has profile %q", c.Name)
	}
	if len(users) > 0 {
		return state.Errorf(state.ErrConflict, "profile %q is in use by %s", c.Name, enumerate(users))
	}
	if err := t.q.DeleteProfile(ctx, sqlgen.DeleteProfileParams{Project: c.Project, Name: c.Name}); err != nil {
		return wrap(err, "delete profile %q", c.Name)
	}
	t.recordDelete(KindProfile, p, c.Hint, "profile-deleted")
	return t.replaceImageProfile(ctx, c.Project, c.Name, "")
}

func (t *tx) profile(ctx context.Context, project, name string) (*state.Profile, error) {
	row, err := t.q.FindProfile(ctx, sqlgen.FindProfileParams{Project: project, Name: name})
	if err != nil {
		return nil, found(err, "profile %q", name)
	}
	return profileNoun(row)
}

func profileNoun(r sqlgen.Profile) (*state.Profile, error) {
	config, err := decodeColumn[state.Config](r.Config)
	if err != nil {
		return nil, err
	}
	devices, err := decodeColumn[state.Devices](r.Devices)
	return &state.Profile{
		Meta:    state.Meta{Revision: state.Revision(r.Revision)},
		Project: r.Project, Name: r.Name, Description: r.Description, Config: config, Devices: devices,
	}, err
}
