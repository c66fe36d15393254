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

// Assign makes the log's members what they should be: the members in wanted take
// part, those with true vote, and all others go. The coordinator calls it
// (ErrUnavailable elsewhere); it returns with the first step that fails, and doing it
// again goes on from there. The coordinator itself stays as it is: another must
// coordinate before it can lose its vote.
func (n *Node) Assign(ctx context.Context, wanted map[string]bool) error {
	if n.raft.State() != raft.Leader {
		return ErrNotApplied
	}
	configuration := n.raft.GetConfiguration()
	if err := configuration.Error(); err != nil {
		return n.raftError(err)
	}
	present := map[string]raft.ServerSuffrage{}
	for _, server := range configuration.Configuration().Servers {
		present[string(server.ID)] = server.Suffrage
	}
	step := func(future raft.IndexFuture) error {
		if err := future.Error(); err != nil {
			return n.raftError(err)
		}
		return ctx.Err()
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		suffrage, known := present[id]
		server, address := raft.ServerID(id), raft.ServerAddress(id)
		switch {
		case id == n.cfg.ID:
		case wanted[id] && (!known || suffrage != raft.Voter):
			// raft lets a member vote before it has the log. One that has nothing
			// yet is first made to follow.
			if !known {
				if err := step(n.raft.AddNonvoter(server, address, 0, changeTimeout)); err != nil {
					return err
				}
			}
			if err := step(n.raft.AddVoter(server, address, 0, changeTimeout)); err != nil {
				return err
			}
		case !wanted[id] && !known:
			if err := step(n.raft.AddNonvoter(server, address, 0, changeTimeout)); err != nil {
				return err
			}
		}
	}
	// Members that go may be dead: their votes are to be gone before any that counts is.
	for _, id := range slices.Sorted(maps.Keys(present)) {
		if _, keep := wanted[id]; !keep && id != n.cfg.ID {
			if err := step(n.raft.RemoveServer(raft.ServerID(id), 0, changeTimeout)); err != nil {
				return err
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		if !wanted[id] && id != n.cfg.ID && present[id] == raft.Voter {
			if err := step(n.raft.DemoteVoter(raft.ServerID(id), 0, changeTimeout)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Voters returns the IDs of the members that vote, sorted, as this member's log has
// it.
func (n *Node) Voters() ([]string, error) {
	configuration := n.raft.GetConfiguration()
	if err := configuration.Error(); err != nil {
		return nil, n.raftError(err)
	}
	var voters []string
	for _, server := range configuration.Configuration().Servers {
		if server.Suffrage == raft.Voter {
			voters = append(voters, string(server.ID))
		}
	}
	slices.Sort(voters)
	return voters, nil
}

// HandOver makes another voter the coordinator, before this member goes. It does
// nothing when this member does not coordinate or no other votes.
func (n *Node) HandOver(context.Context) error {
	if n.raft.State() != raft.Leader || n.alone() {
		return nil
	}
	if err := n.raft.LeadershipTransfer().Error(); err != nil && !errors.Is(err, raft.ErrRaftShutdown) {
		return state.Errorf(state.ErrUnavailable, "hand the coordination over: %w", err)
	}
	return nil
}
