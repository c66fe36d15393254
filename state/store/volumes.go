package store

import (
	"context"

	"muster/state"
	"muster/state/store/sqlgen"
)

// CreateVolume makes a volume. With an Intent, something is under way for it until
// a command ends that intent.
type CreateVolume struct {
	Volume state.Volume
	// Intent opens with the command; its subject is filled in. It may be nil.
	Intent *state.Intent
	Hint   Hint
}

// VolumeRef identifies a volume. Location is the member that holds it, empty in a
// shared pool.
type VolumeRef struct {
	Pool     string
	Project  string
	Type     state.VolumeType
	Name     string
	Location string
}

// UpdateVolume replaces a volume's description and configuration.
type UpdateVolume struct {
	Ref            VolumeRef
	Description    string
	Config         state.Config
	IntentID       string
	ExpectRevision state.Revision
	Hint           Hint
}

// RenameVolume gives a volume another name: ErrConflict when a profile or an
// instance uses a custom volume.
type RenameVolume struct {
	Ref      VolumeRef
	NewName  string
	IntentID string
	Hint     Hint
}

// DeleteVolume removes a volume: ErrConflict when a profile or an instance uses a
// custom volume.
type DeleteVolume struct {
	Ref      VolumeRef
	IntentID string
	Hint     Hint
}

func (CreateVolume) name() string { return "create-volume" }

func (c CreateVolume) apply(ctx context.Context, t *tx) error {
	v := c.Volume
	if c.Intent != nil {
		ref := VolumeRef{v.Pool, v.Project, v.Type, v.Name, v.Location}
		if err := t.open(ctx, volumeSubject(ref), *c.Intent, ""); err != nil {
			return err
		}
	}
	usual := "storage-volume-created"
	if v.Type != state.VolumeCustom {
		usual = "" // the instance's or image's own event says it
	}
	return t.createVolume(ctx, v, c.Hint, usual)
}

func (t *tx) createVolume(ctx context.Context, v state.Volume, hint Hint, usual string) error {
	if v.Name == "" || v.Type == "" {
		return state.Errorf(state.ErrInvalid, "a storage volume needs a name and a type")
	}
	if err := t.poolStays(ctx, v.Pool); err != nil {
		return err
	}
	v.CreatedAt = t.created(v.CreatedAt)
	err := t.q.InsertVolume(ctx, sqlgen.InsertVolumeParams{
		Pool: v.Pool, Project: v.Project, Type: string(v.Type), Name: v.Name, Description: v.Description, Config: encodeConfig(v.Config),
		Location: located(v.Location), CreatedAt: v.CreatedAt, Revision: t.rev(),
	})
	if isCode(err, codeForeignKey) {
		return state.Errorf(state.ErrNotFound, "project %q or cluster member %q not found", v.Project, v.Location)
	}
	if err != nil {
		return fresh(err, "storage volume %q of pool %q", v.Name, v.Pool)
	}
	t.record(KindVolume, &v, hint, usual)
	return nil
}

// located writes the member of a volume, or that it has none.
func located(member string) *string {
	if member == "" {
		return nil
	}
	return &member
}

func (UpdateVolume) name() string { return "update-volume" }

func (c UpdateVolume) apply(ctx context.Context, t *tx) error {
	row, err := t.volume(ctx, c.Ref)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, row.Revision, "storage volume %q", c.Ref.Name); err != nil {
		return err
	}
	if err := t.settle(ctx, volumeSubject(c.Ref), c.IntentID); err != nil {
		return err
	}
	row.Description, row.Config = c.Description, encodeConfig(c.Config)
	v, err := t.saveVolume(ctx, row)
	if err != nil {
		return err
	}
	t.record(KindVolume, v, c.Hint, "storage-volume-updated")
	return nil
}

func (RenameVolume) name() string { return "rename-volume" }

func (c RenameVolume) apply(ctx context.Context, t *tx) error {
	row, err := t.volume(ctx, c.Ref)
	if err != nil {
		return err
	}
	if err := t.settle(ctx, volumeSubject(c.Ref), c.IntentID); err != nil {
		return err
	}
	if err := t.volumeUnused(ctx, c.Ref); err != nil {
		return err
	}
	if c.NewName == "" {
		return state.Errorf(state.ErrInvalid, "a storage volume needs a name")
	}
	return t.renameVolume(ctx, row, c.NewName, row.Location, c.Hint, "storage-volume-renamed")
}

// renameVolume gives a volume another name or place.
func (t *tx) renameVolume(ctx context.Context, row sqlgen.Volume, name string, location *string, hint Hint, usual string) error {
	before, err := volumeNoun(row)
	if err != nil {
		return err
	}
	row.Name, row.Location = name, location
	after, err := t.saveVolume(ctx, row)
	if err != nil {
		return err
	}
	t.recordRename(KindVolume, before, after, hint, usual)
	return nil
}

func (t *tx) saveVolume(ctx context.Context, row sqlgen.Volume) (*state.Volume, error) {
	err := t.q.UpdateVolume(ctx, sqlgen.UpdateVolumeParams{
		Name: row.Name, Description: row.Description, Config: row.Config, Revision: t.rev(), Location: row.Location, ID: row.ID,
	})
	if err != nil {
		return nil, fresh(err, "storage volume %q of pool %q", row.Name, row.Pool)
	}
	return volumeNoun(row)
}

func (DeleteVolume) name() string { return "delete-volume" }

func (c DeleteVolume) apply(ctx context.Context, t *tx) error {
	row, err := t.volume(ctx, c.Ref)
	if err != nil {
		return err
	}
	if err := t.settle(ctx, volumeSubject(c.Ref), c.IntentID); err != nil {
		return err
	}
	if err := t.volumeUnused(ctx, c.Ref); err != nil {
		return err
	}
	hint := c.Hint
	if row.Type != string(state.VolumeCustom) && hint.Action == "" {
		hint = silent
	}
	return t.deleteVolume(ctx, row, hint)
}

func (t *tx) deleteVolume(ctx context.Context, row sqlgen.Volume, hint Hint) error {
	v, err := volumeNoun(row)
	if err != nil {
		return err
	}
	if err := t.q.DeleteVolume(ctx, row.ID); err != nil {
		return wrap(err, "delete storage volume %q", row.Name)
	}
	t.recordDelete(KindVolume, v, hint, "storage-volume-deleted")
	return nil
}

func (t *tx) volume(ctx context.Context, r VolumeRef) (sqlgen.Volume, error) {
	row, err := t.q.FindVolume(ctx, sqlgen.FindVolumeParams{Pool: r.Pool, Project: r.Project, Type: string(r.Type), Name: r.Name, Location: r.Location})
	return row, found(err, "storage volume %q of pool %q", r.Name, r.Pool)
}

func volumeNoun(r sqlgen.Volume) (*state.Volume, error) {
	config, err := decodeColumn[state.Config](r.Config)
	v := &state.Volume{
		Meta: state.Meta{Revision: state.Revision(r.Revision)},
		Pool: r.Pool, Project: r.Project, Type: state.VolumeType(r.Type), Name: r.Name, Description: r.Description, Config: config,
		CreatedAt: r.CreatedAt.UTC(),
	}
	if r.Location != nil {
		v.Location = *r.Location
	}
	return v, err
}
