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
	result, err := s.lead(ctx, func(ctx context.Context, leader string) (Result, error) {
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

// lead calls ask with the leader's ID until one answers or ctx is done. What was
// asked may then be asked again, so it carries an ID or changes nothing.
func (s *Store) lead(ctx context.Context, ask func(ctx context.Context, leader string) (Result, error)) (Result, error) {
	unknown := false
	for {
		if leader := s.guide(ctx); leader == s.cfg.Member.ID || leader != "" && s.cfg.Remote != nil {
			result, err := s.askWhileLeading(ctx, leader, ask)
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
				"the outcome is unknown: the database's leader took the command and fell silent; look, when most of its members are up, before trying again"+hopeless)
		}
		return Result{}, state.Errorf(state.ErrUnavailable,
			"not applied: the database has no leader that answers; try again when most of its members are up"+hopeless)
	}
}

// hopeless says what to do when waiting does not help.
const hopeless = " (if they are gone for good: \"musterd cluster recover-from-quorum-loss\" on one that is left)"

// silence is how long a leader may take to answer before it is looked whether another
// leads by now.
const silence = 100 * time.Millisecond

// askWhileLeading asks another member that leads, until it is certain that it leads no
// longer: one that was cut off or paused says nothing, and its successor may be there
// long before the caller's patience ends.
func (s *Store) askWhileLeading(ctx context.Context, leader string, ask func(ctx context.Context, leader string) (Result, error)) (Result, error) {
	if leader == s.cfg.Member.ID {
		return ask(ctx, leader)
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
			if now := s.guide(asking); now != "" && now != leader {
				cancel()
				return
			}
		}
	})
	return ask(asking, leader)
}

// guide returns the leader's ID, or "" when this member knows of none.
func (s *Store) guide(ctx context.Context) string {
	leader := s.findLeader(ctx)
	if ctx.Err() == nil {
		s.saw(leader)
	}
	return leader
}

// saw records who leads, as it was found just now; "" when nobody is known to.
func (s *Store) saw(leader string) {
	s.seen.set(leader)
	if now := time.Now(); leader != "" {
		s.led.Store(&now)
	}
}

// staleAfter is how long nobody may lead before the View counts as old: an election
// takes less.
const staleAfter = time.Second

// Stale says for how long the View may have been behind what others have acknowledged:
// since somebody was last known to lead. It is zero while somebody does.
func (s *Store) Stale() time.Duration {
	if s.LeaderSeen() != "" {
		return 0
	}
	if old := time.Since(*s.led.Load()); old > staleAfter {
		return old
	}
	return 0
}

// LeaderSeen is the leader's ID as of the last look, a fraction of a second ago, or ""
// when nobody was known to lead. Unlike Leader it asks nobody and so never waits.
func (s *Store) LeaderSeen() string {
	if s.leading() {
		return s.cfg.Member.ID
	}
	return s.seen.get()
}

func (s *Store) findLeader(ctx context.Context) string {
	leader, err := s.KnownLeader(ctx)
	if err != nil {
		s.cfg.Log.DebugContext(ctx, "ask for the leader", "error", err)
		return ""
	}
	if leader != "" || s.cfg.Remote == nil || s.cfg.Others == nil {
		return leader
	}
	return s.askAround(ctx)
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

// KnownLeader answers another member: the ID of the leader as far as this member
// knows without asking, or "".
func (s *Store) KnownLeader(ctx context.Context) (string, error) {
	st := s.seat.Load()
	if st == nil {
		told, _ := s.told.Load().(string)
		return told, nil
	}
	if st.writer.leading.Load() {
		return s.cfg.Member.ID, nil
	}
	return st.node.leader(ctx)
}

// Barrier returns when this member's View shows everything that was acknowledged
// anywhere before the call; ErrUnavailable when no leader answers in time.
func (s *Store) Barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	result, err := s.lead(ctx, func(ctx context.Context, leader string) (Result, error) {
		if leader != s.cfg.Member.ID {
			revision, err := s.cfg.Remote.Revision(ctx, leader)
			return Result{Revision: revision}, err
		}
		return inWords(s.do(ctx, &request{barrier: true}))
	})
	if err != nil {
		return err
	}
	return s.hub.wait(ctx, result.Revision)
}

// LeaderRevision answers the Barrier of another member: the revision of the last
// change that was acknowledged. ErrUnavailable when this member does not lead.
func (s *Store) LeaderRevision(ctx context.Context) (state.Revision, error) {
	result, err := inWords(s.do(ctx, &request{barrier: true}))
	if err == nil && result.NotLeader {
		err = state.Errorf(state.ErrUnavailable, "%w", errNotLeading)
	}
	return result.Revision, err
}
