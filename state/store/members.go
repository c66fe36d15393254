package store

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"muster/state"
	"muster/state/store/sqlgen"
)

// AddMember records a member that joins; ErrExists when its name or ID is taken.
type AddMember struct {
	Member state.Member
	Hint   Hint
}

// UpdateMember replaces what users may edit of a member.
type UpdateMember struct {
	Name        string
	Description string
	Config      state.Config
	// Domain and Groups are kept when empty.
	Domain         string
	Groups         []string
	ExpectRevision state.Revision
	Hint           Hint
}

// SetMemberFacts records what a member says of itself; what is empty is kept. Its usual
// event is none: give a Hint.
type SetMemberFacts struct {
	Name         string
	Address      string
	Architecture string
	Certificate  string
	Capacity     state.Resources
	Hint         Hint
}

// RenameMember gives a member another name, everywhere it is mentioned.
type RenameMember struct {
	Name    string
	NewName string
	Hint    Hint
}

// DeleteMember forgets a member; ErrConflict while instances, volumes or intents
// are on it.
type DeleteMember struct {
	Name string
	// Instances says that the member's instances, and what was under way on it, are
	// forgotten with it.
	Instances bool
	// Mark, when not empty, is the removal that this ends: ErrConflict when it was taken
	// over or taken back.
	Mark string
	Hint Hint
}

func (AddMember) name() string { return "add-member" }

func (c AddMember) apply(ctx context.Context, t *tx) error {
	return t.addMember(ctx, c.Member, c.Hint)
}

func (t *tx) addMember(ctx context.Context, m state.Member, hint Hint) error {
	if err := nameable("cluster member", m.Name); err != nil {
		return err
	}
	if m.ID == "" {
		return state.Errorf(state.ErrInvalid, "member %q needs an ID", m.Name)
	}
	m.CreatedAt = t.created(m.CreatedAt)
	m.Domain = cmp.Or(m.Domain, state.DefaultDomain)
	if len(m.Groups) == 0 {
		m.Groups = []string{state.DefaultGroup}
	}
	err := t.q.InsertMember(ctx, sqlgen.InsertMemberParams{
		ID: m.ID, Name: m.Name, Address: m.Address, Architecture: m.Architecture, Description: m.Description,
		Config: encodeConfig(m.Config), Certificate: m.Certificate, CreatedAt: m.CreatedAt, Revision: t.rev(),
		Cpu: m.Capacity.CPU, Memory: m.Capacity.Memory, Disk: m.Capacity.Disk, FailureDomain: m.Domain,
		GroupsIn: encodeList(m.Groups),
	})
	if err != nil {
		return fresh(err, "cluster member %q (ID %s)", m.Name, m.ID)
	}
	t.record(KindMember, &m, hint, "cluster-member-added")
	return nil
}

func (UpdateMember) name() string { return "update-member" }

func (c UpdateMember) apply(ctx context.Context, t *tx) error {
	m, err := t.member(ctx, c.Name)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, int64(m.Revision), "member %q", c.Name); err != nil {
		return err
	}
	if m.Config[LostKey] != "" {
		// Without the mark it would be let in again, with a database of its own.
		return state.Errorf(state.ErrConflict, "member %q was given up when the cluster was recovered: it can only be removed", c.Name)
	}
	config := maps.Clone(c.Config)
	if config == nil {
		config = state.Config{}
	}
	for key, value := range m.Config {
		if strings.HasPrefix(key, "volatile.") {
			config[key] = value // the cluster's own, which users neither see nor change
		}
	}
	m.Description, m.Config, m.Domain = c.Description, config, cmp.Or(c.Domain, m.Domain)
	if len(c.Groups) > 0 {
		m.Groups = slices.Compact(slices.Sorted(slices.Values(c.Groups)))
		for _, group := range m.Groups {
			if _, err := t.group(ctx, group); err != nil {
				return err
			}
		}
	}
	return t.saveMember(ctx, m, c.Hint, "cluster-member-updated")
}

func (SetMemberFacts) name() string { return "set-member-facts" }

