package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"muster/state"
)

// group is one transaction for several commands. A command that fails must leave
// nothing behind. Nearly all that fail do so before they have written anything, so
// a group runs without savepoints first, which would cost each command a third of
// its time; when a command fails later than that, the group runs again, carefully:
// with a savepoint for each.
type group struct {
	session  *session
	careful  bool
	now      time.Time
	revision state.Revision
	term     uint64
	answers  []answer
	saved    []savedChange
	changes  []Change
	outcomes []outcome
}

// errLeftovers means that a command failed after it had written something, and that
// there is no savepoint to go back to.
var errLeftovers = errors.New("a command that failed left something behind")

// run runs the commands up to the commit. Its error is for all of them.
func (g *group) run(ctx context.Context, asked []*request) error {
	if err := g.session.do(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	ids := make([]string, len(asked))
	for i, r := range asked {
		ids[i] = r.envelope.ID
	}
	known, err := g.session.lookup(ctx, ids)
	if err != nil {
		return err
	}
	for i, r := range asked {
		o, done := known[r.envelope.ID]
		if !done {
			if o, err = g.command(ctx, r); err != nil {
				return err
			}
			g.outcomes = append(g.outcomes, o)
			known[o.id] = o // should the same command be here twice
		}
		g.answers[i] = o.answer()
	}
	if g.term > g.session.term {
		if err := g.session.q.SetTerm(ctx, int64(g.term)); err != nil {
			return err
		}
	}
	if err := g.session.saveChanges(ctx, g.saved); err != nil {
		return err
	}
	return g.session.saveOutcomes(ctx, g.outcomes)
}

// command runs one command and returns its outcome; its error is for the whole
// group.
func (g *group) command(ctx context.Context, r *request) (outcome, error) {
	if g.careful {
		if err := g.session.do(ctx, "SAVEPOINT command"); err != nil {
			return outcome{}, err
		}
	}
	t := &tx{q: g.session.q, now: g.now, revision: g.revision + 1, requestor: r.envelope.Requestor, schema: g.session.schema}
	written := g.session.stmts.written
	var saved []savedChange
	var changes []Change
	err := g.fence(r.envelope.Term)
	if err == nil {
		if err = r.command.apply(ctx, t); err == nil {
			saved, changes, err = t.finish()
		}
	}
	switch {
	case isLost(err) || isBusy(err):
		return outcome{}, err
	case err != nil && g.session.stmts.written > written && !g.careful:
		return outcome{}, errLeftovers
	case err != nil && g.careful:
		if err := g.session.do(ctx, "ROLLBACK TO command"); err != nil {
			return outcome{}, err
		}
	}
	if err == nil && len(saved) > 0 {
		g.revision++
		g.saved = append(g.saved, saved...)
		g.changes = append(g.changes, changes...)
	}
	return outcomeOf(r.envelope.ID, g.revision, err), nil
}

// fence refuses a coordinator that is no longer one.
func (g *group) fence(term uint64) error {
	if term == 0 {
		return nil
	}
	if term < g.term {
		return state.Errorf(state.ErrConflict, "the coordinator of term %d has been replaced: the newest term is %d", term, g.term)
	}
	g.term = term
	return nil
}

// finish encodes the changes of a command, and decodes them as every member will:
// the objects in the View are made of what was written down.
func (t *tx) finish() ([]savedChange, []Change, error) {
	if len(t.drafts) > indexMax {
		return nil, nil, state.Errorf(state.ErrInvalid, "one command can change %d objects at most, not %d", indexMax, len(t.drafts))
	}
	saved := make([]savedChange, len(t.drafts))
	changes := make([]Change, len(t.drafts))
	for i := range t.drafts {
		raw, err := json.Marshal(&t.drafts[i])
		if err != nil {
			return nil, nil, fmt.Errorf("encode a change: %w", err)
		}
		if changes[i], err = decodeChange(t.drafts[i].Kind, raw); err != nil {
			return nil, nil, fmt.Errorf("decode a change: %w", err)
		}
		saved[i] = savedChange{position: position(t.revision, i), body: string(raw)}
	}
	return saved, changes, nil
}
