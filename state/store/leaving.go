package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"muster/state"
)

// LeavingKey is the configuration key of a member that is being removed: it takes no
// part in the consensus any more, and gives up its parts of pools and networks.
const LeavingKey = "volatile.leaving"

// leaving is the value of LeavingKey.
type leaving struct {
	// Mark names the removal: it ends only what it began itself.
	Mark string `json:"mark"`
	// By is the ID of the member that carries the removal out.
	By string `json:"by,omitempty"`
	// Parts are what was different on the member, by the pool or network. It gets them
	// back when it stays.
	Parts map[string]state.Config `json:"parts,omitempty"`
}

// Leaving returns the removal of a member that is under way, by its mark, and the ID of
// the member that carries it out. The mark is empty when there is none.
func Leaving(m *state.Member) (mark, by string) {
	l, err := leavingOf(m)
	if err != nil {
		return m.Config[LeavingKey], ""
	}
	return l.Mark, l.By
}

// leavingOf reads what LeavingKey holds. A release before this one wrote "true" there.
func leavingOf(m *state.Member) (leaving, error) {
	text := m.Config[LeavingKey]
	if text == "" || text == "true" {
		return leaving{Mark: text}, nil
	}
	var l leaving
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return leaving{}, fmt.Errorf("read %s of member %q: %w", LeavingKey, m.Name, err)
	}
	return l, nil
}

// ClearMember begins the removal of a member. It marks it as leaving, and takes its
// parts of all pools and networks away: the member removes them and drops each. A pool or
// network that is on no other member is ErrConflict while a device uses it. A removal
// that was begun before is taken over.
type ClearMember struct {
	Name string
	// Mark names this removal: DeleteMember ends it, or StayMember takes it back. By is
	// the ID of the member that carries it out.
	Mark string
	By   string
	Hint Hint
}

// StayMember takes a removal back: the member gets its parts of pools and networks
// again, and may take part in the consensus. It is no error when the removal was taken
// over or taken back already.
type StayMember struct {
	Name string
	Mark string
	Hint Hint
}

func (ClearMember) name() string { return "clear-member" }

func (c ClearMember) apply(ctx context.Context, t *tx) error {
	m, err := t.member(ctx, c.Name)
	if err != nil {
		return err
	}
	if c.Mark == "" {
		return state.Errorf(state.ErrInvalid, "the removal of member %q needs a mark", c.Name)
	}
	before, err := leavingOf(m)
	if err != nil {
		return err
	}
	own, err := t.clearLocals(ctx, c.Name)
	if err != nil {
		return err
	}
	parts := map[string]state.Config{}
	maps.Copy(parts, before.Parts)
	maps.Copy(parts, own)
	text, err := json.Marshal(leaving{Mark: c.Mark, By: c.By, Parts: parts})
	if err != nil {
		return err
	}
	m.Config[LeavingKey] = string(text)
	return t.saveMember(ctx, m, c.Hint, NoEvent)
}

func (StayMember) name() string { return "stay-member" }

func (c StayMember) apply(ctx context.Context, t *tx) error {
	m, err := t.member(ctx, c.Name)
	if err != nil {
		return err
	}
	before, err := leavingOf(m)
	if err != nil || before.Mark == "" || before.Mark != c.Mark {
		return err
	}
	delete(m.Config, LeavingKey)
	if err := t.saveMember(ctx, m, c.Hint, NoEvent); err != nil {
		return err
	}
	if Witness(m) {
		return nil
	}
	return t.joinLocals(ctx, c.Name, func(s subject) state.Config { return before.Parts[s.String()] })
}
