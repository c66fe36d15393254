package coord

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"muster/state"
)

// changeTimeout bounds one change of who takes part.
const changeTimeout = 5 * time.Second

// errWorker is what a worker answers to what needs the log.
var errWorker = state.Errorf(state.ErrUnavailable, "this member is a worker and has no coordination log")

// Assign makes the log's members what they should be: the members in wanted take
// part, those with true vote, and all others go. The coordinator calls it
// (ErrUnavailable elsewhere); it returns with the first step that fails, and doing it
// again goes on from there. The coordinator itself stays as it is: another must
// coordinate before it can lose its vote.
func (n *Node) Assign(ctx context.Context, wanted map[string]bool) error {
	s := n.seat.Load()
	if s == nil || s.raft.State() != raft.Leader {
		return ErrNotApplied
	}
	return s.assign(ctx, wanted)
}

func (s *seat) assign(ctx context.Context, wanted map[string]bool) error {
	present, err := s.servers()
	if err != nil {
		return err
	}
	step := func(future raft.IndexFuture) error {
		if err := future.Error(); err != nil {
			return s.raftError(err)
		}
		return ctx.Err()
	}
	// Promotions first: the number of votes should not fall in between.
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		votes, known := present[id]
		server, address := raft.ServerID(id), raft.ServerAddress(id)
		if id == s.cfg.ID {
			continue
		}
		// raft lets a member vote before it has the log. One that has nothing
		// yet is first made to follow.
		if !known {
			if err := step(s.raft.AddNonvoter(server, address, 0, changeTimeout)); err != nil {
				return err
			}
		}
		if wanted[id] && !votes {
			if err := step(s.raft.AddVoter(server, address, 0, changeTimeout)); err != nil {
				return err
			}
		}
	}
	// Members that go may be dead: their votes are to be gone before any that counts is.
	for _, id := range slices.Sorted(maps.Keys(present)) {
		if _, keep := wanted[id]; !keep && id != s.cfg.ID {
			if err := step(s.raft.RemoveServer(raft.ServerID(id), 0, changeTimeout)); err != nil {
				return err
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		if !wanted[id] && id != s.cfg.ID && present[id] {
			if err := step(s.raft.DemoteVoter(raft.ServerID(id), 0, changeTimeout)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Seats returns who takes part in the log, as this member's has it: true for those that
// vote. ErrUnavailable on a worker.
func (n *Node) Seats() (map[string]bool, error) {
	s := n.seat.Load()
	if s == nil {
		return nil, errWorker
	}
	return s.servers()
}

func (s *seat) servers() (map[string]bool, error) {
	configuration := s.raft.GetConfiguration()
	if err := configuration.Error(); err != nil {
		return nil, s.raftError(err)
	}
	servers := map[string]bool{}
	for _, server := range configuration.Configuration().Servers {
		servers[string(server.ID)] = server.Suffrage == raft.Voter
	}
	return servers, nil
}

// Left reports whether a member takes no part in the log, for certain: nobody counts
// its votes or what it acknowledged any more. Only the coordinator knows (ErrUnavailable
// elsewhere).
func (n *Node) Left(ctx context.Context, id string) (bool, error) {
	s := n.seat.Load()
	if s == nil {
		return false, errWorker
	}
	if s.raft.State() != raft.Leader {
		return false, ErrNotApplied
	}
	servers, err := s.servers()
	if _, there := servers[id]; err != nil || there {
		return false, err
	}
	// The configuration may not be committed yet; what comes after it then is not
	// either.
	if _, err := s.commit(ctx, barrier{}); err != nil {
		return false, err
	}
	servers, err = s.servers()
	_, there := servers[id]
	return err == nil && !there, err
}

// HandOver makes another voter the coordinator, before this member goes. It does
// nothing when this member does not coordinate or no other votes.
func (n *Node) HandOver(context.Context) error {
	s := n.seat.Load()
	if s == nil || s.raft.State() != raft.Leader || s.alone() {
		return nil
	}
	if err := s.raft.LeadershipTransfer().Error(); err != nil && !errors.Is(err, raft.ErrRaftShutdown) {
		return state.Errorf(state.ErrUnavailable, "hand the coordination over: %w", err)
	}
	return nil
}
