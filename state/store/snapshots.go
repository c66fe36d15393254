package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"time"

	"muster/state"
	"muster/state/store/sqlgen"
)

// CreateSnapshot records a snapshot of an instance. With an Intent it is busy
// until FinishSnapshot or DeleteSnapshot ends it.
type CreateSnapshot struct {
	// Snapshot is what to record. When its Config is nil, architecture,
	// ephemeral, configuration, devices and profiles are the instance's at this
	// moment, and so is the description unless it is given.
	Snapshot state.Snapshot
	// Intent opens with the command; its subject is filled in, and its Kind is
	// "create" when empty. It may be nil.
	Intent *state.Intent
	// Within, when not empty, is the ID of the intent open for the instance that
	// this snapshot is made as a part of: an instance that is being copied, say, is
	// busy for everybody else.
	Within string
	// Hint is none with an Intent unless given: FinishSnapshot makes the event.
	Hint Hint
}

// FinishSnapshot ends the creation of a snapshot.
type FinishSnapshot struct {
	Project  string
	Instance string
	Name     string
	IntentID string
	Hint     Hint
}

// UpdateSnapshot replaces a snapshot's description and expiry.
type UpdateSnapshot struct {
	Project        string
	Instance       string
	Name           string
	Description    string
	ExpiresAt      time.Time
	ExpectRevision state.Revision
	Hint           Hint
}

// RenameSnapshot gives a snapshot another name.
type RenameSnapshot struct {
	Project  string
	Instance string
	Name     string
	NewName  string
	IntentID string
	Hint     Hint
}

// DeleteSnapshot forgets a snapshot.
type DeleteSnapshot struct {
	Project  string
	Instance string
	Name     string
	IntentID string
	Hint     Hint
}

func (CreateSnapshot) name() string { return "create-snapshot" }

func (c CreateSnapshot) apply(ctx context.Context, t *tx) error {
	s := c.Snapshot
	if err := nameable("snapshot", s.Name); err != nil {
		return err
	}
	i, err := t.instance(ctx, s.Project, s.Instance)
	if err != nil {
		return err
	}
	if err := c.allowed(ctx, t, i); err != nil {
		return err
	}
	if s.Config == nil {
		s.Architecture, s.Description, s.Ephemeral = i.Architecture, cmp.Or(s.Description, i.Description), i.Ephemeral
		s.Config, s.Devices, s.Profiles = i.Config, i.Devices, i.Profiles
	}
	s.Busy = ""
	usual := "instance-snapshot-created"
	if c.Intent != nil {
		intent := *c.Intent
		intent.Kind = cmp.Or(intent.Kind, "create")
		intent.Member = cmp.Or(intent.Member, i.Location)
		s.Busy, usual = intent.Kind, ""
		if err := t.open(ctx, snapshotSubject(s.Project, s.Instance, s.Name), intent, ""); err != nil {
			return err
		}
	}
	s.CreatedAt = t.created(s.CreatedAt)
	s.ID, err = t.q.InsertSnapshot(ctx, sqlgen.InsertSnapshotParams{
		Instance: i.ID, Name: s.Name, Architecture: s.Architecture, Description: s.Description, Ephemeral: s.Ephemeral, Stateful: s.Stateful,
		Config: encodeConfig(s.Config), Devices: encodeDevices(s.Devices), Profiles: encodeList(s.Profiles),
		CreatedAt: s.CreatedAt, ExpiresAt: optional(s.ExpiresAt), Busy: s.Busy, Revision: t.rev(),
	})
	if err != nil {
		return fresh(err, "snapshot %q of instance %q", s.Name, s.Instance)
	}
	t.record(KindSnapshot, &s, c.Hint, usual)
	return nil
}

// allowed refuses a snapshot of an instance that something else is under way for.
func (c CreateSnapshot) allowed(ctx context.Context, t *tx, i *state.Instance) error {
	s := instanceSubject(i.Project, i.Name)
	if c.Within == "" {
		return t.idle(ctx, s)
	}
	intent, err := t.intent(ctx, c.Within)
	if err != nil {
		return err
	}
	if (subject{intent.Subject, intent.Project, intent.Name}) != s {
		return state.Errorf(state.ErrConflict, "intent %q is not about %s", c.Within, s)
	}
	return nil
}

func (FinishSnapshot) name() string { return "finish-snapshot" }

func (c FinishSnapshot) apply(ctx context.Context, t *tx) error {
	s, err := t.snapshot(ctx, c.Project, c.Instance, c.Name)
	if err != nil {
		return err
	}
	if c.IntentID == "" {
		return state.Errorf(state.ErrInvalid, "the creation of snapshot %q ends by its intent's ID", c.Name)
	}
	if err := t.settle(ctx, snapshotSubject(c.Project, c.Instance, c.Name), c.IntentID); err != nil {
		return err
	}
	s.Busy = ""
	return t.saveSnapshot(ctx, s, c.Hint, "instance-snapshot-created")
}

func (UpdateSnapshot) name() string { return "update-snapshot" }