func (c SetMemberFacts) apply(ctx context.Context, t *tx) error {
	m, err := t.member(ctx, c.Name)
	if err != nil {
		return err
	}
	m.Address, m.Architecture = cmp.Or(c.Address, m.Address), cmp.Or(c.Architecture, m.Architecture)
	m.Certificate, m.Capacity = cmp.Or(c.Certificate, m.Certificate), cmp.Or(c.Capacity, m.Capacity)
	return t.saveMember(ctx, m, c.Hint, NoEvent)
}

func (t *tx) saveMember(ctx context.Context, m *state.Member, hint Hint, usual string) error {
	err := t.q.UpdateMember(ctx, sqlgen.UpdateMemberParams{
		Address: m.Address, Architecture: m.Architecture, Description: m.Description, Config: encodeConfig(m.Config),
		Certificate: m.Certificate, Revision: t.rev(), Name: m.Name,
		Cpu: m.Capacity.CPU, Memory: m.Capacity.Memory, Disk: m.Capacity.Disk, FailureDomain: m.Domain,
		GroupsIn: encodeList(m.Groups),
	})
	if err != nil {
		return wrap(err, "update member %q", m.Name)
	}
	t.record(KindMember, m, hint, usual)
	return nil
}

func (RenameMember) name() string { return "rename-member" }

func (c RenameMember) apply(ctx context.Context, t *tx) error {
	if err := nameable("cluster member", c.NewName); err != nil {
		return err
	}
	before, err := t.member(ctx, c.Name)
	if err != nil {
		return err
	}
	if c.NewName == c.Name {
		return nil
	}
	settings, err := loadSettings(ctx, t.q)
	if err != nil {
		return err
	}
	// The old volumes are needed too: a volume's location is part of what it is.
	volumes, err := loaders[KindVolume](ctx, t.q)
	if err != nil {
		return err
	}
	if err := t.q.RenameMember(ctx, sqlgen.RenameMemberParams{NewName: c.NewName, Revision: t.rev(), Name: c.Name}); err != nil {
		return fresh(err, "cluster member %q", c.NewName)
	}
	after := *before
	after.Name = c.NewName
	t.recordRename(KindMember, before, &after, c.Hint, "cluster-member-renamed")
	for _, noun := range settings {
		if s := noun.(*state.Setting); s.Member == c.Name {
			moved := *s
			moved.Member = c.NewName
			t.recordRename(KindSetting, s, &moved, silent, "")
		}
	}
	for _, noun := range volumes {
		if v := noun.(*state.Volume); v.Location == c.Name {
			moved := *v
			moved.Location = c.NewName
			t.recordRename(KindVolume, v, &moved, silent, "")
		}
	}
	return c.mentions(ctx, t)
}

// mentions gives the objects that mention the member, by now by its new name, the
// command's revision.
func (c RenameMember) mentions(ctx context.Context, t *tx) error {
	for _, touch := range []func() error{
		func() error {
			return t.q.TouchSettingsOfMember(ctx, sqlgen.TouchSettingsOfMemberParams{Revision: t.rev(), Member: c.NewName})
		},
		func() error {
			return t.q.TouchVolumesOfMember(ctx, sqlgen.TouchVolumesOfMemberParams{Revision: t.rev(), Location: &c.NewName})
		},
		func() error {
			return t.q.TouchInstancesOfMember(ctx, sqlgen.TouchInstancesOfMemberParams{Revision: t.rev(), Location: c.NewName})
		},
		func() error {
			return t.q.TouchIntentsOfMember(ctx, sqlgen.TouchIntentsOfMemberParams{Revision: t.rev(), Member: c.NewName})
		},
		func() error {
			return t.q.TouchImagesOfMember(ctx, sqlgen.TouchImagesOfMemberParams{Revision: t.rev(), Member: c.NewName})
		},
	} {
		if err := touch(); err != nil {
			return wrap(err, "rename member %q", c.Name)
		}
	}
	if err := t.mentionsLocals(ctx, c.NewName); err != nil {
		return err
	}
	for _, kind := range []Kind{KindInstance, KindIntent, KindImage} {
		nouns, err := loaders[kind](ctx, t.q)
		if err != nil {
			return err
		}
		for _, noun := range nouns {
			if metaOf(noun).Revision == t.revision {
				t.record(kind, noun, silent, "")
			}
		}
	}
	return nil
}

