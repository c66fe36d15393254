package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"muster/state"
	"muster/state/store/sqlgen"
)

// CreateInstance makes an instance, busy with the intent "create" until
// FinishCreate or DeleteInstance ends it. Its profiles, project and member must
// exist (ErrNotFound), its name must be free in the project (ErrExists).
type CreateInstance struct {
	// Instance is what to record; ID, Busy and Revision are the store's.
	Instance state.Instance
	// Intent opens with the command: ID and Input are the caller's, the rest is
	// filled in. Kind is "create" when empty.
	Intent state.Intent
	// Image, when not empty, is the full fingerprint of the image it is made from:
	// the image must exist in ImageProject (or the instance's project when that is
	// empty) and not be on its way out, cannot be deleted until the create ends, and
	// its last use becomes the instance's CreatedAt.
	Image        string
	ImageProject string
	// Volume, when not nil, is the instance's volume, made with it.
	Volume *state.Volume
	// Room is what the instances on its member may need in sum, itself included; a
	// part of it that is zero is not looked at. ErrConflict when it is too little.
	Room state.Resources
	// Hint is none unless given: FinishCreate makes the event.
	Hint Hint
}

// FinishCreate ends the creation of an instance: it is no longer busy and its
// status is Status (Stopped when empty).
type FinishCreate struct {
	Project  string
	Name     string
	IntentID string
	Status   state.Status
	// Set is merged into the configuration (volatile keys, mostly).
	Set  state.Config
	Hint Hint
}

// UpdateInstance replaces what users may edit of an instance; its profiles must
// exist. ErrConflict while something else is under way for it than the intent
// named.
type UpdateInstance struct {
	Project      string
	Name         string
	Architecture string
	Description  string
	Ephemeral    bool
	Config       state.Config
	Devices      state.Devices
	Profiles     []string
	// Need is kept when zero.
	Need state.Resources
	// AnyTarget lets devices name networks and storage pools that are no longer there, as
	// those of a snapshot may.
	AnyTarget bool
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID       string
	ExpectRevision state.Revision
	Hint           Hint
}

// SetInstanceState records what the hosting member did or saw. It is allowed
// whatever else is under way. Its usual event is none: give a Hint.
type SetInstanceState struct {
	Project string
	Name    string
	// Status is kept when empty.
	Status state.Status
	// Set and Unset change single configuration keys; a key of Unset that ends in a
	// dot unsets all keys that start with it.
	Set   state.Config
	Unset []string
	// LastUsedAt is kept when zero.
	LastUsedAt time.Time
	// IntentID, when not empty, is the intent that ends with this command, which
	// must be open for the instance.
	IntentID string
	Hint     Hint
}

// MoveInstance records that another member hosts the instance from now on.
type MoveInstance struct {
	Project  string
	Name     string
	Location string
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID string
	// ArrivedID, when not empty, is the new host's intent to remove what it has of the
	// instance, which ends. Left, when not nil, is the old one's, which opens.
	ArrivedID string
	Left      *state.Intent
	Hint      Hint
}

// RenameInstance gives an instance another name, also in its snapshots and its
// container volumes.
type RenameInstance struct {
	Project string
	Name    string
	NewName string
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID string
	Hint     Hint
}

// DeleteInstance forgets an instance with its snapshots and its container volumes:
// ErrConflict while something else is under way for it than the intent named.
type DeleteInstance struct {
	Project string
	Name    string
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID string
	Hint     Hint
}

func (CreateInstance) name() string { return "create-instance" }

func (c CreateInstance) apply(ctx context.Context, t *tx) error {
	i := c.Instance
	if err := nameable("instance", i.Name); err != nil {
		return err
	}
	if err := t.deviceTargets(ctx, i.Project, i.Devices); err != nil {
		return err
	}
	intent := c.Intent
	intent.Kind = cmp.Or(intent.Kind, "create")
	intent.Member = cmp.Or(intent.Member, i.Location)
	i.Busy, i.Status = intent.Kind, cmp.Or(i.Status, state.StatusStopped)
	i.CreatedAt = t.created(i.CreatedAt)
	// The row first: a name that is taken is worth more words than a busy one.
	if err := t.insertInstance(ctx, &i); err != nil {
		return err
	}
	if err := t.fits(ctx, &i, c.Room); err != nil {
		return err
	}
	held := ""
	if c.Image != "" {
		var err error
		if held, err = t.takeImage(ctx, cmp.Or(c.ImageProject, i.Project), c.Image, i.CreatedAt); err != nil {
			return err
		}
	}
	if err := t.open(ctx, instanceSubject(i.Project, i.Name), intent, held); err != nil {
		return err
	}
	if c.Volume != nil {
		if err := t.createVolume(ctx, *c.Volume, silent, ""); err != nil {
			return err
		}
	}
	t.record(KindInstance, &i, c.Hint, "")
	return nil
}