func (c UpdateSnapshot) apply(ctx context.Context, t *tx) error {
	s, err := t.snapshot(ctx, c.Project, c.Instance, c.Name)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, int64(s.Revision), "snapshot %q of instance %q", c.Name, c.Instance); err != nil {
		return err
	}
	if err := t.settle(ctx, snapshotSubject(c.Project, c.Instance, c.Name), ""); err != nil {
		return err
	}
	s.Description, s.ExpiresAt = c.Description, c.ExpiresAt
	return t.saveSnapshot(ctx, s, c.Hint, "instance-snapshot-updated")
}

func (t *tx) saveSnapshot(ctx context.Context, s *state.Snapshot, hint Hint, usual string) error {
	if err := t.writeSnapshot(ctx, s); err != nil {
		return err
	}
	t.record(KindSnapshot, s, hint, usual)
	return nil
}

func (t *tx) writeSnapshot(ctx context.Context, s *state.Snapshot) error {
	err := t.q.UpdateSnapshot(ctx, sqlgen.UpdateSnapshotParams{
		Name: s.Name, Description: s.Description, ExpiresAt: optional(s.ExpiresAt), Busy: s.Busy, Revision: t.rev(), ID: s.ID,
	})
	if err != nil {
		return fresh(err, "snapshot %q of instance %q", s.Name, s.Instance)
	}
	return nil
}

func (RenameSnapshot) name() string { return "rename-snapshot" }

func (c RenameSnapshot) apply(ctx context.Context, t *tx) error {
	if err := nameable("snapshot", c.NewName); err != nil {
		return err
	}
	before, err := t.changeable(ctx, c.Project, c.Instance, c.Name, c.IntentID)
	if err != nil {
		return err
	}
	after := *before
	after.Name, after.Busy = c.NewName, ""
	if err := t.writeSnapshot(ctx, &after); err != nil {
		return err
	}
	t.recordRename(KindSnapshot, before, &after, c.Hint, "instance-snapshot-renamed")
	return nil
}

func (DeleteSnapshot) name() string { return "delete-snapshot" }

func (c DeleteSnapshot) apply(ctx context.Context, t *tx) error {
	s, err := t.changeable(ctx, c.Project, c.Instance, c.Name, c.IntentID)
	if err != nil {
		return err
	}
	if err := t.q.DeleteSnapshot(ctx, s.ID); err != nil {
		return wrap(err, "delete snapshot %q of instance %q", c.Name, c.Instance)
	}
	t.recordDelete(KindSnapshot, s, c.Hint, "instance-snapshot-deleted")
	return nil
}

// changeable returns a snapshot that may be renamed or deleted: by the one whose
// intent this ends, or while nothing is under way for it or its instance.
func (t *tx) changeable(ctx context.Context, project, instance, name, intentID string) (*state.Snapshot, error) {
	s, err := t.snapshot(ctx, project, instance, name)
	if err != nil {
		return nil, err
	}
	if err := t.settle(ctx, snapshotSubject(project, instance, name), intentID); err != nil {
		return nil, err
	}
	if intentID == "" {
		if err := t.idle(ctx, instanceSubject(project, instance)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// snapshotsIdle refuses with ErrConflict when something is under way for a snapshot
// of the instance.
func (t *tx) snapshotsIdle(ctx context.Context, i *state.Instance) error {
	row, err := t.q.FindBusySnapshot(ctx, i.ID)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return wrap(err, "see what is under way for the snapshots of instance %q", i.Name)
	}
	return busy(snapshotSubject(i.Project, i.Name, row.Name), row.Busy)
}

func (t *tx) snapshotsOf(ctx context.Context, i *state.Instance) ([]*state.Snapshot, error) {
	rows, err := t.q.ListSnapshotsOf(ctx, i.ID)
	if err != nil {
		return nil, wrap(err, "find the snapshots of instance %q", i.Name)
	}
	snapshots := make([]*state.Snapshot, len(rows))
	for n, row := range rows {
		if snapshots[n], err = snapshotNoun(row.Snapshot, row.ProjectName, row.InstanceName); err != nil {
			return nil, err
		}
	}
	return snapshots, nil
}

func (t *tx) snapshot(ctx context.Context, project, instance, name string) (*state.Snapshot, error) {
	row, err := t.q.FindSnapshot(ctx, sqlgen.FindSnapshotParams{Project: project, Instance: instance, Name: name})
	if err != nil {
		return nil, found(err, "snapshot %q of instance %q", name, instance)
	}
	return snapshotNoun(row.Snapshot, row.ProjectName, row.InstanceName)
}

func snapshotNoun(r sqlgen.Snapshot, project, instance string) (*state.Snapshot, error) {
	s := &state.Snapshot{
		Meta: state.Meta{Revision: state.Revision(r.Revision)},
		ID:   r.ID, Project: project, Instance: instance, Name: r.Name, Architecture: r.Architecture, Description: r.Description,
		Ephemeral: r.Ephemeral, Stateful: r.Stateful, CreatedAt: r.CreatedAt.UTC(), ExpiresAt: moment(r.ExpiresAt), Busy: r.Busy,
	}
	var err error
	if s.Config, err = decodeColumn[state.Config](r.Config); err != nil {
		return nil, err
	}
	if s.Devices, err = decodeColumn[state.Devices](r.Devices); err != nil {
		return nil, err
	}
	s.Profiles, err = decodeColumn[[]string](r.Profiles)
	return s, err
}
