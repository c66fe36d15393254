package store

import (
	"context"
	"maps"
	"slices"

	"muster/state"
	"muster/state/store/sqlgen"
)

// A pool or network is made of what holds for the cluster and of what it is on each
// member (state.Locals). The status of a member's part is the intent of that member: one
// that is Creating or Deleting is worked on, also after a crash, until it is recorded
// that it has ended.

// localNoun decodes a row.
func localNoun(r sqlgen.Local) (state.Local, error) {
	config, err := decodeColumn[state.Config](r.Config)
	return state.Local{Status: state.LocalStatus(r.Status), Config: config, Message: r.Message}, err
}

// locals reads what a pool or network is on each member.
func (t *tx) locals(ctx context.Context, s subject) (state.Locals, error) {
	rows, err := t.q.ListLocalsOf(ctx, sqlgen.ListLocalsOfParams{Kind: s.kind, Project: s.project, Name: s.name})
	if err != nil {
		return nil, wrap(err, "find where %s is", s)
	}
	locals := state.Locals{}
	for _, row := range rows {
		if locals[row.Member], err = localNoun(row); err != nil {
			return nil, err
		}
	}
	return locals, nil
}

// saveLocals records what a pool or network is on each member.
func (t *tx) saveLocals(ctx context.Context, s subject, locals state.Locals) error {
	if err := t.q.DeleteLocals(ctx, sqlgen.DeleteLocalsParams{Kind: s.kind, Project: s.project, Name: s.name}); err != nil {
		return wrap(err, "record where %s is", s)
	}
	for _, member := range locals.Members() {
		local := locals[member]
		err := t.q.InsertLocal(ctx, sqlgen.InsertLocalParams{
			Kind: s.kind, Project: s.project, Name: s.name, Member: member,
			Status: string(local.Status), Config: encodeConfig(local.Config), Message: local.Message,
		})
		if isCode(err, codeForeignKey) {
			return state.Errorf(state.ErrNotFound, "cluster member %q not found", member)
		}
		if err != nil {
			return wrap(err, "record where %s is", s)
		}
	}
	return nil
}

// withLocals is a loader that lays the rows of locals into what load returns.
func withLocals(kind string, load func(context.Context, *sqlgen.Queries) ([]any, error), of func(noun any) (s subject, locals *state.Locals)) func(context.Context, *sqlgen.Queries) ([]any, error) {
	return func(ctx context.Context, q *sqlgen.Queries) ([]any, error) {
		nouns, err := load(ctx, q)
		if err != nil {
			return nil, err
		}
		rows, err := q.ListLocals(ctx, kind)
		if err != nil {
			return nil, err
		}
		found := map[subject]state.Locals{}
		for _, row := range rows {
			s := subject{kind, row.Project, row.Name}
			if found[s] == nil {
				found[s] = state.Locals{}
			}
			if found[s][row.Member], err = localNoun(row); err != nil {
				return nil, err
			}
		}
		for _, noun := range nouns {
			s, locals := of(noun)
			if *locals = found[s]; *locals == nil {
				*locals = state.Locals{}
			}
		}
		return nouns, nil
	}
}

// underWay is the Busy of something of which some members still make or remove their
// part.
func underWay(before string, locals state.Locals) string {
	switch before {
	case "create":
		if !locals.Any(state.LocalCreating) {
			return ""
		}
	case "delete":
		if !locals.Any(state.LocalDeleting) {
			return ""
		}
	}
	return before
}

// define adds a member's part to something that is pending.
func define(s subject, locals state.Locals, member string, config state.Config) error {
	if _, defined := locals[member]; defined {
		return state.Errorf(state.ErrExists, "%s is defined on member %q already", s, member)
	}
	locals[member] = state.Local{Status: state.LocalPending, Config: config}
	return nil
}

// realize makes the parts of something that is pending or new: those defined before
// keep their configuration, the others have the given one.
func realize(defined, given state.Locals) state.Locals {
	locals := state.Locals{}
	for member, local := range given {
		if before, found := defined[member]; found {
			local.Config = mergedConfig(local.Config, before.Config)
		}
		local.Status = state.LocalCreating
		locals[member] = local
	}
	return locals
}

func mergedConfig(under, over state.Config) state.Config {
	merged := state.Config{}
	maps.Copy(merged, under)
	maps.Copy(merged, over)
	return merged
}

