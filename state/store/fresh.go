package store

import (
	"context"
	"errors"
	"time"

	"muster/state"
	"muster/state/readindex"
)

const (
	// lagsAfter is how long a worker waits for what the leader has, before it changes the
	// member that it follows.
	lagsAfter = 200 * time.Millisecond
	// confirmWait is how long the voters may take to say whether this member leads.
	confirmWait = time.Second
	// staleAfter is how long nobody may lead before the View counts as old: an election
	// takes less.
	staleAfter = time.Second
)

// Fresh returns nil when this member's View shows everything that was acknowledged
// anywhere before the call. After a second it is ErrUnavailable, and from then on at
// once, until a leader answers again.
func (s *Store) Fresh(ctx context.Context) error {
	if s.lone() {
		return nil
	}
	return s.reads.Fresh(ctx)
}

// Barrier is Fresh for those that need it: it waits as long as a command would.
func (s *Store) Barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := s.reads.CatchUp(ctx)
	if errors.Is(err, readindex.ErrNoAnswer) && s.background.Err() == nil {
		return errNoLeader
	}
	return err
}

// arrived returns when the View shows the revision. A worker that waits too long for it
// changes the member that it follows.
func (s *Store) arrived(ctx context.Context, index uint64) error {
	revision := state.Revision(index)
	if s.seat.Load() == nil {
		soon, cancel := context.WithTimeout(ctx, lagsAfter)
		err := s.hub.wait(soon, revision)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case s.lagging <- struct{}{}:
		default:
		}
	}
	return s.hub.wait(ctx, revision)
}

// lone reports whether this member is the whole cluster, and leads: its View shows what
// it acknowledged, and nobody else acknowledges anything.
func (s *Store) lone() bool {
	if !s.leading() {
		return false
	}
	members := 0
	walk(s.View(), KindMember, byID, nil, func(*state.Member) bool { members++; return members < 2 })
	return members == 1
}

// Stale says for how long the View may have been behind what others have acknowledged:
// since somebody was last known to lead, or was asked in vain. It is zero while a leader
// answers.
func (s *Store) Stale() time.Duration {
	old := s.reads.Stale()
	if s.LeaderSeen() == "" {
		if unled := time.Since(*s.led.Load()); unled > staleAfter {
			old = max(old, unled)
		}
	}
	return old
}

// askNewest asks the leader, wherever that is, for the revision of the last change that
// was acknowledged.
func (s *Store) askNewest(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	result, err := s.lead(ctx, func(ctx context.Context, leader, vouched string) (Result, error) {
		var revision state.Revision
		var err error
		if leader == s.cfg.Member.ID {
			revision, err = s.LeaderRevision(ctx, "")
		} else {
			revision, err = s.cfg.Remote.Revision(ctx, leader, vouched)
		}
		if errors.Is(err, state.ErrUnavailable) {
			return Result{NotLeader: true}, nil // it is asked again, or another
		}
		return Result{Revision: revision}, err
	})
	return uint64(result.Revision), err
}

// LeaderRevision returns the revision of the last change that was acknowledged anywhere
// before the call, which is a member's question to the leader. vouched is the ID of the
// asking member when it votes and its own log has named this one as the leader for this
// question, or "". ErrUnavailable when this member does not lead for certain.
func (s *Store) LeaderRevision(ctx context.Context, vouched string) (state.Revision, error) {
	if vouched != "" {
		return s.confirm(ctx, vouched)
	}
	index, err := s.confirmed.Join(ctx)
	return state.Revision(index), err
}

func (s *Store) askVoters(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	revision, err := s.confirm(ctx, "")
	return uint64(revision), err
}

// confirm makes sure that nobody else has acknowledged anything before the call. What
// another leader acknowledged, a majority had taken from it, and whoever takes entries
// from a leader names no older one any more: so no majority would name this member. It
// might name it again after it was elected again; then its session is over, and the
// pulse, which is looked at last, does not beat.
func (s *Store) confirm(ctx context.Context, vouched string) (state.Revision, error) {
	st := s.seat.Load()
	if st == nil {
		return 0, state.Errorf(state.ErrUnavailable, "%w", errNotLeading)
	}
	pulse := st.writer.pulse.Load()
	if pulse == nil {
		return 0, s.lookWhoLeads(ctx)
	}
	voters, err := st.node.voters(ctx)
	if err != nil {
		return 0, state.Errorf(state.ErrUnavailable, "ask who votes: %w", err)
	}
	if err := readindex.Majority(ctx, s.cfg.Member.ID, voters, vouched, s.follows); err != nil {
		return 0, err
	}
	err = pulse.beats(ctx)
	revision := s.View().Revision()
	switch {
	case errors.Is(err, errNoPulse):
		return 0, s.lookWhoLeads(ctx)
	case err != nil:
		return 0, state.Errorf(state.ErrUnavailable, "look whether the leadership was interrupted: %w", err)
	}
	return revision, nil
}

// lookWhoLeads has the writer find out whether this member leads, with a View that shows
// what the tables hold; the question is then to be put again.
func (s *Store) lookWhoLeads(ctx context.Context) error {
	if _, err := inWords(s.do(ctx, &request{})); err != nil {
		return err
	}
	return state.Errorf(state.ErrUnavailable, "%w", errNotLeading)
}

// follows returns the leader that another voter's log names.
func (s *Store) follows(ctx context.Context, voter string) (string, error) {
	if s.cfg.Remote == nil {
		return "", state.Errorf(state.ErrUnavailable, "no way to reach member %s", voter)
	}
	return s.cfg.Remote.Leader(ctx, voter)
}
