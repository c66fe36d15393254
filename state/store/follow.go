package store

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"io"
	"slices"
	"sync"
	"time"

	"muster/state"
)

const (
	// beatEvery is how often whoever follows this member hears that there is nothing
	// new.
	beatEvery = 500 * time.Millisecond
	// fallsSilent is how long a worker waits for a word of the member it follows, and for one
	// that knows of a leader, before it tries another.
	fallsSilent = 2 * time.Second
	// settleAfter is how long a worker stays with a member that is not its first choice,
	// so that the load evens out after a failure.
	settleAfter = time.Minute
)

// errPromoted ends the following of a member that has a part in the consensus now,
// errElsewhere that of another member than the first choice.
var (
	errPromoted  = errors.New("the member follows the leader itself")
	errElsewhere = errors.New("another member is the better source")
)

// follow keeps this member's View up to date while another member leads: a control
// member takes the leader's stream, a worker that of any control member. It returns when
// ctx is done.
func (s *Store) follow(ctx context.Context) {
	before := ""
	for ctx.Err() == nil {
		pause := 10 * retryAfter
		if st := s.seat.Load(); st == nil {
			s.followAny(ctx)
		} else {
			s.agree(ctx, st)
			leader, _ := s.guide(ctx)
			if leader != "" && leader != s.cfg.Member.ID {
				s.followLeader(ctx, st, leader)
			}
			if leader == "" || leader != before {
				pause = 2 * retryAfter // there may be another in a moment
			}
			before = leader
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// agree has the writer find out that it leads, or that it leads no longer. It would by
// itself with the next command. Until then a former leader would take itself for the
// leader, and its View would follow nobody; and a new one would not show what the one
// before acknowledged last, for which somebody may be waiting.
func (s *Store) agree(ctx context.Context, st *seat) {
	leader, err := st.node.leader(ctx)
	if err == nil && st.writer.leading.Load() != (leader == s.cfg.Member.ID) {
		// A session begins with what the tables hold, and ends when the leadership was
		// lost; that is all that is wanted.
		_ = st.writer.do(ctx, &request{})
	}
}

// followLeader takes the stream of one leader until it breaks off, another member
// leads, or this one is no control member any more.
func (s *Store) followLeader(ctx context.Context, st *seat, leader string) {
	ctx, cancel := context.WithCancel(ctx)
	var guard sync.WaitGroup
	guard.Go(func() {
		for ctx.Err() == nil && s.seat.Load() == st {
			if now, _ := s.guide(ctx); now != leader {
				break
			}
			select {
			case <-time.After(10 * retryAfter):
			case <-ctx.Done():
			}
		}
		cancel()
	})
	err := s.cfg.Remote.Watch(ctx, leader, s.View().Revision(), s.View().Schema(), s.receive)
	cancel()
	guard.Wait()
	s.cfg.Log.DebugContext(ctx, "the stream of changes ended", "leader_id", leader, "error", err)
}

// followAny takes the stream of one control member after another, until ctx is done or
// this member is no worker any more.
func (s *Store) followAny(ctx context.Context) {
	for i, source := range s.sources() {
		if ctx.Err() != nil || s.seat.Load() != nil {
			return
		}
		err := s.followOne(ctx, source, i == 0)
		s.told.Store("")
		s.cfg.Log.DebugContext(ctx, "the stream of changes ended", "member_id", source, "error", err)
		if errors.Is(err, errElsewhere) || errors.Is(err, errPromoted) {
			return
		}
		s.saw("") // from here on the View may be behind
	}
}

// sources are the members to follow, best first. The order differs from member to
// member, so that they spread, and is always the same for one.
func (s *Store) sources() []string {
	if s.cfg.Others == nil {
		return nil
	}
	rank := func(id string) uint32 {
		sum := fnv.New32a()
		_, _ = io.WriteString(sum, s.cfg.Member.ID+id) // never fails
		return sum.Sum32()
	}
	return slices.SortedFunc(slices.Values(s.cfg.Others()), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
}

// followOne takes the stream of one control member until it breaks off, falls silent or
// is not needed any more.
func (s *Store) followOne(ctx context.Context, source string, first bool) error {
	ctx, cancel := context.WithCancel(ctx)
	watchdog := time.AfterFunc(fallsSilent, cancel)
	defer watchdog.Stop()
	select {
	case <-s.lagging: // that was the member before
	default:
	}
	var guard sync.WaitGroup
	defer guard.Wait()
	defer cancel()
	guard.Go(func() {
		select {
		case <-s.lagging:
			s.cfg.Log.DebugContext(ctx, "the member that is followed lags", "member_id", source)
			cancel()
		case <-ctx.Done():
		}
	})
	began := time.Now()
	return s.cfg.Remote.Watch(ctx, source, s.View().Revision(), s.View().Schema(), func(batch Batch) error {
		if s.seat.Load() != nil {
			return errPromoted
		}
		if batch.Leader != "" && ctx.Err() == nil {
			watchdog.Reset(fallsSilent)
		}
		s.told.Store(batch.Leader)
		s.saw(batch.Leader)
		if !first && time.Since(began) > settleAfter {
			return errElsewhere
		}
		return s.receive(batch)
	})
}

// receive makes visible what another member sent.
func (s *Store) receive(batch Batch) error {
	st := s.seat.Load()
	if !batch.Snapshot {
		changes := make([]Change, len(batch.Records))
		for i := range batch.Records {
			var err error
			if changes[i], err = batch.Records[i].change(); err != nil {
				return err
			}
		}
		if err := s.hub.publish(changes); err != nil {
			return err
		}
		return st.raiseMark(batch.Revision)
	}
	if st != nil {
		if err := st.dir.checkMark(batch.Revision); err != nil {
			return err
		}
	}
	if err := s.KnownSchema().Check(batch.Schema); err != nil {
		breakOff(s.broken, err)
		return err
	}
	objects := make([]object, len(batch.Records))
	for i, record := range batch.Records {
		noun, err := decodeNoun(record.Kind, record.After)
		if err != nil {
			return err
		}
		objects[i] = object{record.Kind, noun}
	}
	if err := s.hub.reset(batch.Revision, batch.Schema, objects, nil); err != nil {
		return err
	}
	return st.raiseMark(batch.Revision)
}

// raiseMark records a revision that was shown; a worker has no place for it, and what it
// shows can't be lost with a database.
func (st *seat) raiseMark(revision state.Revision) error {
	if st == nil {
		return nil
	}
	return st.dir.raiseMark(revision)
}
