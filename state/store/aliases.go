package store

import (
	"context"

	"muster/state"
	"muster/state/store/sqlgen"
)

// CreateAlias names an image; ErrNotFound when the project has no such image.
type CreateAlias struct {
	Alias state.ImageAlias
	Hint  Hint
}

// UpdateAlias replaces an alias's target and description.
type UpdateAlias struct {
	Project        string
	Name           string
	Description    string
	Target         string
	ExpectRevision state.Revision
	Hint           Hint
}

// RenameAlias gives an alias another name.
type RenameAlias struct {
	Project string
	Name    string
	NewName string
	Hint    Hint
}

// DeleteAlias removes an alias.
type DeleteAlias struct {
	Project string
	Name    string
	Hint    Hint
}

func (CreateAlias) name() string { return "create-alias" }

func (c CreateAlias) apply(ctx context.Context, t *tx) error {
	a := c.Alias
	if a.Name == "" {
		return state.Errorf(state.ErrInvalid, "an image alias needs a name")
	}
	if _, err := t.image(ctx, a.Project, a.Target); err != nil {
		return err
	}
	err := t.q.InsertAlias(ctx, sqlgen.InsertAliasParams{Project: a.Project, Name: a.Name, Description: a.Description, Target: a.Target, Revision: t.rev()})
	if err != nil {
		return fresh(err, "image alias %q", a.Name)
	}
	t.record(KindAlias, &a, c.Hint, "image-alias-created")
	return nil
}

func (UpdateAlias) name() string { return "update-alias" }

func (c UpdateAlias) apply(ctx context.Context, t *tx) error {
	a, err := t.alias(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, int64(a.Revision), "image alias %q", c.Name); err != nil {
		return err
	}
	if _, err := t.image(ctx, c.Project, c.Target); err != nil {
		return err
	}
	a.Description, a.Target = c.Description, c.Target
	if err := t.saveAlias(ctx, a, c.Name); err != nil {
		return err
	}
	t.record(KindAlias, a, c.Hint, "image-alias-updated")
	return nil
}

func (RenameAlias) name() string { return "rename-alias" }

func (c RenameAlias) apply(ctx context.Context, t *tx) error {
	if c.NewName == "" {
		return state.Errorf(state.ErrInvalid, "an image alias needs a name")
	}
	before, err := t.alias(ctx, c.Project, c.Name)
	if err != nil || c.Name == c.NewName {
		return err
	}
	after := *before
	after.Name = c.NewName
	if err := t.saveAlias(ctx, &after, c.Name); err != nil {
		return err
	}
	t.recordRename(KindAlias, before, &after, c.Hint, "image-alias-renamed")
	return nil
}

func (t *tx) saveAlias(ctx context.Context, a *state.ImageAlias, name string) error {
	err := t.q.UpdateAlias(ctx, sqlgen.UpdateAliasParams{
		NewName: a.Name, Description: a.Description, Target: a.Target, Revision: t.rev(), Project: a.Project, Name: name,
	})
	if err != nil {
		return fresh(err, "image alias %q", a.Name)
	}
	return nil
}

func (DeleteAlias) name() string { return "delete-alias" }

func (c DeleteAlias) apply(ctx context.Context, t *tx) error {
	a, err := t.alias(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if err := t.q.DeleteAlias(ctx, sqlgen.DeleteAliasParams{Project: c.Project, Name: c.Name}); err != nil {
		return wrap(err, "delete image alias %q", c.Name)
	}
	t.recordDelete(KindAlias, a, c.Hint, "image-alias-deleted")
	return nil
}

func (t *tx) alias(ctx context.Context, project, name string) (*state.ImageAlias, error) {
	row, err := t.q.FindAlias(ctx, sqlgen.FindAliasParams{Project: project, Name: name})
	if err != nil {
		return nil, found(err, "image alias %q", name)
	}
	return aliasNoun(row)
}

func aliasNoun(r sqlgen.ImageAlias) (*state.ImageAlias, error) {
	return &state.ImageAlias{
		Meta:    state.Meta{Revision: state.Revision(r.Revision)},
		Project: r.Project, Name: r.Name, Description: r.Description, Target: r.Target,
	}, nil
}
