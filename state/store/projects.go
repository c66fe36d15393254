package store

import (
	"context"

	"muster/state"
	"muster/state/store/sqlgen"
)

// CreateProject makes a project with an empty default profile.
type CreateProject struct {
	Project state.Project
	Hint    Hint
}

// UpdateProject replaces a project's description and configuration.
type UpdateProject struct {
	Name           string
	Description    string
	Config         state.Config
	ExpectRevision state.Revision
	Hint           Hint
}

// DeleteProject removes an empty project: ErrConflict when it holds anything but
// its default profile, ErrForbidden for the default project.
type DeleteProject struct {
	Name string
	Hint Hint
}

func (CreateProject) name() string { return "create-project" }

func (c CreateProject) apply(ctx context.Context, t *tx) error {
	return t.createProject(ctx, c.Project, c.Hint)
}

func (t *tx) createProject(ctx context.Context, p state.Project, hint Hint) error {
	if err := nameable("project", p.Name); err != nil {
		return err
	}
	err := t.q.InsertProject(ctx, sqlgen.InsertProjectParams{Name: p.Name, Description: p.Description, Config: encodeConfig(p.Config), Revision: t.rev()})
	if err != nil {
		return fresh(err, "project %q", p.Name)
	}
	t.record(KindProject, &p, hint, "project-created")
	description := "Default profile"
	if p.Name != state.DefaultProject {
		description += " of project " + p.Name
	}
	return t.createProfile(ctx, state.Profile{Project: p.Name, Name: defaultProfile, Description: description}, silent)
}

func (UpdateProject) name() string { return "update-project" }

func (c UpdateProject) apply(ctx context.Context, t *tx) error {
	p, err := t.project(ctx, c.Name)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, int64(p.Revision), "project %q", c.Name); err != nil {
		return err
	}
	p.Description, p.Config = c.Description, c.Config
	err = t.q.UpdateProject(ctx, sqlgen.UpdateProjectParams{Description: p.Description, Config: encodeConfig(p.Config), Revision: t.rev(), Name: p.Name})
	if err != nil {
		return wrap(err, "update project %q", c.Name)
	}
	t.record(KindProject, p, c.Hint, "project-updated")
	return nil
}

func (DeleteProject) name() string { return "delete-project" }

func (c DeleteProject) apply(ctx context.Context, t *tx) error {
	if c.Name == state.DefaultProject {
		return state.Errorf(state.ErrForbidden, "the default project stays")
	}
	p, err := t.project(ctx, c.Name)
	if err != nil {
		return err
	}
	has, err := t.q.CountProjectContents(ctx, c.Name)
	if err != nil {
		return wrap(err, "look into project %q", c.Name)
	}
	for _, content := range []struct {
		count int64
		what  string
	}{{has.Instances, "instances"}, {has.Images, "images"}, {has.Networks, "networks"}, {has.Volumes, "volumes"}, {has.Profiles, "profiles"}, {has.Intents, "tasks"}} {
		if content.count > 0 {
			return state.Errorf(state.ErrConflict, "project %q is not empty: it has %d %s", c.Name, content.count, content.what)
		}
	}
	profile, err := t.profile(ctx, c.Name, defaultProfile)
	if err != nil {
		return err
	}
	if err := t.q.DeleteProfile(ctx, sqlgen.DeleteProfileParams{Project: c.Name, Name: defaultProfile}); err != nil {
		return wrap(err, "delete project %q", c.Name)
	}
	if err := t.q.DeleteProject(ctx, c.Name); err != nil {
		return wrap(err, "delete project %q", c.Name)
	}
	t.recordDelete(KindProfile, profile, silent, "")
	t.recordDelete(KindProject, p, c.Hint, "project-deleted")
	return nil
}

func (t *tx) project(ctx context.Context, name string) (*state.Project, error) {
	row, err := t.q.FindProject(ctx, name)
	if err != nil {
		return nil, found(err, "project %q", name)
	}
	return projectNoun(row)
}

func projectNoun(r sqlgen.Project) (*state.Project, error) {
	config, err := decodeColumn[state.Config](r.Config)
	return &state.Project{Meta: state.Meta{Revision: state.Revision(r.Revision)}, Name: r.Name, Description: r.Description, Config: config}, err
}
