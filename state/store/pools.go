package store

import (
	"context"
	"errors"

	"muster/state"
	"muster/state/store/sqlgen"
)

// DefinePool says what a storage pool will be on one member, before CreatePool makes it
// on all.
type DefinePool struct {
	Name   string
	Driver string
	Member string
	// Config has the keys that are this member's.
	Config state.Config
	Hint   Hint
}

// CreatePool makes a storage pool. It is busy until each member in Pool.Locals has
// recorded that its part is there; parts that were defined before keep their
// configuration. One that some members could not make is made there once more.
type CreatePool struct {
	Pool state.Pool
	Hint Hint
}

// UpdatePool replaces a pool's description and configuration; ErrConflict while
// something is under way for it.
type UpdatePool struct {
	Name        string
	Description string
	Config      state.Config
	// Member, when not empty, is whose part Local replaces the configuration of.
	Member         string
	Local          state.Config
	ExpectRevision state.Revision
	Hint           Hint
}

// SetPoolLocal records what a pool is on a member.
type SetPoolLocal struct {
	Name   string
	Member string
	Local  state.Local
	Hint   Hint
}

// DropPoolLocal records that a member's part of a pool is gone. With the last one the
// pool goes.
type DropPoolLocal struct {
	Name   string
	Member string
	Hint   Hint
}

// DeletePool begins to remove a pool: ErrConflict when it holds volumes other than those
// of images, when a profile or an instance uses it, or while something is under way for
// it. Volumes of images go with it. The pool goes when each member has dropped its part.
type DeletePool struct {
	Name string
	Hint Hint
}

func (DefinePool) name() string { return "define-pool" }

func (c DefinePool) apply(ctx context.Context, t *tx) error {
	p, err := t.pool(ctx, c.Name)
	switch {
	case errors.Is(err, state.ErrNotFound):
		p = &state.Pool{Name: c.Name, Driver: c.Driver, Config: state.Config{}, Locals: state.Locals{}}
		if err := t.insertPool(ctx, p); err != nil {
			return err
		}
	case err != nil:
		return err
	case !p.Locals.Pending():
		return state.Errorf(state.ErrExists, "storage pool %q already exists", c.Name)
	case p.Driver != c.Driver:
		return state.Errorf(state.ErrInvalid, "driver %q: storage pool %q was defined with driver %q on another member", c.Driver, c.Name, p.Driver)
	}
	if err := define(poolSubject(c.Name), p.Locals, c.Member, c.Config); err != nil {
		return err
	}
	return t.savePool(ctx, p, c.Hint, NoEvent)
}

func (CreatePool) name() string { return "create-pool" }

func (c CreatePool) apply(ctx context.Context, t *tx) error {
	p := c.Pool
	before, err := t.pool(ctx, p.Name)
	switch {
	case errors.Is(err, state.ErrNotFound):
		if err := t.insertPool(ctx, &p); err != nil {
			return err
		}
		before = &state.Pool{}
	case err != nil:
		return err
	case !before.Locals.Pending() && !before.Locals.Errored():
		return state.Errorf(state.ErrExists, "storage pool %q already exists", p.Name)
	case before.Driver != p.Driver:
		return state.Errorf(state.ErrInvalid, "driver %q: storage pool %q was defined with driver %q", p.Driver, p.Name, before.Driver)
	}
	p.Locals = realize(before.Locals, p.Locals)
	p.Busy = underWay("create", p.Locals)
	usual := "storage-pool-created"
	if p.Busy != "" {
		usual = NoEvent // comes when it is there
	}
	return t.savePool(ctx, &p, c.Hint, usual)
}

func (t *tx) insertPool(ctx context.Context, p *state.Pool) error {
	if err := nameable("storage pool", p.Name); err != nil {
		return err
	}
	err := t.q.InsertPool(ctx, sqlgen.InsertPoolParams{
		Name: p.Name, Description: p.Description, Driver: p.Driver, Config: encodeConfig(p.Config), Busy: p.Busy, Revision: t.rev(),
	})
	return fresh(err, "storage pool %q", p.Name)
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
	if p.Busy != "" {
		return busy(poolSubject(c.Name), p.Busy)
	}
	p.Description, p.Config = c.Description, c.Config
	if c.Member != "" {
		local, found := p.Locals[c.Member]
		if !found {
			return state.Errorf(state.ErrNotFound, "storage pool %q is not on member %q", c.Name, c.Member)
		}
		local.Config = c.Local
		p.Locals[c.Member] = local
	}
	return t.savePool(ctx, p, c.Hint, "storage-pool-updated")
}