// leave marks every part as one to remove; a part that was never made goes at once.
func leave(locals state.Locals) state.Locals {
	left := state.Locals{}
	for member, local := range locals {
		if local.Status == state.LocalPending {
			continue
		}
		local.Status, local.Message = state.LocalDeleting, ""
		left[member] = local
	}
	return left
}

// joinLocals gives a member that joins its part of every pool and network, with what
// the request says is different on it.
func (t *tx) joinLocals(ctx context.Context, member string, pools, networks map[string]state.Config) error {
	existing, err := loaders[KindPool](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range existing {
		p := noun.(*state.Pool)
		if p.Busy == "delete" || p.Locals.Pending() {
			continue
		}
		p.Locals[member] = state.Local{Status: state.LocalCreating, Config: pools[p.Name]}
		if err := t.savePool(ctx, p, silent, ""); err != nil {
			return err
		}
	}
	if existing, err = loaders[KindNetwork](ctx, t.q); err != nil {
		return err
	}
	for _, noun := range existing {
		n := noun.(*state.Network)
		if n.Busy == "delete" || n.Locals.Pending() {
			continue
		}
		n.Locals[member] = state.Local{Status: state.LocalCreating, Config: networks[n.Name]}
		if err := t.saveNetwork(ctx, n, n.Name, silent, ""); err != nil {
			return err
		}
	}
	return nil
}

// dropLocals takes a member out of every pool and network. What was on no other, or was
// waiting for this member alone to be gone, is forgotten.
func (t *tx) dropLocals(ctx context.Context, member string) error {
	pools, err := loaders[KindPool](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range pools {
		p := noun.(*state.Pool)
		if _, found := p.Locals[member]; !found {
			continue
		}
		delete(p.Locals, member)
		if err := t.settlePool(ctx, p, silent); err != nil {
			return err
		}
	}
	networks, err := loaders[KindNetwork](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range networks {
		n := noun.(*state.Network)
		if _, found := n.Locals[member]; !found {
			continue
		}
		delete(n.Locals, member)
		if err := t.settleNetwork(ctx, n, silent); err != nil {
			return err
		}
	}
	return nil
}

// mentionsLocals gives the pools and networks of a renamed member the command's
// revision: their locals name it.
func (t *tx) mentionsLocals(ctx context.Context, member string) error {
	for _, kind := range []Kind{KindPool, KindNetwork} {
		nouns, err := loaders[kind](ctx, t.q)
		if err != nil {
			return err
		}
		for _, noun := range nouns {
			switch n := noun.(type) {
			case *state.Pool:
				if slices.Contains(n.Locals.Members(), member) {
					err = t.savePool(ctx, n, silent, "")
				}
			case *state.Network:
				if slices.Contains(n.Locals.Members(), member) {
					err = t.saveNetwork(ctx, n, n.Name, silent, "")
				}
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// LeavingKey is the configuration key of a member that is being removed: it takes no
// part in the consensus any more.
const LeavingKey = "volatile.leaving"

// ClearMember begins the removal of a member. It marks it as leaving, and takes its
// parts of all pools and networks away: the member removes them and drops each. A pool or
// network that is on no other member is ErrConflict while a device uses it.
type ClearMember struct {
	Name string
	Hint Hint
}

func (ClearMember) name() string { return "clear-member" }

func (c ClearMember) apply(ctx context.Context, t *tx) error {
	m, err := t.member(ctx, c.Name)
	if err != nil {
		return err
	}
	m.Config[LeavingKey] = "true"
	if err := t.saveMember(ctx, m, silent, ""); err != nil {
		return err
	}
	pools, err := loaders[KindPool](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range pools {
		p := noun.(*state.Pool)
		local, found := p.Locals[c.Name]
		if !found {
			continue
		}
		if len(p.Locals) == 1 {
			if err := t.poolUnused(ctx, p); err != nil {
				return err
			}
		}
		local.Status, local.Message = state.LocalDeleting, ""
		p.Locals[c.Name] = local
		if err := t.savePool(ctx, p, silent, ""); err != nil {
			return err
		}
	}
	networks, err := loaders[KindNetwork](ctx, t.q)
	if err != nil {
		return err
	}
	for _, noun := range networks {
		n := noun.(*state.Network)
		local, found := n.Locals[c.Name]
		if !found {
			continue
		}
		if len(n.Locals) == 1 {
			if err := t.networkUnused(ctx, n); err != nil {
				return err
			}
		}
		local.Status, local.Message = state.LocalDeleting, ""
		n.Locals[c.Name] = local
		if err := t.saveNetwork(ctx, n, n.Name, silent, ""); err != nil {
			return err
		}
	}
	return nil
}
