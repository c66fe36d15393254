package store

import (
	"context"
	"maps"

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

// realize makes the parts of something that is pending or new, or those that could not be
// made: those defined before keep their configuration, the others have the given one.
func realize(defined, given state.Locals) state.Locals {
	locals := state.Locals{}
	for member, local := range given {
		if before, found := defined[member]; found {
			if before.Status == state.LocalCreated {
				locals[member] = before
				continue
			}
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

// shared is a pool or network, as far as it is made of a part on each member.
type shared struct {
	subject
	busy   string
	locals state.Locals
	// save records it after its locals were changed; settle does when a part went or was
	// finished, which may end what is under way for it, or end it.
	save, settle func(ctx context.Context) error
	// unused is ErrConflict when a device uses it.
	unused func(ctx context.Context) error
}

// eachShared goes through all pools and networks.
func (t *tx) eachShared(ctx context.Context, do func(shared) error) error {
	for _, kind := range []Kind{KindPool, KindNetwork} {
		nouns, err := loaders[kind](ctx, t.q)
		if err != nil {
			return err
		}
		for _, noun := range nouns {
			if err := do(t.shared(noun)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tx) shared(noun any) shared {
	if p, ok := noun.(*state.Pool); ok {
		return shared{
			subject: poolSubject(p.Name), busy: p.Busy, locals: p.Locals,
			save:   func(ctx context.Context) error { return t.savePool(ctx, p, silent, "") },
			settle: func(ctx context.Context) error { return t.settlePool(ctx, p, silent) },
			unused: func(ctx context.Context) error { return t.poolUnused(ctx, p) },
		}
	}
	n := noun.(*state.Network)
	return shared{
		subject: networkSubject(n.Project, n.Name), busy: n.Busy, locals: n.Locals,
		save:   func(ctx context.Context) error { return t.saveNetwork(ctx, n, n.Name, silent, "") },
		settle: func(ctx context.Context) error { return t.settleNetwork(ctx, n, silent) },
		unused: func(ctx context.Context) error { return t.networkUnused(ctx, n) },
	}
}

// joinLocals gives a member a part of every pool and network that it has none of, with
// what is different on it. A part that it was to remove stays.
func (t *tx) joinLocals(ctx context.Context, member string, own func(subject) state.Config) error {
	return t.eachShared(ctx, func(s shared) error {
		local, found := s.locals[member]
		if s.busy == "delete" || s.locals.Pending() || found && local.Status != state.LocalDeleting {
			return nil
		}
		if !found {
			local.Config = own(s.subject)
		}
		s.locals[member] = state.Local{Status: state.LocalCreating, Config: local.Config}
		return s.save(ctx)
	})
}

// dropLocals takes a member out of every pool and network. What was on no other, or was
// waiting for this member alone to be gone, is forgotten.
func (t *tx) dropLocals(ctx context.Context, member string) error {
	return t.eachShared(ctx, func(s shared) error {
		if _, found := s.locals[member]; !found {
			return nil
		}
		delete(s.locals, member)
		return s.settle(ctx)
	})
}

// clearLocals has a member remove its parts of all pools and networks, and returns what
// was different on it. A pool or network that is on no other member is ErrConflict while
// a device uses it.
func (t *tx) clearLocals(ctx context.Context, member string) (own map[string]state.Config, err error) {
	own = map[string]state.Config{}
	return own, t.eachShared(ctx, func(s shared) error {
		local, found := s.locals[member]
		if !found {
			return nil
		}
		if len(s.locals) == 1 {
			if err := s.unused(ctx); err != nil {
				return err
			}
		}
		own[s.String()] = local.Config
		local.Status, local.Message = state.LocalDeleting, ""
		s.locals[member] = local
		return s.save(ctx)
	})
}

// mentionsLocals gives the pools and networks of a renamed member the command's
// revision: their locals name it.
func (t *tx) mentionsLocals(ctx context.Context, member string) error {
	return t.eachShared(ctx, func(s shared) error {
		if _, found := s.locals[member]; !found {
			return nil
		}
		return s.save(ctx)
	})
}
