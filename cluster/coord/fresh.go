package coord

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"muster/state"
	"muster/state/readindex"
)

// confirmWait is how long the voters may take to say whether this member coordinates.
const confirmWait = time.Second

// Fresh returns nil when the local replica holds everything that was acknowledged
// anywhere before the call. After a second it is ErrUnavailable, and from then on at
// once, until a coordinator answers again.
func (n *Node) Fresh(ctx context.Context) error { return n.reads.Fresh(ctx) }

// Stale is for how long this member has not been able to tell how old its replica is.
func (n *Node) Stale() time.Duration { return n.reads.Stale() }

// Barrier is Fresh for those that need it: it waits as long as a proposal would.
func (n *Node) Barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	err := n.reads.CatchUp(ctx)
	if errors.Is(err, readindex.ErrNoAnswer) && n.background.Err() == nil {
		return errNoCoordinator
	}
	return err
}

// askNewest asks the coordinator, wherever that is, for the index of the last entry that
// was acknowledged.
func (n *Node) askNewest(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	for {
		index, err := n.askCoordinator(ctx)
		if err == nil || !errors.Is(err, state.ErrUnavailable) {
			return index, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-n.failed():
			return 0, err
		case <-ctx.Done():
			return 0, errNoCoordinator
		}
	}
}

func (n *Node) askCoordinator(ctx context.Context) (uint64, error) {
	vouched := ""
	coordinator := n.KnownCoordinator()
	if coordinator != "" {
		vouched = n.cfg.ID
	} else {
		coordinator = n.leader()
	}
	switch {
	case coordinator == n.cfg.ID:
		return n.LeaderIndex(ctx, "")
	case coordinator == "" || n.cfg.Forward == nil:
		return 0, state.Errorf(state.ErrUnavailable, "nobody coordinates")
	}
	index, err := n.whileLeading(ctx, coordinator, func(ctx context.Context) (uint64, error) {
		return n.cfg.Forward.Index(ctx, coordinator, vouched)
	})
	if errors.Is(err, errors.ErrUnsupported) {
		return n.Propose(ctx, barrier{}) // what the release before did for each read
	}
	return index, err
}

// KnownCoordinator answers another member: the ID of the coordinator that this member's
// own part of the log follows, or "".
func (n *Node) KnownCoordinator() string {
	if s := n.seat.Load(); s != nil {
		return s.leader()
	}
	return ""
}

// LeaderIndex returns the index of the last entry that was acknowledged anywhere before
// the call, which is a member's question to the coordinator. vouched is the ID of the
// asking member when it votes and its own log has named this one as the coordinator for
// this question, or "". ErrUnavailable when this member does not coordinate for certain.
func (n *Node) LeaderIndex(ctx context.Context, vouched string) (uint64, error) {
	if vouched != "" {
		return n.confirm(ctx, vouched)
	}
	return n.confirmed.Join(ctx)
}

func (n *Node) askVoters(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	return n.confirm(ctx, "")
}

// confirm makes sure that nobody else has acknowledged anything before the call: what
// another coordinator acknowledged, a majority had taken from it, and whoever takes
// entries from a coordinator names no older one any more. raft's own VerifyLeader does
// not do: it also counts answers to what was sent before (v1.8.0, Raft.heartbeat), which
// a member that was paused finds waiting for it when it goes on.
func (n *Node) confirm(ctx context.Context, vouched string) (uint64, error) {
	s := n.seat.Load()
	if s == nil {
		return 0, errWorker
	}
	if s.raft.State() != raft.Leader {
		return 0, ErrNotApplied
	}
	servers, err := s.servers()
	if err != nil {
		return 0, err
	}
	var voters []string
	for id, votes := range servers {
		if votes {
			voters = append(voters, id)
		}
	}
	err = readindex.Majority(ctx, n.cfg.ID, voters, vouched, func(ctx context.Context, voter string) (string, error) {
		if n.cfg.Forward == nil {
			return "", state.Errorf(state.ErrUnavailable, "no way to reach member %s", voter)
		}
		return n.cfg.Forward.CoordinatorOf(ctx, voter)
	})
	if errors.Is(err, errors.ErrUnsupported) {
		return s.commit(ctx, barrier{})
	}
	if err != nil {
		return 0, err
	}
	// They may name this member because it was elected again. Then its term's first entry,
	// which Leading wants to see here, comes after all that others have acknowledged.
	if _, leading := n.Leading(); !leading {
		return 0, ErrNotApplied
	}
	return n.Applied(), nil
}
