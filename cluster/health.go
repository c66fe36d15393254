package cluster

import (
	"context"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// statusBlocked is that of a member whose logs can't be written: it takes no part in the
// consensus until they can be. Its instances run on.
const statusBlocked = "Blocked"

// Trouble is what keeps this member from its part in the consensus.
func (c *Cluster) Trouble() state.Trouble {
	worst := c.store.Trouble()
	if c.cfg.Coord != nil {
		if t := c.cfg.Coord.Trouble(); worst == (state.Trouble{}) || t.Broken && !worst.Broken {
			worst = t
		}
	}
	return worst
}

// troubles are those of all members that have any, by ID: this one's own, and what the
// others say of themselves.
func (c *Cluster) troubles() map[string]state.Trouble {
	found := map[string]state.Trouble{}
	if g := c.gossip.Load(); g != nil {
		for _, load := range g.Loads() {
			if load.Trouble != (state.Trouble{}) {
				found[load.Member] = load.Trouble
			}
		}
	}
	delete(found, c.cfg.MemberID)
	if t := c.Trouble(); t != (state.Trouble{}) {
		found[c.cfg.MemberID] = t
	}
	return found
}

// Voters counts the other voters that are online and whose logs can be written, those
// that say of themselves that theirs can't be, and all voters.
func (c *Cluster) Voters() (fit, sick, all int) {
	troubles := c.troubles()
	for _, m := range c.cfg.Coord.Members() {
		if roleOf(m) != store.Voter {
			continue
		}
		all++
		if m.ID == c.cfg.MemberID || m.Verdict == coord.Offline || c.doubted(m.ID) {
			continue
		}
		if _, troubled := troubles[m.ID]; troubled {
			sick++
		} else {
			fit++
		}
	}
	return fit, sick, max(all, 1)
}

// sick are the members whose logs can't be written, by ID, as long as a majority of the
// voters is well: else none, because nobody could take a vote over.
func (c *Cluster) sick(members []coord.Member) map[string]bool {
	sick := map[string]bool{}
	for id, t := range c.troubles() {
		sick[id] = t.Broken
	}
	votes, well := 0, 0
	for _, m := range members {
		if roleOf(m) == store.Voter {
			votes++
			if !sick[m.ID] && m.Verdict != coord.Offline {
				well++
			}
		}
	}
	if well <= votes/2 {
		return nil
	}
	return sick
}

// FreezeWriters freezes the instances here that may write, before the room is given up that
// was kept for stopping and deleting them. What the state plane says of them stays.
func (c *Cluster) FreezeWriters(ctx context.Context) {
	c.frozenMu.Lock()
	defer c.frozenMu.Unlock()
	frozen, err := c.node.FreezeBusy(ctx)
	if err != nil {
		c.log.Warn("freeze the instances that work on a full disk", "error", err)
	}
	if len(frozen) > 0 {
		c.log.Warn("the disk is full: instances that may write are frozen until there is room", "instances", frozen)
	}
	c.frozen = append(c.frozen, frozen...)
}

// ThawWriters takes back what FreezeWriters did.
func (c *Cluster) ThawWriters(ctx context.Context) {
	c.frozenMu.Lock()
	defer c.frozenMu.Unlock()
	if err := c.node.Thaw(ctx, c.frozen); err != nil {
		c.log.Warn("let instances go on that were frozen while the disk was full", "error", err)
	}
	c.frozen = nil
}

// ail shows what keeps a member from its part.
func (c *Cluster) ail(info *MemberInfo) {
	t, sick := c.troubles()[info.ID]
	if !sick || info.Status != string(present) {
		return
	}
	info.Message = t.Message
	if t.Broken {
		info.Status = statusBlocked
	}
}
