package store

import (
	"context"
	"errors"

	"muster/state"
	"muster/state/store/sqlgen"
)

// DefineNetwork says what a managed network will be on one member, before CreateNetwork
// makes it on all.
type DefineNetwork struct {
	Project string
	Name    string
	Type    string
	Member  string
	// Config has the keys that are this member's.
	Config state.Config
	Hint   Hint
}

// CreateNetwork makes a managed network. It is busy until each member in Network.Locals
// has recorded that its part is there; parts that were defined before keep their
// configuration.
type CreateNetwork struct {
	Network state.Network
	Hint    Hint
}

// UpdateNetwork replaces a network's description and configuration; ErrConflict
// while something is under way for it.
type UpdateNetwork struct {
	Project     string
	Name        string
	Description string
	Config      state.Config
	// Member, when not empty, is whose part Local replaces the configuration of.
	Member         string
	Local          state.Config
	ExpectRevision state.Revision
	Hint           Hint
}

// SetNetworkLocal records what a network is on a member.
type SetNetworkLocal struct {
	Project string
	Name    string
	Member  string
	Local   state.Local
	Hint    Hint
}

// DropNetworkLocal records that a member's part of a network is gone. With the last one
// the network goes.
type DropNetworkLocal struct {
	Project string
	Name    string
	Member  string
	Hint    Hint
}

// RenameNetwork gives a network another name: ErrConflict when a profile or an
// instance uses it.
type RenameNetwork struct {
	Project  string
	Name     string
	NewName  string
	IntentID string
	Hint     Hint
}

// DeleteNetwork begins to remove a network: ErrConflict when a profile or an instance
// uses it, or while something is under way for it. The network goes when each member has
// dropped its part.
type DeleteNetwork struct {
	Project string
	Name    string
	Hint    Hint
}

func (DefineNetwork) name() string { return "define-network" }

func (c DefineNetwork) apply(ctx context.Context, t *tx) error {
	n, err := t.network(ctx, c.Project, c.Name)
	switch {
	case errors.Is(err, state.ErrNotFound):
		n = &state.Network{Project: c.Project, Name: c.Name, Type: c.Type, Config: state.Config{}, Locals: state.Locals{}}
		if err := t.insertNetwork(ctx, n); err != nil {
			return err
		}
	case err != nil:
		return err
	case !n.Locals.Pending():
		return state.Errorf(state.ErrExists, "network %q already exists", c.Name)
	}
	if err := define(networkSubject(c.Project, c.Name), n.Locals, c.Member, c.Config); err != nil {
		return err
	}
	return t.saveNetwork(ctx, n, n.Name, c.Hint, NoEvent)
}

func (CreateNetwork) name() string { return "create-network" }

func (c CreateNetwork) apply(ctx context.Context, t *tx) error {
	n := c.Network
	before, err := t.network(ctx, n.Project, n.Name)
	switch {
	case errors.Is(err, state.ErrNotFound):
		if err := t.insertNetwork(ctx, &n); err != nil {
			return err
		}
		before = &state.Network{}
	case err != nil:
		return err
	case !before.Locals.Pending() && !before.Locals.Errored():
		return state.Errorf(state.ErrExists, "network %q already exists", n.Name)
	}
	n.Locals = realize(before.Locals, n.Locals)
	n.Busy = underWay("create", n.Locals)
	usual := "network-created"
	if n.Busy != "" {
		usual = NoEvent // comes when it is there
	}
	return t.saveNetwork(ctx, &n, n.Name, c.Hint, usual)
}

func (t *tx) insertNetwork(ctx context.Context, n *state.Network) error {
	if err := nameable("network", n.Name); err != nil {
		return err
	}
	if _, err := t.project(ctx, n.Project); err != nil {
		return err
	}
	err := t.q.InsertNetwork(ctx, sqlgen.InsertNetworkParams{
		Project: n.Project, Name: n.Name, Description: n.Description, Type: n.Type, Config: encodeConfig(n.Config), Busy: n.Busy, Revision: t.rev(),
	})
	return fresh(err, "network %q", n.Name)
}

func (UpdateNetwork) name() string { return "update-network" }

func (c UpdateNetwork) apply(ctx context.Context, t *tx) error {
	n, err := t.network(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, int64(n.Revision), "network %q", c.Name); err != nil {
		return err
	}
	if n.Busy != "" {
		return busy(networkSubject(c.Project, c.Name), n.Busy)
	}
	n.Description, n.Config = c.Description, c.Config
	if c.Member != "" {
		local, found := n.Locals[c.Member]
		if !found {
			return state.Errorf(state.ErrNotFound, "network %q is not on member %q", c.Name, c.Member)
		}
		local.Config = c.Local
		n.Locals[c.Member] = local
	}
	return t.saveNetwork(ctx, n, n.Name, c.Hint, "network-updated")
}

func (SetNetworkLocal) name() string { return "set-network-local" }

