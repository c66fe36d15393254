package coord

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"muster/state"
)

// Propose commits an entry and returns its index once the local replica has
// applied it. An entry that the content refuses (a lock that is held, an
// operation that is not there) changes nothing and returns the refusal, of kind
// ErrConflict, ErrNotFound or ErrInvalid. An entry that does no harm twice is
// proposed again when its outcome is unknown, because the coordinator changed in
// the middle. ErrUnavailable says in its text whether the entry was not applied
// or its outcome is unknown. Entries may be proposed concurrently; they share
// disk writes.
func (n *Node) Propose(ctx context.Context, entry Entry) (uint64, error) {
	if start, isStart := entry.(StartOperation); isStart && start.Operation.Member == n.cfg.ID {
		start.Operation.Boot = n.boot
		entry = start
	}
	data, err := encodeEntry(entry)
	if err != nil {
		return 0, err
	}
	giveUp := time.Now().Add(leaderWait)
	var unknown error
	again := func(err error) bool {
		if NotApplied(err) {
			return true
		}
		if !errors.Is(err, state.ErrUnavailable) || !repeatable(entry) {
			return false
		}
		unknown = err
		return true
	}
	for {
		index, err := n.ProposeEncoded(ctx, data)
		if err == nil || n.closed.Load() || !again(err) {
			return index, err
		}
		if coordinator := n.leader(); coordinator != "" && coordinator != n.cfg.ID && n.cfg.Forward != nil {
			index, err = n.forward(ctx, coordinator, data)
			if err == nil {
				return index, n.WaitApplied(ctx, index)
			}
			if !again(err) {
				return 0, err
			}
		}
		if unknown != nil && (time.Now().After(giveUp) || ctx.Err() != nil) {
			return 0, unknown
		}
		if time.Now().After(giveUp) {
			return 0, errNoCoordinator
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-n.failed():
			return 0, err
		case <-n.background.Done():
			return 0, err
		case <-ctx.Done():
			return 0, notApplied("the cluster has no coordinator now (%w): the change was not applied, try again later", ctx.Err())
		}
	}
}

// errNoCoordinator is the answer when nothing was done because nobody coordinates.
var errNoCoordinator = notApplied("the cluster has no coordinator now: the change was not applied; try again when most of its database members are up (if they are gone for good: \"musterd cluster recover-from-quorum-loss\" on one that is left)")

// silence is how long a coordinator may take to answer before it is looked whether
// another coordinates by now.
const silence = 100 * time.Millisecond

// forward hands an entry to the coordinator.
func (n *Node) forward(ctx context.Context, coordinator string, data []byte) (uint64, error) {
	return n.whileLeading(ctx, coordinator, func(ctx context.Context) (uint64, error) {
		return n.cfg.Forward.Forward(ctx, coordinator, data)
	})
}

// whileLeading asks the coordinator, and gives up when another coordinates, and after
// leaderWait: one that was cut off or paused says nothing, and nobody may follow it.
func (n *Node) whileLeading(ctx context.Context, coordinator string, ask func(context.Context) (uint64, error)) (uint64, error) {
	asking, cancel := context.WithTimeout(ctx, leaderWait)
	var guard sync.WaitGroup
	defer guard.Wait()
	defer cancel()
	guard.Go(func() {
		look := time.NewTicker(silence)
		defer look.Stop()
		for {
			select {
			case <-look.C:
			case <-n.background.Done():
				cancel()
				return
			case <-asking.Done():
				return
			}
			if now := n.leader(); now != "" && now != coordinator {
				cancel()
				return
			}
		}
	})
	return ask(asking)
}

// failed is closed when the log at hand cannot be read; a worker has none.
func (n *Node) failed() <-chan struct{} {
	if s := n.seat.Load(); s != nil {
		return s.machine.failed
	}
	return nil
}

// repeatable reports whether an entry that was applied already changes nothing when
// it is applied once more. A verdict is for one epoch of its member, and would be
// refused.
func repeatable(entry Entry) bool {
	_, verdict := entry.(SetVerdict)
	return !verdict
}

// unapplied marks an error whose proposal certainly changed nothing.
type unapplied struct{ error }

func (u unapplied) Unwrap() error { return u.error }

func notApplied(format string, args ...any) error {
	return unapplied{state.Errorf(state.ErrUnavailable, format, args...)}
}

