package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// Who is alive is the coordinator's verdict. While nobody coordinates, verdicts are as old
// as that: what a member then says of another is what it sees itself, through the gossip.

// presence is how a member is, as far as this one can know now.
type presence string

const (
	present presence = "Online"
	absent  presence = "Offline"
	// unreachable is one that nobody can give a verdict on, and that this member can't
	// reach.
	unreachable presence = "Unreachable"
)

// blindAfter is how long nobody may coordinate before verdicts count as old: an election
// takes less.
const blindAfter = time.Second

// sight is when this member last saw somebody coordinate.
type sight struct{ at atomic.Pointer[time.Time] }

func (s *sight) note() {
	now := time.Now()
	s.at.Store(&now)
}

// blind says for how long nobody coordinates, as far as this member sees; zero while
// somebody does.
func (c *Cluster) blind() time.Duration {
	if c.cfg.Coord.Coordinated() {
		return 0
	}
	if since := c.sight.at.Load(); since != nil {
		if old := time.Since(*since); old > blindAfter {
			return old
		}
	}
	return 0
}

// presenceOf is how the member of that ID is.
func (c *Cluster) presenceOf(memberID string) presence {
	if c.cfg.Coord == nil || memberID == c.cfg.MemberID {
		return present
	}
	m, err := c.store.View().MemberByID(memberID)
	if err == nil && m.Config[store.LostKey] != "" {
		return absent
	}
	known, found := c.cfg.Coord.Member(memberID)
	switch {
	case !found && err == nil && store.Joining(m):
		return absent // nobody has heard of it as a member
	case found && known.Verdict == coord.Offline:
		return absent
	case c.blind() > 0 && c.doubted(memberID):
		return unreachable
	}
	return present
}

// Online reports whether the cluster takes the member for alive. One that has not
// been judged yet is; one that nobody can judge is when this member sees it.
func (c *Cluster) Online(memberID string) bool { return c.presenceOf(memberID) == present }

// untold is why nobody knows whether a member is alive.
const untold = "there is no majority of the database members to tell whether it is alive; try again when most of them are up" + store.Hopeless

// Absent says why a member can't be asked; nil when it is online.
func (c *Cluster) Absent(memberID string) error {
	switch c.presenceOf(memberID) {
	case present:
		return nil
	case unreachable:
		return state.Errorf(state.ErrUnavailable, "it can't be reached, and "+untold)
	}
	return state.Errorf(state.ErrUnavailable, "it is offline")
}

// verdictPatience bounds how long a member that is back waits to be taken for online.
const verdictPatience = 5 * time.Second

// AwaitVerdict waits until the coordinator takes this member, which is back, for online: no
// other calls it offline then, and its instances out of order. Without a coordinator, or
// with one that can't reach it, nobody waits for long.
func (c *Cluster) AwaitVerdict(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, verdictPatience)
	defer cancel()
	err := c.until(ctx, func(*store.View) bool {
		known, found := c.cfg.Coord.Member(c.cfg.MemberID)
		return !found || known.Verdict != coord.Offline
	})
	if err != nil {
		c.log.Warn("the cluster still takes this member for offline", "error", err)
	}
}

// noMajority is what a member is told that can't know more; "" while it can.
func (c *Cluster) noMajority() string {
	old := max(c.blind(), c.store.Stale())
	if old == 0 {
		return ""
	}
	return fmt.Sprintf("No majority of the database members for %s: shown is what was known then, and nothing can be changed", old.Round(time.Second))
}

// judge adds to what is known of a member how far it can be relied on.
func (c *Cluster) judge(info *MemberInfo, m *state.Member) {
	majority := c.noMajority()
	switch {
	case c.presenceOf(m.ID) == unreachable:
		info.Status = string(unreachable)
		info.Message = "This member can't reach it. " + majority
	case majority != "" && info.Status == string(present):
		info.Message = majority
	}
}