// fits refuses an instance that its member, by now, has too little room for: whoever
// chose the member knew only what was recorded then.
func (t *tx) fits(ctx context.Context, i *state.Instance, room state.Resources) error {
	if room == (state.Resources{}) {
		return nil
	}
	sum, err := t.q.SumNeeds(ctx, i.Location)
	if err != nil {
		return wrap(err, "add up what member %q hosts", i.Location)
	}
	for _, c := range []struct {
		what       string
		need, room int64
	}{{"processors", sum.Cpu, room.CPU}, {"memory", sum.Memory, room.Memory}, {"disk space", sum.Disk, room.Disk}} {
		if c.room > 0 && c.need > c.room {
			return state.Errorf(state.ErrConflict, "member %q is short of %s for instance %q: choose another, or make room there", i.Location, c.what, i.Name)
		}
	}
	return nil
}

// takeImage marks an image used, and returns what holds it.
func (t *tx) takeImage(ctx context.Context, project, fingerprint string, at time.Time) (string, error) {
	if err := t.imageUsed(ctx, project, fingerprint, at); err != nil {
		return "", err
	}
	if err := t.idle(ctx, imageSubject(project, fingerprint)); err != nil {
		return "", err
	}
	return holdName(project, fingerprint), nil
}

func (t *tx) insertInstance(ctx context.Context, i *state.Instance) error {
	id, err := t.q.InsertInstance(ctx, sqlgen.InsertInstanceParams{
		Project: i.Project, Name: i.Name, Location: i.Location, Architecture: i.Architecture, Description: i.Description,
		Ephemeral: i.Ephemeral, Stateful: i.Stateful, Config: encodeConfig(i.Config), Devices: encodeDevices(i.Devices), Status: string(i.Status),
		CreatedAt: i.CreatedAt, LastUsedAt: optional(i.LastUsedAt), Busy: i.Busy, Revision: t.rev(),
		NeedCpu: i.Need.CPU, NeedMemory: i.Need.Memory, NeedDisk: i.Need.Disk,
	})
	if isCode(err, codeForeignKey) {
		if _, err := t.project(ctx, i.Project); err != nil {
			return err
		}
		_, err := t.member(ctx, i.Location)
		return err
	}
	if err != nil {
		return fresh(err, "instance %q", i.Name)
	}
	i.ID = id
	return t.giveProfiles(ctx, i)
}

// giveProfiles records the instance's profiles.
func (t *tx) giveProfiles(ctx context.Context, i *state.Instance) error {
	for n, profile := range i.Profiles {
		if slices.Contains(i.Profiles[:n], profile) {
			return state.Errorf(state.ErrInvalid, "instance %q has profile %q twice", i.Name, profile)
		}
		err := t.q.InsertInstanceProfile(ctx, sqlgen.InsertInstanceProfileParams{Instance: i.ID, Position: int64(n), Project: i.Project, Profile: profile})
		if isCode(err, codeForeignKey) {
			return state.Errorf(state.ErrNotFound, "profile %q not found", profile)
		}
		if err != nil {
			return wrap(err, "give instance %q profile %q", i.Name, profile)
		}
	}
	return nil
}

func (FinishCreate) name() string { return "finish-create" }

