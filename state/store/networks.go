package store

import (
	"context"

	"muster/state"
	"muster/state/store/sqlgen"
)

// CreateNetwork makes a managed network. With an Intent it is busy until a command
// ends that intent.
type CreateNetwork struct {
	Network state.Network
	// Intent opens with the command; its subject is filled in. It may be nil.
	Intent *state.Intent
	Hint   Hint
}

// UpdateNetwork replaces a network's description and configuration; ErrConflict
// while something else is under way for it than the intent named.
type UpdateNetwork struct {
	Project     string
	Name        string
	Description string
	Config      state.Config
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID       string
	ExpectRevision state.Revision
	Hint           Hint
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

// DeleteNetwork removes a network: ErrConflict when a profile or an instance uses
// it, or while something else is under way for it than the intent named.
type DeleteNetwork struct {
	Project  string
	Name     string
	IntentID string
	Hint     Hint
}

func (CreateNetwork) name() string { return "create-network" }

func (c CreateNetwork) apply(ctx context.Context, t *tx) error {
	n := c.Network
	if err := nameable("network", n.Name); err != nil {
		return err
	}
	if _, err := t.project(ctx, n.Project); err != nil {
		return err
	}
	n.Busy = ""
	if c.Intent != nil {
		n.Busy = c.Intent.Kind
		if err := t.open(ctx, networkSubject(n.Project, n.Name), *c.Intent, ""); err != nil {
			return err
		}
	}
	err := t.q.InsertNetwork(ctx, sqlgen.InsertNetworkParams{
		Project: n.Project, Name: n.Name, Description: n.Description, Type: n.Type, Config: encodeConfig(n.Config), Busy: n.Busy, Revision: t.rev(),
	})
	if err != nil {
		return fresh(err, "network %q", n.Name)
	}
	t.record(KindNetwork, &n, c.Hint, "network-created")
	return nil
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
	if err := t.settle(ctx, networkSubject(c.Project, c.Name), c.IntentID); err != nil {
		return err
	}
	n.Description, n.Config, n.Busy = c.Description, c.Config, ""
	return t.saveNetwork(ctx, n, n.Name, c.Hint, "network-updated")
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
	if err := t.settle(ctx, networkSubject(c.Project, c.Name), c.IntentID); err != nil {
		return err
	}
	if err := t.networkUnused(ctx, n); err != nil {
		return err
	}
	if err := t.q.DeleteNetwork(ctx, sqlgen.DeleteNetworkParams{Project: c.Project, Name: c.Name}); err != nil {
		return wrap(err, "delete network %q", c.Name)
	}
	t.recordDelete(KindNetwork, n, c.Hint, "network-deleted")
	return nil
}

func networkNoun(r sqlgen.Network) (*state.Network, error) {
	config, err := decodeColumn[state.Config](r.Config)
	return &state.Network{
		Meta:    state.Meta{Revision: state.Revision(r.Revision)},
		Project: r.Project, Name: r.Name, Description: r.Description, Type: r.Type, Config: config, Busy: r.Busy,
	}, err
}