func (c SetNetworkLocal) apply(ctx context.Context, t *tx) error {
	n, err := t.network(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	local, found := n.Locals[c.Member]
	if !found {
		return state.Errorf(state.ErrNotFound, "network %q is not on member %q", c.Name, c.Member)
	}
	if local.Status == state.LocalDeleting && c.Local.Status != state.LocalDeleting {
		return busy(networkSubject(c.Project, c.Name), "delete")
	}
	if local.Status != state.LocalDeleting && c.Local.Status == state.LocalDeleting {
		return nil // the removal that did not succeed was taken back
	}
	n.Locals[c.Member] = c.Local
	return t.settleNetwork(ctx, n, c.Hint)
}

func (DropNetworkLocal) name() string { return "drop-network-local" }

func (c DropNetworkLocal) apply(ctx context.Context, t *tx) error {
	n, err := t.network(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if n.Locals[c.Member].Status != state.LocalDeleting {
		return nil // its removal was taken back: it is made again
	}
	delete(n.Locals, c.Member)
	return t.settleNetwork(ctx, n, c.Hint)
}

// settleNetwork records a network some member's part of which changed, or that it is
// gone.
func (t *tx) settleNetwork(ctx context.Context, n *state.Network, hint Hint) error {
	if len(n.Locals) == 0 {
		return t.removeNetwork(ctx, n, hint)
	}
	before := n.Busy
	n.Busy = underWay(n.Busy, n.Locals)
	usual := NoEvent
	if before == "create" && n.Locals.Status() == "Created" {
		usual = "network-created"
	}
	return t.saveNetwork(ctx, n, n.Name, hint, usual)
}

func (t *tx) saveNetwork(ctx context.Context, n *state.Network, name string, hint Hint, usual string) error {
	before := *n
	before.Name = name
	err := t.q.UpdateNetwork(ctx, sqlgen.UpdateNetworkParams{
		NewName: n.Name, Description: n.Description, Config: encodeConfig(n.Config), Busy: n.Busy, Revision: t.rev(), Project: n.Project, Name: name,
	})
	if err != nil {
		return fresh(err, "network %q", n.Name)
	}
	if name != n.Name {
		err := t.q.RenameLocals(ctx, sqlgen.RenameLocalsParams{NewName: n.Name, Kind: SubjectNetwork, Project: n.Project, Name: name})
		if err != nil {
			return wrap(err, "rename network %q", name)
		}
	}
	if err := t.saveLocals(ctx, networkSubject(n.Project, n.Name), n.Locals); err != nil {
		return err
	}
	if name == n.Name {
		t.record(KindNetwork, n, hint, usual)
	} else {
		t.recordRename(KindNetwork, &before, n, hint, usual)
	}
	return nil
}

func (RenameNetwork) name() string { return "rename-network" }

func (c RenameNetwork) apply(ctx context.Context, t *tx) error {
	if err := nameable("network", c.NewName); err != nil {
		return err
	}
	n, err := t.network(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	if err := t.settle(ctx, networkSubject(c.Project, c.Name), c.IntentID); err != nil {
		return err
	}
	if err := t.networkUnused(ctx, n); err != nil {
		return err
	}
	n.Name, n.Busy = c.NewName, ""
	return t.saveNetwork(ctx, n, c.Name, c.Hint, "network-renamed")
}

func (DeleteNetwork) name() string { return "delete-network" }

func (c DeleteNetwork) apply(ctx context.Context, t *tx) error {
	n, err := t.network(ctx, c.Project, c.Name)
	if err != nil {
		return err
	}
	// What is still being made may be taken back.
	if n.Busy != "" && n.Busy != "create" {
		return busy(networkSubject(c.Project, c.Name), n.Busy)
	}
	if err := t.networkUnused(ctx, n); err != nil {
		return err
	}
	if n.Locals = leave(n.Locals); len(n.Locals) == 0 {
		return t.removeNetwork(ctx, n, c.Hint)
	}
	n.Busy = "delete"
	return t.saveNetwork(ctx, n, n.Name, silent, "")
}

func (t *tx) removeNetwork(ctx context.Context, n *state.Network, hint Hint) error {
	if err := t.saveLocals(ctx, networkSubject(n.Project, n.Name), nil); err != nil {
		return err
	}
	if err := t.q.DeleteNetwork(ctx, sqlgen.DeleteNetworkParams{Project: n.Project, Name: n.Name}); err != nil {
		return wrap(err, "delete network %q", n.Name)
	}
	t.recordDelete(KindNetwork, n, hint, "network-deleted")
	return nil
}

func networkNoun(r sqlgen.Network) (*state.Network, error) {
	config, err := decodeColumn[state.Config](r.Config)
	return &state.Network{
		Meta:    state.Meta{Revision: state.Revision(r.Revision)},
		Project: r.Project, Name: r.Name, Description: r.Description, Type: r.Type, Config: config, Busy: r.Busy,
	}, err
}