func (DeleteMember) name() string { return "delete-member" }

func (c DeleteMember) apply(ctx context.Context, t *tx) error {
	m, err := t.member(ctx, c.Name)
	if err != nil {
		return err
	}
	if mark, _ := Leaving(m); c.Mark != "" && mark != c.Mark {
		return state.Errorf(state.ErrConflict, "the removal of member %q was taken over or taken back meanwhile: look at the members, and try again", c.Name)
	}
	settings, err := loadSettings(ctx, t.q)
	if err != nil {
		return err
	}
	images, err := loaders[KindImage](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range images {
		if image := noun.(*state.Image); slices.Contains(image.Members, c.Name) {
			if err := (RemoveImageMember{image.Project, image.Fingerprint, c.Name}).apply(ctx, t); err != nil {
				return err
			}
		}
	}
	if c.Instances {
		if err := t.forgetWork(ctx, c.Name); err != nil {
			return err
		}
	}
	if err := t.dropLocals(ctx, c.Name); err != nil {
		return err
	}
	err = t.q.DeleteMember(ctx, c.Name)
	if isCode(err, codeForeignKey) {
		return state.Errorf(state.ErrConflict, "member %q still has instances, volumes or work under way: move or delete them first", c.Name)
	}
	if err != nil {
		return wrap(err, "delete member %q", c.Name)
	}
	for _, noun := range settings {
		if s := noun.(*state.Setting); s.Member == c.Name {
			t.recordDelete(KindSetting, s, silent, "")
		}
	}
	t.recordDelete(KindMember, m, c.Hint, "cluster-member-removed")
	return nil
}

// forgetWork drops the intents and the instances of a member that is gone for good.
func (t *tx) forgetWork(ctx context.Context, member string) error {
	intents, err := loaders[KindIntent](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range intents {
		if intent := noun.(*state.Intent); intent.Member == member {
			if err := (End{ID: intent.ID, Hint: silent}).apply(ctx, t); err != nil {
				return err
			}
		}
	}
	instances, err := loaders[KindInstance](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range instances {
		if i := noun.(*state.Instance); i.Location == member {
			if err := (DeleteInstance{Project: i.Project, Name: i.Name}).apply(ctx, t); err != nil {
				return err
			}
		}
	}
	volumes, err := loaders[KindVolume](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range volumes {
		v := noun.(*state.Volume)
		if v.Location != member {
			continue
		}
		row, err := t.volume(ctx, VolumeRef{Pool: v.Pool, Project: v.Project, Type: v.Type, Name: v.Name, Location: v.Location})
		if err != nil {
			return err
		}
		if err := t.deleteVolume(ctx, row, silent); err != nil {
			return err
		}
	}
	return nil
}

// LoseMember marks a member as given up: it is refused from then on, and kept for its
// instances until it is removed.
type LoseMember struct {
	Name string
	Hint Hint
}

func (LoseMember) name() string { return "lose-member" }

func (c LoseMember) apply(ctx context.Context, t *tx) error {
	m, err := t.member(ctx, c.Name)
	if err != nil {
		return err
	}
	if m.Config == nil {
		m.Config = state.Config{}
	}
	m.Config[LostKey] = "true"
	return t.saveMember(ctx, m, c.Hint, NoEvent)
}

func (t *tx) member(ctx context.Context, name string) (*state.Member, error) {
	row, err := t.q.FindMember(ctx, name)
	if err != nil {
		return nil, found(err, "cluster member %q", name)
	}
	return memberNoun(row)
}

func memberNoun(r sqlgen.Member) (*state.Member, error) {
	config, err := decodeColumn[state.Config](r.Config)
	if err != nil {
		return nil, err
	}
	groups, err := decodeColumn[[]string](r.GroupsIn)
	return &state.Member{
		Meta: state.Meta{Revision: state.Revision(r.Revision)},
		ID:   r.ID, Name: r.Name, Address: r.Address, Architecture: r.Architecture, Description: r.Description,
		Config: config, Certificate: r.Certificate, CreatedAt: r.CreatedAt.UTC(),
		Capacity: state.Resources{CPU: r.Cpu, Memory: r.Memory, Disk: r.Disk}, Domain: r.FailureDomain, Groups: groups,
	}, err
}
