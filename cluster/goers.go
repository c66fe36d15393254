package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// A member that is shut down gives its vote to another before it goes, so that the cluster
// can at once lose the next one. It tells the coordinator, again and again, until its role is
// another and carried out, or nobody is there to take the vote.

const (
	// goerStays is how long the coordinator takes a member that said so for going: longer
	// than it takes to declare it offline.
	goerStays = 10 * time.Second
	// votePatience bounds the giving up of a vote, and tellEvery is the pause between two
	// looks.
	votePatience = 10 * time.Second
	tellEvery    = 100 * time.Millisecond
)

// goers are the members that have told this coordinator that they go.
type goers struct {
	mu sync.Mutex
	// until is when each is no longer believed, guarded by mu.
	until map[string]time.Time
}

func (g *goers) note(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.until == nil {
		g.until = map[string]time.Time{}
	}
	g.until[id] = time.Now().Add(goerStays)
}

func (g *goers) has(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.until[id])
}

// Going answers a member that is about to go, as the coordinator: whether another takes its
// vote.
func (c *Cluster) Going(_ context.Context, memberID string) (taken bool, err error) {
	if _, leading := c.cfg.Coord.Leading(); !leading {
		return false, state.Errorf(state.ErrUnavailable, "this member does not coordinate")
	}
	if _, found := c.cfg.Coord.Member(memberID); !found {
		return false, state.Errorf(state.ErrNotFound, "no member has the ID %q", memberID)
	}
	c.goers.note(memberID)
	seats, err := c.coordRoles()
	if err != nil {
		return false, err
	}
	members := c.cfg.Coord.Members()
	return handsOn(memberID, members, c.wantedRoles(c.store.View(), members), seats), nil
}

// handsOn reports whether others take a member's vote. One that has been chosen and went
// offline before it had the vote in the log does not take it.
func handsOn(id string, members []coord.Member, wanted, seats map[string]store.Role) bool {
	for _, m := range members {
		if wanted[m.ID] == store.Voter && (m.ID == id || m.Verdict == coord.Offline && seats[m.ID] != store.Voter) {
			return false
		}
	}
	return true
}

// GiveUpVote gives this member's vote to another, if it has one and somebody can take it, and
// returns when that is done. Without a majority there is nothing to give.
func (c *Cluster) GiveUpVote(ctx context.Context) {
	if c.cfg.Coord == nil || !c.Clustered() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, votePatience)
	defer cancel()
	for {
		self, known := c.cfg.Coord.Member(c.cfg.MemberID)
		if !known || roleOf(self) != store.Voter && !self.Pending {
			return
		}
		taken, err := c.tellGoing(ctx)
		switch {
		case err == nil && !taken:
			return // nobody is there for it
		case errors.Is(err, state.ErrNotFound), errors.Is(err, state.ErrInvalid):
			return // a coordinator of the release before
		case err != nil && c.blind() > 0:
			return
		}
		select {
		case <-ctx.Done():
			c.log.Warn("this member goes before another has its vote for certain", "error", err)
			return
		case <-time.After(tellEvery):
		}
	}
}

// tellGoing tells whoever coordinates that this member goes.
func (c *Cluster) tellGoing(ctx context.Context) (taken bool, err error) {
	leader := c.cfg.Coord.Leader()
	if leader == c.cfg.MemberID {
		return c.Going(ctx, leader)
	}
	coordinator, found := c.cfg.Coord.Member(leader)
	if !found || c.cfg.Remote == nil {
		return false, state.Errorf(state.ErrUnavailable, "nobody coordinates")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var answer GoingAnswer
	err = c.cfg.Remote.Request(ctx, coordinator.Name, "POST", "/internal/going", GoingQuestion{MemberID: c.cfg.MemberID}, &answer)
	return answer.Taken, err
}

// GoingQuestion is the body of POST /internal/going, and GoingAnswer the answer to it.
type GoingQuestion struct {
	MemberID string `json:"member_id"`
}

// GoingAnswer says whether another member takes the vote.
type GoingAnswer struct {
	Taken bool `json:"taken"`
}