func (SetPoolLocal) name() string { return "set-pool-local" }

func (c SetPoolLocal) apply(ctx context.Context, t *tx) error {
	p, err := t.pool(ctx, c.Name)
	if err != nil {
		return err
	}
	local, found := p.Locals[c.Member]
	if !found {
		return state.Errorf(state.ErrNotFound, "storage pool %q is not on member %q", c.Name, c.Member)
	}
	if local.Status == state.LocalDeleting && c.Local.Status != state.LocalDeleting {
		return busy(poolSubject(c.Name), "delete")
	}
	if local.Status != state.LocalDeleting && c.Local.Status == state.LocalDeleting {
		return nil // the removal that did not succeed was taken back
	}
	p.Locals[c.Member] = c.Local
	return t.settlePool(ctx, p, c.Hint)
}

func (DropPoolLocal) name() string { return "drop-pool-local" }

func (c DropPoolLocal) apply(ctx context.Context, t *tx) error {
	p, err := t.pool(ctx, c.Name)
	if err != nil {
		return err
	}
	if p.Locals[c.Member].Status != state.LocalDeleting {
		return nil // its removal was taken back: it is made again
	}
	delete(p.Locals, c.Member)
	return t.settlePool(ctx, p, c.Hint)
}

// settlePool records a pool some member's part of which changed, or that it is gone.
func (t *tx) settlePool(ctx context.Context, p *state.Pool, hint Hint) error {
	if len(p.Locals) == 0 {
		return t.removePool(ctx, p, hint)
	}
	before := p.Busy
	p.Busy = underWay(p.Busy, p.Locals)
	usual := NoEvent
	if before == "create" && p.Locals.Status() == "Created" {
		usual = "storage-pool-created"
	}
	return t.savePool(ctx, p, hint, usual)
}

func (t *tx) savePool(ctx context.Context, p *state.Pool, hint Hint, usual string) error {
	err := t.q.UpdatePool(ctx, sqlgen.UpdatePoolParams{Description: p.Description, Config: encodeConfig(p.Config), Busy: p.Busy, Revision: t.rev(), Name: p.Name})
	if err != nil {
		return wrap(err, "update storage pool %q", p.Name)
	}
	if err := t.saveLocals(ctx, poolSubject(p.Name), p.Locals); err != nil {
		return err
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
	// What is still being made may be taken back; what is being deleted is being so.
	if p.Busy == "delete" {
		return busy(poolSubject(c.Name), p.Busy)
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
	if p.Locals = leave(p.Locals); len(p.Locals) == 0 {
		return t.removePool(ctx, p, c.Hint)
	}
	p.Busy = "delete"
	return t.savePool(ctx, p, silent, "")
}

func (t *tx) removePool(ctx context.Context, p *state.Pool, hint Hint) error {
	if err := t.saveLocals(ctx, poolSubject(p.Name), nil); err != nil {
		return err
	}
	if err := t.q.DeletePool(ctx, p.Name); err != nil {
		return wrap(err, "delete storage pool %q", p.Name)
	}
	t.recordDelete(KindPool, p, hint, "storage-pool-deleted")
	return nil
}

func (t *tx) pool(ctx context.Context, name string) (*state.Pool, error) {
	row, err := t.q.FindPool(ctx, name)
	if err != nil {
		return nil, found(err, "storage pool %q", name)
	}
	p, err := poolNoun(row)
	if err != nil {
		return nil, err
	}
	p.Locals, err = t.locals(ctx, poolSubject(name))
	return p, err
}

func poolNoun(r sqlgen.Pool) (*state.Pool, error) {
	config, err := decodeColumn[state.Config](r.Config)
	return &state.Pool{
		Meta: state.Meta{Revision: state.Revision(r.Revision)},
		Name: r.Name, Description: r.Description, Driver: r.Driver, Config: config, Busy: r.Busy,
	}, err
}
