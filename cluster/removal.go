package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// removals are the removals of members that this daemon has under way, by their marks.
type removals struct {
	mu     sync.Mutex
	marked map[string]bool // guarded by mu
}

func (r *removals) begin(mark string) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.marked == nil {
		r.marked = map[string]bool{}
	}
	r.marked[mark] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.marked, mark)
	}
}

func (r *removals) has(mark string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.marked[mark]
}

// RemoveMember takes a member out of the cluster for good: it loses its vote, its
// connections are cut and it is refused from then on. It must have no instances. One
// that is online gives up its parts of pools and networks first, and becomes a server of
// its own again; one that is offline is removed with force only, because it can't be
// told.
func (c *Cluster) RemoveMember(ctx context.Context, name string, force bool) error {
	if !c.Clustered() {
		return errAlone()
	}
	m, err := c.store.View().Member(name)
	if err != nil {
		return err
	}
	view := c.store.View()
	if len(view.Members()) == 1 {
		return state.Errorf(state.ErrConflict, "member %q is the only one: a cluster keeps at least one", name)
	}
	if m.ID == c.cfg.MemberID {
		return c.removeThroughAnother(ctx, view, name, force)
	}
	online, lost := c.Online(m.ID), m.Config[store.LostKey] != ""
	if lost && force {
		return c.apply(ctx, store.DeleteMember{Name: name, Instances: true})
	}
	if !force && !online {
		return state.Errorf(state.ErrConflict, "member %q is offline and can't be told: use force to remove it all the same", name)
	}
	if instances := view.InstancesOn(name); len(instances) > 0 {
		return state.Errorf(state.ErrConflict, "member %q has %d instances, %q among them: move or delete them first", name, len(instances), instances[0].Name)
	}
	for _, image := range view.Images("") {
		if len(image.Members) == 1 && slices.Contains(image.Members, name) && !force {
			return state.Errorf(state.ErrConflict, "image %.12s is on member %q only: delete it, or use force to lose it", image.Fingerprint, name)
		}
	}
	if !online {
		return c.apply(ctx, store.DeleteMember{Name: name})
	}
	mark := uuid.NewString()
	defer c.removals.begin(mark)()
	if err := c.clear(ctx, m, mark); err != nil {
		if !force {
			c.stay(ctx, name, mark)
			return err
		}
		c.log.Warn("a member is removed with what it has", "member", name, "error", err)
		mark = "" // it may not even be marked
	}
	forget := c.cfg.Remember(m.ID)
	defer forget()
	// It may be the member itself that waits for this, over a connection that goes with it.
	if err := c.finish(ctx, store.DeleteMember{Name: name, Mark: mark}); err != nil {
		// Whether it was recorded may be unknown: the mark tells.
		c.stay(ctx, name, mark)
		return err
	}
	if err := c.tellRemoved(ctx, name); err != nil {
		c.log.Warn("tell a member that it was removed: delete its directory before it joins again", "member", name, "error", err)
	}
	return nil
}

// tellTimeout bounds how long a member is told that it was removed.
const tellTimeout = 5 * time.Second