func (c FinishCreate) apply(ctx context.Context, t *tx) error {
	i, err := t.instance(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if c.IntentID == "" {
		return state.Errorf(state.ErrInvalid, "the creation of instance %q ends by its intent's ID", c.Name)
	}
	if err := t.settle(ctx, instanceSubject(c.Project, c.Name), c.IntentID); err != nil {
		return err
	}
	i.Busy, i.Status = "", cmp.Or(c.Status, state.StatusStopped)
	maps.Copy(i.Config, c.Set)
	return t.saveInstanceState(ctx, i, c.Hint, "instance-created")
}

func (UpdateInstance) name() string { return "update-instance" }

func (c UpdateInstance) apply(ctx context.Context, t *tx) error {
	i, err := t.instance(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, int64(i.Revision), "instance %q", c.Name); err != nil {
		return err
	}
	if err := t.settleInstance(ctx, i, c.IntentID); err != nil {
		return err
	}
	if !c.AnyTarget {
		if err := t.deviceTargets(ctx, i.Project, c.Devices); err != nil {
			return err
		}
	}
	same := slices.Equal(i.Profiles, c.Profiles)
	i.Architecture, i.Description, i.Ephemeral, i.Busy = c.Architecture, c.Description, c.Ephemeral, ""
	i.Config, i.Devices, i.Profiles, i.Need = c.Config, c.Devices, c.Profiles, cmp.Or(c.Need, i.Need)
	if !same {
		if err := t.q.DeleteInstanceProfiles(ctx, i.ID); err != nil {
			return wrap(err, "update instance %q", c.Name)
		}
		if err := t.giveProfiles(ctx, i); err != nil {
			return err
		}
	}
	if err := t.saveInstance(ctx, i); err != nil {
		return err
	}
	t.record(KindInstance, i, c.Hint, "instance-updated")
	return nil
}

// settleInstance is settle for an instance that was read: its row says what is under
// way for it, so that need not be looked for.
func (t *tx) settleInstance(ctx context.Context, i *state.Instance, intentID string) error {
	if intentID == "" && i.Busy == "" {
		return nil
	}
	return t.settle(ctx, instanceSubject(i.Project, i.Name), intentID)
}

func (t *tx) saveInstance(ctx context.Context, i *state.Instance) error {
	err := t.q.UpdateInstance(ctx, sqlgen.UpdateInstanceParams{
		Name: i.Name, Location: i.Location, Architecture: i.Architecture, Description: i.Description, Ephemeral: i.Ephemeral,
		Config: encodeConfig(i.Config), Devices: encodeDevices(i.Devices), Status: string(i.Status), LastUsedAt: optional(i.LastUsedAt),
		Busy: i.Busy, Revision: t.rev(), ID: i.ID,
		NeedCpu: i.Need.CPU, NeedMemory: i.Need.Memory, NeedDisk: i.Need.Disk,
	})
	if isCode(err, codeForeignKey) {
		return state.Errorf(state.ErrNotFound, "cluster member %q not found", i.Location)
	}
	if err != nil {
		return fresh(err, "instance %q", i.Name)
	}
	return nil
}

func (SetInstanceState) name() string { return "set-instance-state" }

func (c SetInstanceState) apply(ctx context.Context, t *tx) error {
	i, err := t.instance(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if c.IntentID != "" {
		if err := t.settle(ctx, instanceSubject(c.Project, c.Name), c.IntentID); err != nil {
			return err
		}
		i.Busy = ""
	}
	i.Status = cmp.Or(c.Status, i.Status)
	for _, unset := range c.Unset {
		delete(i.Config, unset)
		if strings.HasSuffix(unset, ".") {
			maps.DeleteFunc(i.Config, func(key, _ string) bool { return strings.HasPrefix(key, unset) })
		}
	}
	maps.Copy(i.Config, c.Set)
	if !c.LastUsedAt.IsZero() {
		i.LastUsedAt = c.LastUsedAt.UTC()
	}
	return t.saveInstanceState(ctx, i, c.Hint, "")
}

// saveInstanceState saves what changes often, and records the new version.
func (t *tx) saveInstanceState(ctx context.Context, i *state.Instance, hint Hint, usual string) error {
	err := t.q.UpdateInstanceState(ctx, sqlgen.UpdateInstanceStateParams{
		Config: encodeConfig(i.Config), Status: string(i.Status), LastUsedAt: optional(i.LastUsedAt), Busy: i.Busy, Revision: t.rev(), ID: i.ID,
	})
	if err != nil {
		return wrap(err, "record the state of instance %q", i.Name)
	}
	t.record(KindInstance, i, hint, usual)
	return nil
}

func (MoveInstance) name() string { return "move-instance" }

func (c MoveInstance) apply(ctx context.Context, t *tx) error {
	i, err := t.instance(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if err := t.settle(ctx, instanceSubject(c.Project, c.Name), c.IntentID); err != nil {
		return err
	}
	from := i.Location
	i.Location, i.Busy = c.Location, ""
	if err := t.saveInstance(ctx, i); err != nil {
		return err
	}
	volumes, err := t.volumesOf(ctx, i)
	if err != nil {
		return err
	}
	for _, row := range volumes {
		if row.Location == nil || *row.Location != from {
			continue
		}
		if err := t.renameVolume(ctx, row, row.Name, located(c.Location), silent, ""); err != nil {
			return err
		}
	}
	t.record(KindInstance, i, c.Hint, "instance-migrated")
	if c.ArrivedID != "" {
		if err := (End{ID: c.ArrivedID, Hint: silent}).apply(ctx, t); err != nil {
			return err
		}
	}
	if c.Left == nil {
		return nil
	}
	return t.open(ctx, subject{SubjectLeftover, c.Left.Project, c.Left.Name}, *c.Left, "")
}

func (RenameInstance) name() string { return "rename-instance" }

func (c RenameInstance) apply(ctx context.Context, t *tx) error {
	if err := nameable("instance", c.NewName); err != nil {
		return err
	}
	before, err := t.instance(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if err := t.settle(ctx, instanceSubject(c.Project, c.Name), c.IntentID); err != nil {
		return err
	}
	if err := t.snapshotsIdle(ctx, before); err != nil {
		return err
	}
	after := *before
	after.Name, after.Busy = c.NewName, ""
	volumes, err := t.volumesOf(ctx, before)
	if err != nil {
		return err
	}
	if err := t.saveInstance(ctx, &after); err != nil {
		return err
	}
	t.recordRename(KindInstance, before, &after, c.Hint, "instance-renamed")
	for _, row := range volumes {
		if err := t.renameVolume(ctx, row, c.NewName, row.Location, silent, ""); err != nil {
			return err
		}
	}
	if err := t.q.TouchSnapshotsOf(ctx, sqlgen.TouchSnapshotsOfParams{Revision: t.rev(), Instance: after.ID}); err != nil {
		return wrap(err, "rename instance %q", c.Name)
	}
	snapshots, err := t.snapshotsOf(ctx, &after)
	if err != nil {
		return err
	}
	for _, snapshot := range snapshots {
		was := *snapshot
		was.Instance = c.Name
		t.recordRename(KindSnapshot, &was, snapshot, silent, "")
	}
	return nil
}

func (DeleteInstance) name() string { return "delete-instance" }

func (c DeleteInstance) apply(ctx context.Context, t *tx) error {
	i, err := t.instance(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if err := t.settleInstance(ctx, i, c.IntentID); err != nil {
		return err
	}
	snapshots, err := t.snapshotsOf(ctx, i)
	if err != nil {
		return err
	}
	for _, snapshot := range snapshots {
		// A snapshot's own work ends with the instance that was given up first.
		intent, err := t.q.FindIntent(ctx, sqlgen.FindIntentParams{Subject: SubjectSnapshot, Project: c.Project, Name: c.Name + "/" + snapshot.Name})
		if err == nil && c.IntentID == "" {
			return busy(snapshotSubject(c.Project, c.Name, snapshot.Name), intent.Kind)
		}
		if err == nil {
			noun, _ := intentNoun(intent)
			if err := t.closeIntent(ctx, noun); err != nil {
				return err
			}
		} else if !errors.Is(err, sql.ErrNoRows) {
			return wrap(err, "delete instance %q", c.Name)
		}
		t.recordDelete(KindSnapshot, snapshot, silent, "")
	}
	volumes, err := t.volumesOf(ctx, i)
	if err != nil {
		return err
	}
	for _, row := range volumes {
		if err := t.deleteVolume(ctx, row, silent); err != nil {
			return err
		}
	}
	if err := t.q.DeleteInstance(ctx, i.ID); err != nil {
		return wrap(err, "delete instance %q", c.Name)
	}
	t.recordDelete(KindInstance, i, c.Hint, "instance-deleted")
	return nil
}

// volumesOf returns the container volumes of an instance, in any pool.
func (t *tx) volumesOf(ctx context.Context, i *state.Instance) ([]sqlgen.Volume, error) {
	rows, err := t.q.ListVolumesOfInstance(ctx, sqlgen.ListVolumesOfInstanceParams{Project: i.Project, Name: i.Name})
	return rows, wrap(err, "find the volumes of instance %q", i.Name)
}

func (t *tx) instance(ctx context.Context, project, name string) (*state.Instance, error) {
	row, err := t.q.FindInstance(ctx, sqlgen.FindInstanceParams{Project: project, Name: name})
	if err != nil {
		return nil, found(err, "instance %q", name)
	}
	return instanceNoun(row.Instance, row.Profiles)
}

func instanceNoun(r sqlgen.Instance, profiles string) (*state.Instance, error) {
	config, err := decodeColumn[state.Config](r.Config)
	if err != nil {
		return nil, err
	}
	devices, err := decodeColumn[state.Devices](r.Devices)
	return &state.Instance{
		Meta: state.Meta{Revision: state.Revision(r.Revision)},
		ID:   r.ID, Project: r.Project, Name: r.Name, Location: r.Location, Architecture: r.Architecture, Description: r.Description,
		Ephemeral: r.Ephemeral, Stateful: r.Stateful, Config: config, Devices: devices, Profiles: names(profiles),
		Status: state.Status(r.Status), CreatedAt: r.CreatedAt.UTC(), LastUsedAt: moment(r.LastUsedAt), Busy: r.Busy,
		Need: state.Resources{CPU: r.NeedCpu, Memory: r.NeedMemory, Disk: r.NeedDisk},
	}, err
}
