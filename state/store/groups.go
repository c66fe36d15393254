package store

import (
	"context"
	"slices"

	"muster/state"
	"muster/state/store/sqlgen"
)

// CreateGroup makes a cluster group with the named members.
type CreateGroup struct {
	Group   state.Group
	Members []string
	Hint    Hint
}

// UpdateGroup replaces a group's description and members. ErrConflict when a member
// would be in no group.
type UpdateGroup struct {
	Name           string
	Description    string
	Members        []string
	ExpectRevision state.Revision
	Hint           Hint
}

// RenameGroup gives a group another name, also in its members; ErrForbidden for the
// default group.
type RenameGroup struct {
	Name    string
	NewName string
	Hint    Hint
}

// DeleteGroup removes a group: ErrConflict while members are in it, ErrForbidden for the
// default group.
type DeleteGroup struct {
	Name string
	Hint Hint
}

func (CreateGroup) name() string { return "create-group" }

func (c CreateGroup) apply(ctx context.Context, t *tx) error {
	g := c.Group
	if err := nameable("cluster group", g.Name); err != nil {
		return err
	}
	err := t.q.InsertGroup(ctx, sqlgen.InsertGroupParams{Name: g.Name, Description: g.Description, Revision: t.rev()})
	if err != nil {
		return fresh(err, "cluster group %q", g.Name)
	}
	t.record(KindGroup, &g, c.Hint, "cluster-group-created")
	return t.fillGroup(ctx, g.Name, c.Members)
}

func (UpdateGroup) name() string { return "update-group" }

func (c UpdateGroup) apply(ctx context.Context, t *tx) error {
	g, err := t.group(ctx, c.Name)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, int64(g.Revision), "cluster group %q", c.Name); err != nil {
		return err
	}
	g.Description = c.Description
	if err := t.saveGroup(ctx, g, c.Name); err != nil {
		return err
	}
	t.record(KindGroup, g, c.Hint, "cluster-group-updated")
	return t.fillGroup(ctx, c.Name, c.Members)
}

// fillGroup makes exactly these members the group's.
func (t *tx) fillGroup(ctx context.Context, group string, members []string) error {
	for _, name := range members {
		if _, err := t.member(ctx, name); err != nil {
			return err
		}
	}
	return t.eachMember(ctx, func(m *state.Member) (bool, error) {
		in, wanted := slices.Contains(m.Groups, group), slices.Contains(members, m.Name)
		switch {
		case in == wanted:
			return false, nil
		case wanted:
			m.Groups = append(m.Groups, group)
			slices.Sort(m.Groups)
			return true, nil
		}
		m.Groups = slices.DeleteFunc(m.Groups, func(g string) bool { return g == group })
		if len(m.Groups) == 0 {
			return false, state.Errorf(state.ErrConflict, "member %q is in no other cluster group than %q: put it into one first", m.Name, group)
		}
		return true, nil
	})
}

// eachMember saves the members that change changes.
func (t *tx) eachMember(ctx context.Context, change func(*state.Member) (changed bool, err error)) error {
	members, err := loaders[KindMember](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range members {
		m := noun.(*state.Member)
		changed, err := change(m)
		if err != nil {
			return err
		}
		if !changed {
			continue
		}
		if err := t.saveMember(ctx, m, silent, ""); err != nil {
			return err
		}
	}
	return nil
}

func (RenameGroup) name() string { return "rename-group" }

func (c RenameGroup) apply(ctx context.Context, t *tx) error {
	if err := nameable("cluster group", c.NewName); err != nil {
		return err
	}
	before, err := t.group(ctx, c.Name)
	if err != nil {
		return err
	}
	if c.Name == state.DefaultGroup {
		return state.Errorf(state.ErrForbidden, "the cluster group %q can't be renamed", c.Name)
	}
	after := *before
	after.Name = c.NewName
	if err := t.saveGroup(ctx, &after, c.Name); err != nil {
		return err
	}
	t.recordRename(KindGroup, before, &after, c.Hint, "cluster-group-renamed")
	return t.eachMember(ctx, func(m *state.Member) (bool, error) {
		i := slices.Index(m.Groups, c.Name)
		if i < 0 {
			return false, nil
		}
		m.Groups[i] = c.NewName
		slices.Sort(m.Groups)
		return true, nil
	})
}

func (DeleteGroup) name() string { return "delete-group" }

func (c DeleteGroup) apply(ctx context.Context, t *tx) error {
	g, err := t.group(ctx, c.Name)
	if err != nil {
		return err
	}
	if c.Name == state.DefaultGroup {
		return state.Errorf(state.ErrForbidden, "the cluster group %q can't be deleted", c.Name)
	}
	err = t.eachMember(ctx, func(m *state.Member) (bool, error) {
		if slices.Contains(m.Groups, c.Name) {
			return false, state.Errorf(state.ErrConflict, "cluster group %q still has members, %q among them: take them out first", c.Name, m.Name)
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	if err := t.q.DeleteGroup(ctx, c.Name); err != nil {
		return wrap(err, "delete cluster group %q", c.Name)
	}
	t.recordDelete(KindGroup, g, c.Hint, "cluster-group-deleted")
	return nil
}

func (t *tx) saveGroup(ctx context.Context, g *state.Group, name string) error {
	err := t.q.UpdateGroup(ctx, sqlgen.UpdateGroupParams{NewName: g.Name, Description: g.Description, Revision: t.rev(), Name: name})
	if err != nil {
		return fresh(err, "cluster group %q", g.Name)
	}
	return nil
}

func (t *tx) group(ctx context.Context, name string) (*state.Group, error) {
	row, err := t.q.FindGroup(ctx, name)
	if err != nil {
		return nil, found(err, "cluster group %q", name)
	}
	return groupNoun(row)
}

func groupNoun(r sqlgen.MemberGroup) (*state.Group, error) {
	return &state.Group{Meta: state.Meta{Revision: state.Revision(r.Revision)}, Name: r.Name, Description: r.Description}, nil
}
