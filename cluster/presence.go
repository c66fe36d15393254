package cluster

import (
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
