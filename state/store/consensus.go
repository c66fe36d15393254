package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/canonical/go-dqlite"
	"github.com/canonical/go-dqlite/client"

	"muster/state"
)

// Role is what a member does for the database's consensus.
type Role string

// The roles (libdqlite's voter, stand-by and spare).
const (
	// Voter has the log and a vote.
	Voter Role = "voter"
	// Standby has the log and no vote.
	Standby Role = "stand-by"
	// Spare is known and has nothing: what a member is between its admission and its
	// first log.
	Spare Role = "spare"
	// Worker is not known at all. No log has it; it is what is wanted of all others.
	Worker Role = "worker"
)

var roles = map[Role]client.NodeRole{Voter: client.Voter, Standby: client.StandBy, Spare: client.Spare}

// nodeNumber is a joining member's number in the log: derived from its ID, so that
// the leader can add a member without asking it. dqlite.GenerateID mixes the time in.
func nodeNumber(memberID string) uint64 {
	sum := sha256.Sum256([]byte(memberID))
	number := binary.BigEndian.Uint64(sum[:])
	// No node has the number zero, and the first one has that with which dqlite
	// begins a cluster.
	for number == 0 || number == dqlite.BootstrapID {
		number++
	}
	return number
}

// Roles returns who takes part in the consensus, by member ID, as this member's log
// has it.
func (s *Store) Roles(ctx context.Context) (map[string]Role, error) {
	st := s.seat.Load()
	if st == nil {
		return nil, errWorker
	}
	found := map[string]Role{}
	err := st.node.ask(ctx, func(c *client.Client) error {
		nodes, err := c.Cluster(ctx)
		for _, node := range nodes {
			for role, number := range roles {
				if number == node.Role {
					found[node.Address] = role
				}
			}
		}
		return err
	})
	if err != nil {
		return nil, state.Errorf(state.ErrUnavailable, "ask for the database's members: %w", err)
	}
	return found, nil
}

// Assign makes the consensus what it should be: members that wanted names get their
// roles, all others are removed. It is called on the leader (ErrUnavailable
// elsewhere), does one step after another, and returns with the first that fails;
// doing it again goes on from there. A new voter or stand-by must be running; its
// step returns when it has caught up.
func (s *Store) Assign(ctx context.Context, wanted map[string]Role) error {
	self := s.cfg.Member.ID
	st := s.seat.Load()
	if leader, _ := s.guide(ctx); leader != self || st == nil {
		return state.Errorf(state.ErrUnavailable, "%w: member %q does", errNotLeading, leader)
	}
	if wanted[self] != Voter {
		return state.Errorf(state.ErrConflict, "the database's leader can't lose its own vote: hand the leadership over first")
	}
	return st.node.ask(ctx, func(c *client.Client) error {
		nodes, err := c.Cluster(ctx)
		if err != nil {
			return err
		}
		present := map[string]client.NodeInfo{}
		for _, node := range nodes {
			present[node.Address] = node
		}
		for _, id := range slices.Sorted(maps.Keys(wanted)) {
			if _, known := present[id]; known {
				continue
			}
			node := client.NodeInfo{ID: nodeNumber(id), Address: id, Role: client.Spare}
			if err := c.Add(ctx, node); err != nil {
				return state.Errorf(state.ErrUnavailable, "add member %s to the database: %w", id, err)
			}
			present[id] = node
		}
		// Promotions first: the number of votes should not fall in between. Members that
		// go may be dead: their votes are to be gone before any that counts is.
		const up, away, down = 0, 1, 2
		var failed error
		for _, step := range []int{up, away, down} {
			for _, id := range slices.Sorted(maps.Keys(present)) {
				node := present[id]
				role, keep := wanted[id]
				if keep && roles[role] != node.Role && (step == up && roles[role] < node.Role || step == down && roles[role] > node.Role) {
					if err := c.Assign(ctx, node.ID, roles[role]); err != nil {
						failed = errors.Join(failed, state.Errorf(state.ErrUnavailable, "make member %s a %s of the database: %w", id, role, err))
					}
				}
				if !keep && step == away {
					if err := c.Remove(ctx, node.ID); err != nil {
						failed = errors.Join(failed, state.Errorf(state.ErrUnavailable, "remove member %s from the database: %w", id, err))
					}
				}
			}
		}
		return failed
	})
}

// Left reports whether a member takes no part in the database's log, for certain: nobody
// counts its votes or what it acknowledged any more. Only the leader knows
// (ErrUnavailable elsewhere).
func (s *Store) Left(ctx context.Context, id string) (bool, error) {
	if leader, _ := s.guide(ctx); leader != s.cfg.Member.ID {
		return false, state.Errorf(state.ErrUnavailable, "%w: member %q does", errNotLeading, leader)
	}
	absent := func() bool {
		present, err := s.Roles(ctx)
		_, there := present[id]
		return err == nil && len(present) > 0 && !there
	}
	if !absent() {
		return false, nil
	}
	// The configuration may not be committed yet; what comes after it then is not
	// either.
	result, err := inWords(s.do(ctx, &request{settle: true}))
	if err == nil && result.NotLeader {
		err = state.Errorf(state.ErrUnavailable, "%w", errNotLeading)
	}
	if err != nil {
		return false, err
	}
	return absent(), nil
}

// HandOver makes another voter the leader, before this member goes. It does nothing
// when this member does not lead or no other votes.
func (s *Store) HandOver(ctx context.Context) error {
	st := s.seat.Load()
	if st == nil {
		return nil
	}
	// The node may lead before the writer has found out.
	if leader, err := st.node.leader(ctx); err != nil || leader != st.node.address {
		return err
	}
	return st.node.ask(ctx, func(c *client.Client) error {
		nodes, err := c.Cluster(ctx)
		if err != nil {
			return err
		}
		voters := map[string]uint64{}
		for _, node := range nodes {
			if node.Address != s.cfg.Member.ID && node.Role == client.Voter {
				voters[node.Address] = node.ID
			}
		}
		if len(voters) == 0 {
			return nil
		}
		heir, err := s.anyThatAnswers(ctx, slices.Sorted(maps.Keys(voters)))
		if err != nil {
			return err
		}
		return c.Transfer(ctx, voters[heir])
	})
}

// anyThatAnswers returns the first of the members that answers. libraft 0.15 forgets what
// it sent to a successor that can't be reached, but for a pointer into what it freed,
// which it follows when the node is closed (seen as a segmentation fault).
func (s *Store) anyThatAnswers(ctx context.Context, ids []string) (string, error) {
	if s.cfg.Remote == nil {
		return ids[0], nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	type said struct {
		id  string
		err error
	}
	answers := make(chan said, len(ids))
	for _, id := range ids {
		asking.Go(func() {
			_, err := s.cfg.Remote.Leader(ctx, id)
			answers <- said{id, err}
		})
	}
	var failed error
	for range ids {
		a := <-answers
		if a.err == nil {
			return a.id, nil
		}
		failed = errors.Join(failed, a.err)
	}
	return "", failed
}
