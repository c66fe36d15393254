package store

import (
	"context"

	"muster/state"
	"muster/state/store/sqlgen"
)

// CreatePool makes a storage pool. With an Intent it is busy until a command ends
// that intent.
type CreatePool struct {
	Pool state.Pool
	// Intent opens with the command; its subject is filled in. It may be nil.
	Intent *state.Intent
	Hint   Hint
}

// UpdatePool replaces a pool's description and configuration; ErrConflict while
// something else is under way for it than the intent named.
type UpdatePool struct {
	Name        string
	Description string
	Config      state.Config
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID       string
	ExpectRevision state.Revision
	Hint           Hint
}

// DeletePool removes a pool: ErrConflict when it holds volumes other than those
// of images, when a profile or an instance uses it, or while something else is
// under way for it than the intent named. Volumes of images go with it.
type DeletePool struct {
	Name     string
	IntentID string
	Hint     Hint
}

func (CreatePool) name() string { return "create-pool" }

func (c CreatePool) apply(ctx context.Context, t *tx) error {
	p := c.Pool
	if err := nameable("storage pool", p.Name); err != nil {
		return err
	}
	p.Busy = ""
	if c.Intent != nil {
		p.Busy = c.Intent.Kind
		if err := t.open(ctx, poolSubject(p.Name), *c.Intent, ""); err != nil {
			return err
		}
	}
	err := t.q.InsertPool(ctx, sqlgen.InsertPoolParams{
		Name: p.Name, Description: p.Description, Driver: p.Driver, Config: encodeConfig(p.Config), Busy: p.Busy, Revision: t.rev(),
	})
	if err != nil {
		return fresh(err, "storage pool %q", p.Name)
	}
	t.record(KindPool, &p, c.Hint, "storage-pool-created")
	return nil
}

func (UpdatePool) name() string { return "update-pool" }

func (c UpdatePool) apply(ctx context.Context, t *tx) error {
	p, err := t.pool(ctx, c.Name)
	if err != nil {
		return err
	}
	if err := expect(c.ExpectRevision, int64(p.Revision), "storage pool %q", c.Name); err != nil {
		return err
	}
	if err := t.settle(ctx, poolSubject(c.Name), c.IntentID); err != nil {
		return err
	}
	p.Description, p.Config, p.Busy = c.Description, c.Config, ""
	return t.savePool(ctx, p, c.Hint, "storage-pool-updated")
}

func (t *tx) savePool(ctx context.Context, p *state.Pool, hint Hint, usual string) error {
	err := t.q.UpdatePool(ctx, sqlgen.UpdatePoolParams{Description: p.Description, Config: encodeConfig(p.Config), Busy: p.Busy, Revision: t.rev(), Name: p.Name})
	if err != nil {
		return wrap(err, "update storage pool %q", p.Name)
	}
	t.record(KindPool, p, hint, usual)
	return nil
}

func (DeletePool) name() string { return "delete-pool" }

func (c DeletePool) apply(ctx context.Context, t *tx) error {
	p, err := t.pool(ctx, c.Name)
	if err != nil {
		return err
	}
	if err := t.settle(ctx, poolSubject(c.Name), c.IntentID); err != nil {
		return err
	}
	if err := t.poolUnused(ctx, p); err != nil {
		return err
	}
	images, err := t.q.ListVolumesOfPool(ctx, c.Name)
	if err != nil {
		return wrap(err, "delete storage pool %q", c.Name)
	}
	for _, row := range images {
		if err := t.deleteVolume(ctx, row, silent); err != nil {
			return err
		}
	}
	if err := t.q.DeletePool(ctx, c.Name); err != nil {
		return wrap(err, "delete storage pool %q", c.Name)
	}
	t.recordDelete(KindPool, p, c.Hint, "storage-pool-deleted")
	return nil
}

func (t *tx) pool(ctx context.Context, name string) (*state.Pool, error) {
	row, err := t.q.FindPool(ctx, name)
	if err != nil {
		return nil, found(err, "storage pool %q", name)
	}
	return poolNoun(row)
}

func poolNoun(r sqlgen.Pool) (*state.Pool, error) {
	config, err := decodeColumn[state.Config](r.Config)
	return &state.Pool{
		Meta: state.Meta{Revision: state.Revision(r.Revision)},
		Name: r.Name, Description: r.Description, Driver: r.Driver, Config: config, Busy: r.Busy,
	}, err
}
