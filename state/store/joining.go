package store

import (
	"context"
	"errors"

	"muster/state"
)

// JoiningKey is the configuration key of a member whose join has not ended: the cluster
// has admitted it, and it has not said yet that it works as a member. Its value is the
// hash of the join token's secret, or JoinedByPassword.
const JoiningKey = "volatile.joining"

// JoinedByPassword is the value of JoiningKey of a member that was admitted by the trust
// password.
const JoinedByPassword = "password"

// Joining reports whether the join of a member has not ended yet.
func Joining(m *state.Member) bool { return m.Config[JoiningKey] != "" }

// EndJoin notes that a member works as one. It is no error when that was noted before.
type EndJoin struct {
	Name string
	Hint Hint
}

// TakeBackJoin forgets a member that was admitted and never came. It changes nothing when
// the join has ended, or another server has that name by now.
type TakeBackJoin struct {
	Name string
	ID   string
	Hint Hint
}

// rejoins reports whether a server that is to be recorded as a member was admitted before
// by the same token or password, and its join has not ended. The answer to its first
// request was lost, so it is admitted again: what was recorded of it is forgotten.
func (t *tx) rejoins(ctx context.Context, m *state.Member) (bool, error) {
	if m == nil || !Joining(m) {
		return false, nil
	}
	before, err := t.member(ctx, m.Name)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err != nil || before.ID != m.ID || before.Config[JoiningKey] != m.Config[JoiningKey] {
		return false, err
	}
	return true, DeleteMember{Name: m.Name, Hint: silent}.apply(ctx, t)
}

func (EndJoin) name() string { return "end-join" }

func (c EndJoin) apply(ctx context.Context, t *tx) error {
	m, err := t.member(ctx, c.Name)
	if err != nil || !Joining(m) {
		return err
	}
	delete(m.Config, JoiningKey)
	return t.saveMember(ctx, m, c.Hint, NoEvent)
}

func (TakeBackJoin) name() string { return "take-back-join" }

func (c TakeBackJoin) apply(ctx context.Context, t *tx) error {
	m, err := t.member(ctx, c.Name)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil || m.ID != c.ID || !Joining(m) {
		return err
	}
	return DeleteMember{Name: c.Name, Hint: c.Hint}.apply(ctx, t)
}