// tellRemoved tells a member that it was removed. The connections to it are being cut at
// this moment, so it may take more than one.
func (c *Cluster) tellRemoved(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTimeout)
	defer cancel()
	for {
		err := c.cfg.Remote.Request(ctx, name, "POST", "/internal/leave", struct{}{}, nil)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// removeThroughAnother lets another member remove this one. That the other one cuts its
// connections, also the one that its answer would come by, is a part of it.
func (c *Cluster) removeThroughAnother(ctx context.Context, view *store.View, name string, force bool) error {
	for _, other := range view.Members() {
		if other.ID == c.cfg.MemberID || !c.Online(other.ID) {
			continue
		}
		path := resource("", "cluster", "members", name)
		if force {
			path += "?force=1"
		}
		err := c.cfg.Remote.Request(ctx, other.Name, "DELETE", path, nil, nil)
		if refused := state.Kind(err) != nil && !errors.Is(err, state.ErrUnavailable); err != nil && !refused && c.hasLeft(ctx) {
			return nil
		}
		return err
	}
	return state.Errorf(state.ErrUnavailable, "no other member is online to remove member %q", name)
}

// hasLeft waits a moment for what the end of a removal is for the member itself: it is
// told to leave.
func (c *Cluster) hasLeft(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	for c.cfg.Left == nil || !c.cfg.Left() {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// clear waits until a member takes no part in the consensus and has given up its parts
// of all pools and networks.
func (c *Cluster) clear(ctx context.Context, m *state.Member, mark string) error {
	name := m.Name
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.apply(ctx, store.ClearMember{Name: name, Mark: mark, By: c.cfg.MemberID}); err != nil {
		return err
	}
	var failed string
	wentAway := func(view *store.View) bool { return !c.onlineByName(view, name) }
	err := c.until(ctx, func(view *store.View) bool {
		if wentAway(view) {
			failed = "it went offline"
			return true
		}
		left := false
		look := func(what string, locals state.Locals) {
			local, there := locals[name]
			left = left || there
			if local.Message != "" {
				failed = fmt.Sprintf("%s: %s", what, local.Message)
			}
		}
		for _, pool := range view.Pools() {
			look(poolSubject(pool.Name), pool.Locals)
		}
		for _, network := range view.Networks("") {
			look(networkSubject(network.Name), network.Locals)
		}
		return !left || failed != ""
	})
	if failed != "" {
		return state.Errorf(state.ErrConflict, "member %q can't give up what it has: %s; use force to remove it all the same", name, failed)
	}
	if err != nil {
		return err
	}
	for {
		log := state.LogCoord
		out, err := c.askLeft(ctx, log, m.ID)
		if out && err == nil {
			log = state.LogDatabase
			out, err = c.askLeft(ctx, log, m.ID)
		}
		if out && err == nil {
			return nil
		}
		if wentAway(c.store.View()) {
			return state.Errorf(state.ErrUnavailable, "member %q went offline while it was to leave the consensus; use force to remove it all the same", name)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return stillIn(name, log, c.cfg.Coord.Members(), cmp.Or(err, ctx.Err()))
		}
	}
}

// stillIn says what a member that is to leave the consensus waits for: it stays until those
// whose parts change have theirs.
func stillIn(name string, log state.Log, members []coord.Member, err error) error {
	what := "database"
	if log == state.LogCoord {
		what = "coordination log"
	}
	var changing []string
	for _, m := range members {
		if m.Pending && m.Name != name {
			changing = append(changing, m.Name)
		}
	}
	if len(changing) == 0 {
		return state.Errorf(state.ErrUnavailable, "member %q still takes part in the %s, and stays: try again (%w)", name, what, err)
	}
	return state.Errorf(state.ErrUnavailable, "member %q still takes part in the %s, and stays, because who votes is still changing (%s): try again when \"muster cluster list\" shows nobody that is becoming a database member (%w)", name, what, strings.Join(changing, ", "), err)
}

// stay takes back a removal that failed.
func (c *Cluster) stay(ctx context.Context, name, mark string) {
	err := c.finish(ctx, store.StayMember{Name: name, Mark: mark, Hint: store.Hint{Action: store.NoEvent}})
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		c.log.Error("take back the removal of a member: it is tried again", "member", name, "error", err)
	}
}

// removalsEvery is how often removals that nobody carries on are looked for.
const removalsEvery = 2 * time.Second

// tendRemovals takes back the removals that nobody carries on: those that this member
// began before it was started anew or could not take back, and this member's own when
// who began it is gone. It returns when ctx ends.
func (c *Cluster) tendRemovals(ctx context.Context) error {
	return every(ctx, removalsEvery, func() {
		view := c.store.View()
		for _, m := range view.Members() {
			mark, by := store.Leaving(m)
			if mark == "" {
				continue
			}
			_, err := view.MemberByID(by)
			gone := err != nil || !c.Online(by)
			if by == c.cfg.MemberID && !c.removals.has(mark) || m.ID == c.cfg.MemberID && gone {
				c.log.Warn("a removal that nobody carries on is taken back", "member", m.Name)
				c.stay(ctx, m.Name, mark)
			}
		}
	})
}