// NotApplied reports whether an error of Propose or ProposeEncoded means that
// nobody could take the entry, so that proposing it elsewhere or again is safe.
// A Forwarder keeps this across the wire by answering with ErrNotApplied.
func NotApplied(err error) bool { return errors.As(err, &unapplied{}) }

// ErrNotApplied is an ErrUnavailable for which NotApplied holds.
var ErrNotApplied = notApplied("that member does not coordinate: the change was not applied")

// ProposeEncoded is Propose for an entry that another member forwarded. A member
// that does not coordinate answers ErrNotApplied at once.
func (n *Node) ProposeEncoded(ctx context.Context, data []byte) (uint64, error) {
	s := n.seat.Load()
	if s == nil {
		return 0, ErrNotApplied
	}
	return s.propose(ctx, data)
}

func (s *seat) propose(ctx context.Context, data []byte) (uint64, error) {
	if broken := s.machine.broken.Load(); broken != nil {
		return 0, notApplied("the change was not applied: %w", broken)
	}
	if s.raft.State() != raft.Leader {
		return 0, ErrNotApplied
	}
	answers := make(chan answer, 1)
	if !s.hand(data, answers) {
		return 0, notApplied("the daemon is shutting down: the change was not applied")
	}
	select {
	case a := <-answers:
		if a.err != nil {
			return 0, s.raftError(a.err)
		}
		if a.outcome.refusal != nil {
			return 0, a.outcome.refusal
		}
		return a.outcome.index, nil
	case <-ctx.Done():
		return 0, state.Errorf(state.ErrUnavailable, "gave up waiting for the coordination log (%w): it is unknown whether the change was applied", ctx.Err())
	}
}

type answer struct {
	outcome outcome
	err     error
}

// hand gives an entry to raft, whose answer comes later. It reports false when
// the node is closed.
func (s *seat) hand(data []byte, answers chan<- answer) bool {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.closed {
		return false
	}
	s.work.Go(func() {
		answered := s.giveUpStuck()
		defer answered()
		future := s.raft.Apply(data, leaderWait)
		if err := future.Error(); err != nil {
			answers <- answer{err: err}
			return
		}
		s.spread()
		answers <- answer{outcome: future.Response().(outcome)}
	})
	return true
}

func (s *seat) isClosed() bool {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.closed
}

// raftError says in our words what became of an entry.
func (s *seat) raftError(err error) error {
	switch {
	case errors.Is(err, raft.ErrRaftShutdown):
		return state.Errorf(state.ErrUnavailable, "the daemon is shutting down: it is unknown whether the change was applied")
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotApplied
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return notApplied("the coordination log is overloaded: the change was not applied")
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrAbortedByRestore):
		return state.Errorf(state.ErrUnavailable, "the coordinator changed in the middle: it is unknown whether the change was applied")
	}
	return state.Errorf(state.ErrUnavailable, "the coordination log cannot be written (%w): it is unknown whether the change was applied", err)
}

// Leader returns the ID of the member that coordinates, as far as this one knows, or
// "". Unlike Coordinator it is not what the log says but whom proposals go to.
func (n *Node) Leader() string { return n.leader() }

// Coordinated reports whether somebody coordinates now, as far as this member can see: in
// a worker's Leader the last one that it heard of stays.
func (n *Node) Coordinated() bool {
	if s := n.seat.Load(); s != nil && s.leader() != "" {
		return true
	}
	told, _ := n.told.Load().(string)
	return told != ""
}

// leader is Leader.
func (n *Node) leader() string {
	if s := n.seat.Load(); s != nil {
		if leader := s.leader(); leader != "" {
			return leader
		}
	}
	if told, _ := n.told.Load().(string); told != "" {
		return told
	}
	if n.seat.Load() == nil {
		return n.Coordinator().Member
	}
	return ""
}

// leader returns the ID of the member that raft follows, or "".
func (s *seat) leader() string {
	_, id := s.raft.LeaderWithID()
	return string(id)
}

// commit proposes an entry of this member's own as the coordinator, and tries again for
// a while as long as it is.
func (s *seat) commit(ctx context.Context, entry Entry) (uint64, error) {
	data, err := encodeEntry(entry)
	if err != nil {
		return 0, err
	}
	giveUp := time.Now().Add(leaderWait)
	for {
		index, err := s.propose(ctx, data)
		if !NotApplied(err) || s.raft.State() != raft.Leader || s.isClosed() || time.Now().After(giveUp) {
			return index, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return 0, err
		}
	}
}
