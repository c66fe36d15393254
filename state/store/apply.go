package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"muster/state"
)

// Apply runs a command on the leader, wherever that is, and returns when this
// member's View shows what it did. Without a leader that can commit it answers
// ErrUnavailable within five seconds, and says whether the command was not applied
// or its outcome is unknown.
func (s *Store) Apply(ctx context.Context, command Command) (Result, error) {
	return s.ApplyAs(ctx, Origin{}, command)
}

// ApplyAs is Apply for a command that has an ID to be retried by, or that the
// coordinator makes.
func (s *Store) ApplyAs(ctx context.Context, origin Origin, command Command) (Result, error) {
	envelope, err := seal(ctx, origin, command)
	if err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	result, err := s.lead(ctx, func(ctx context.Context, leader, _ string) (Result, error) {
		if leader != s.cfg.Member.ID {
			return s.cfg.Remote.Apply(ctx, leader, envelope)
		}
		return s.ApplyEnvelope(ctx, envelope)
	})
	if err != nil {
		return Result{}, err
	}
	return result, s.hub.wait(ctx, result.Revision)
}

// ApplyEnvelope runs a command that another member sent to this one as the leader.
// When this member does not lead, the result says so and nothing was done. An
// error of kind ErrUnavailable means that the outcome is unknown.
func (s *Store) ApplyEnvelope(ctx context.Context, envelope Envelope) (Result, error) {
	command, err := envelope.open()
	if err != nil {
		return Result{}, err
	}
	if s.leading() {
		if err := s.admit(command); err != nil {
			return Result{}, err
		}
	}
	a := s.do(ctx, &request{envelope: envelope, command: command})
	return inWords(a)
}

// inWords turns the writer's signals into what callers know.
func inWords(a answer) (Result, error) {
	if errors.Is(a.err, errNotLeading) {
		return Result{NotLeader: true}, nil
	}
	if errors.Is(a.err, errUnknown) {
		return Result{}, state.Errorf(state.ErrUnavailable, "%w", a.err)
	}
	return a.result, a.err
}

// retryAfter is the pause before a leader is looked for again.
const retryAfter = 20 * time.Millisecond

// asking is a question to the leader. vouched is this member's ID when its own part of
// the consensus has named that leader, just now, and "" otherwise.
type asking func(ctx context.Context, leader, vouched string) (Result, error)

// lead calls ask with the leader's ID until one answers or ctx is done. What was
// asked may then be asked again, so it carries an ID or changes nothing.
func (s *Store) lead(ctx context.Context, ask asking) (Result, error) {
	unknown := false
	for first := true; ; first = false {
		leader, vouched := s.guideBy(ctx, first)
		if leader == s.cfg.Member.ID || leader != "" && s.cfg.Remote != nil {
			result, err := s.askWhileLeading(ctx, leader, vouched, ask)
			switch {
			case errors.Is(err, errClosed), err != nil && !errors.Is(err, state.ErrUnavailable):
				return Result{}, err
			case err != nil:
				unknown = true
			case !result.NotLeader:
				return result, nil
			}
		}
		select {
		case <-time.After(retryAfter):
			continue
		case <-s.background.Done():
			return Result{}, errClosed
		case <-ctx.Done():
		}
		if unknown {
			return Result{}, state.Errorf(state.ErrUnavailable,
				"the outcome is unknown: the database's leader took the command and fell silent; look, when most of its members are up, before trying again"+Hopeless)
		}
		return Result{}, errNoLeader
	}
}

// errNoLeader is the answer when nothing was done because nobody leads.
var errNoLeader = state.Errorf(state.ErrUnavailable,
	"not applied: the database has no leader that answers; try again when most of its members are up"+Hopeless)

// Hopeless ends what is said of a lost majority: what to do when waiting does not help.
const Hopeless = " (if they are gone for good: \"musterd cluster recover-from-quorum-loss\" on one that is left)"

// silence is how long a leader may take to answer before it is looked whether another
// leads by now.
const silence = 100 * time.Millisecond

// askWhileLeading asks another member that leads, until it is certain that it leads no
// longer: one that was cut off or paused says nothing, and its successor may be there
// long before the caller's patience ends.
func (s *Store) askWhileLeading(ctx context.Context, leader, vouched string, ask asking) (Result, error) {
	if leader == s.cfg.Member.ID {
		return ask(ctx, leader, vouched)
	}
	asking, cancel := context.WithCancel(ctx)
	var guard sync.WaitGroup
	defer guard.Wait()
	defer cancel()
	guard.Go(func() {
		for {
			select {
			case <-time.After(silence):
			case <-asking.Done():
				return
			}
			if now, _ := s.guide(asking); now != "" && now != leader {
				cancel()
				return
			}
		}
	})
	return ask(asking, leader, vouched)
}

// guide returns the leader's ID, or "" when this member knows of none, and this member's
// own ID as vouched when its own part of the consensus says so.
func (s *Store) guide(ctx context.Context) (leader, vouched string) { return s.guideBy(ctx, false) }

// guideBy is guide. With hint, a member that has no vote, and so is not told, takes the
// last leader that it saw, and asks nobody.
func (s *Store) guideBy(ctx context.Context, hint bool) (leader, vouched string) {
	leader, err := s.KnownLeader(ctx)
	if err != nil {
		s.cfg.Log.DebugContext(ctx, "ask for the leader", "error", err)
	}
	if leader != "" {
		vouched = s.cfg.Member.ID
	}
	if leader == "" && s.seat.Load() == nil {
		leader, _ = s.told.Load().(string)
	}
	if leader == "" && hint {
		leader = s.seen.get()
	}
	if leader == "" && err == nil && s.cfg.Remote != nil && s.cfg.Others != nil {
		leader = s.askAround(ctx)
	}
	if ctx.Err() == nil {
		s.saw(leader)
	}
	return leader, vouched
}

// saw records who leads, as it was found just now; "" when nobody is known to.
func (s *Store) saw(leader string) {
	s.seen.set(leader)
	if now := time.Now(); leader != "" {
		s.led.Store(&now)
	}
}

// LeaderSeen is the leader's ID as of the last look, a fraction of a second ago, or ""
// when nobody was known to lead. Unlike Leader it asks nobody and so never waits.
func (s *Store) LeaderSeen() string {
	if s.leading() {
		return s.cfg.Member.ID
	}
	return s.seen.get()
}

// askAround asks the other control members at once and takes the first answer, be it of the
// own node, which may find out while another member is silent.
func (s *Store) askAround(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	others := s.cfg.Others()
	answers := make(chan string, len(others))
	for _, id := range others {
		asking.Go(func() {
			leader, err := s.cfg.Remote.Leader(ctx, id)
			if err != nil {
				s.cfg.Log.DebugContext(ctx, "ask another member for the leader", "member_id", id, "error", err)
			}
			answers <- leader
		})
	}
	look := time.NewTicker(2 * retryAfter)
	defer look.Stop()
	for waiting := len(others); waiting > 0; {
		var leader string
		select {
		case leader = <-answers:
			waiting--
		case <-look.C:
			leader, _ = s.KnownLeader(ctx) // it is looked again
		}
		if leader != "" {
			return leader
		}
	}
	return ""
}

// KnownLeader answers another member: the ID of the leader as this member's own part of
// the consensus has it, or "". What a member without one was told does not count: the
// leader takes this for a vote.
func (s *Store) KnownLeader(ctx context.Context) (string, error) {
	st := s.seat.Load()
	if st == nil {
		return "", nil
	}
	// The node's word, not the writer's, which may not know yet that it leads no longer.
	return st.node.leader(ctx)
}
