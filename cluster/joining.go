package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// A join is one job with a mark in the state plane (store.JoiningKey). The member that
// admits a server sets the mark in the command that records the new member. The new member
// removes it when it is online and has tried to make its parts of all pools and networks.
// The coordinator takes the join back when the new member is silent for joinPatience.

// joinPatience is how long the coordinator waits for an answer of a server that was
// admitted before it takes the join back. The server may be starting anew on a slow machine.
const joinPatience = 30 * time.Second

// joinEvery is how often a member that joins looks whether its join has ended.
const joinEvery = 100 * time.Millisecond

// joinRetry is how long a member waits when it could not record that its join has ended.
const joinRetry = 5 * time.Second

// joins is what the coordinator remembers, in its term, of servers that join. Only the loop
// of tendRoles uses it.
type joins struct {
	// heard is when each server that joins was last heard of, or first looked at, by ID.
	heard map[string]time.Time
}

// tend takes back the joins of servers that stayed silent.
func (j *joins) tend(ctx context.Context, c *Cluster, view *store.View) error {
	heard := map[string]time.Time{}
	var failed []error
	for _, m := range view.Members() {
		if !store.Joining(m) {
			continue
		}
		last, looked := j.heard[m.ID]
		known, found := c.cfg.Coord.Member(m.ID)
		if !looked || found && known.Verdict != coord.Offline {
			last = time.Now()
		}
		heard[m.ID] = last
		if time.Since(last) < joinPatience {
			continue
		}
		c.log.Warn("a server that was admitted to the cluster has not come: its join is taken back", "member", m.Name)
		failed = append(failed, c.apply(ctx, store.TakeBackJoin{Name: m.Name, ID: m.ID}))
		delete(heard, m.ID) // it may join again before the next look
	}
	j.heard = heard
	return errors.Join(failed...)
}

// forget drops what is remembered: another member coordinates.
func (j *joins) forget() { j.heard = nil }

// tokensEvery is how often the coordinator looks for operations whose token is gone.
const tokensEvery = 15 * time.Second

// tendTokens ends the operations of tokens that were used up or withdrawn by a member that
// died before it could end them. It returns when ctx ends.
func (c *Cluster) tendTokens(ctx context.Context) error {
	// An operation is there before its token: it is ended when two rounds found none.
	var orphans map[string]bool
	return every(ctx, tokensEvery, func() {
		before := orphans
		orphans = map[string]bool{}
		if _, leading := c.cfg.Coord.Leading(); !leading {
			return
		}
		tokens := map[string]bool{}
		for _, token := range c.store.View().Tokens() {
			tokens[token.Operation] = true
		}
		for _, op := range c.cfg.Coord.Operations() {
			var input tokenInput
			if op.Class != coord.ClassToken || op.Status.Final() || tokens[op.ID] || json.Unmarshal(op.Input, &input) != nil || input.Token == "" {
				continue
			}
			if orphans[op.ID] = true; !before[op.ID] {
				continue
			}
			if err := c.ops.Finish(ctx, op.ID); err != nil && ctx.Err() == nil {
				c.log.Warn("end the operation of a token that is gone", "operation", op.ID, "error", err)
			}
		}
	})
}

// EndJoin waits until this member is online and has tried to make its parts of all pools
// and networks, and records that its join has ended. It returns at once when this member
// does not join. ErrNotFound says that the join was taken back.
func (c *Cluster) EndJoin(ctx context.Context) error {
	ticker := time.NewTicker(joinEvery)
	defer ticker.Stop()
	for {
		self, err := c.store.View().MemberByID(c.cfg.MemberID)
		if err != nil || !store.Joining(self) {
			return err
		}
		if known, found := c.cfg.Coord.Member(self.ID); found && known.Verdict == coord.Online && !c.partsPending(self.Name) {
			err := c.apply(ctx, store.EndJoin{Name: self.Name})
			if err == nil || errors.Is(err, state.ErrNotFound) {
				return err
			}
			if !errors.Is(err, state.ErrUnavailable) {
				// The leader may be of a release that does not know the command.
				c.log.Warn("record that this member has joined: it is tried again", "error", err)
				ticker.Reset(joinRetry)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// partsPending reports whether the member has yet to try to make some part of a pool or
// network.
func (c *Cluster) partsPending(member string) bool {
	pending := false
	eachPart(c.store.View(), member, func(_ string, local state.Local) {
		pending = pending || local.Status == state.LocalCreating
	})
	return pending
}

// PartsFailed says what is wrong with this member's parts of pools and networks, or nil.
func (c *Cluster) PartsFailed() error { return partsFailed(c.store.View(), c.Self()) }

// partsFailed says what is wrong with a member's parts of pools and networks, or nil.
func partsFailed(view *store.View, member string) error {
	var failed []error
	eachPart(view, member, func(subject string, local state.Local) {
		if local.Status != state.LocalDeleting && local.Message != "" {
			failed = append(failed, fmt.Errorf("%s: %s", subject, strings.TrimPrefix(local.Message, subject+": ")))
		}
	})
	return joined(failed)
}

// joined is errors.Join on one line.
func joined(failed []error) error {
	var all error
	for _, err := range failed {
		if all == nil {
			all = err
		} else {
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	return all
}

// eachPart calls do with the member's part of every pool and network.
func eachPart(view *store.View, member string, do func(subject string, local state.Local)) {
	for _, pool := range view.Pools() {
		if local, there := pool.Locals[member]; there {
			do(poolSubject(pool.Name), local)
		}
	}
	for _, network := range view.Networks("") {
		if local, there := network.Locals[member]; there {
			do(networkSubject(network.Name), local)
		}
	}
}
