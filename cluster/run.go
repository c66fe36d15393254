package cluster

import (
	"context"
	"errors"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"muster/state"
	"muster/state/store"
)

// Run does what a member does all the time: it watches its instances and
// networks, turns changes of the state into lifecycle events, and removes
// snapshots that have expired. It returns when ctx ends.
func (c *Cluster) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.watch(ctx) })
	group.Go(func() error { return c.node.Networks().Run(ctx) })
	group.Go(func() error { return c.tellLifecycle(ctx) })
	group.Go(func() error { return c.tendRevoked(ctx) })
	group.Go(func() error { return c.tendNews(ctx) })
	group.Go(func() error { return c.tendLocals(ctx) })
	group.Go(func() error { return c.tendDelayed(ctx) })
	group.Go(func() error { return c.tendIntents(ctx) })
	group.Go(func() error { return c.tendAddresses(ctx) })
	group.Go(func() error { return c.tendProfiles(ctx) })
	group.Go(func() error { return c.tendImages(ctx) })
	group.Go(func() error { return c.dropDeletedImages(ctx) })
	group.Go(func() error { return c.tellFacts(ctx) })
	group.Go(func() error { return c.expireSnapshots(ctx) })
	group.Go(func() error { return c.tendRemovals(ctx) })
	group.Go(func() error { return c.tendReleases(ctx) })
	if c.cfg.Coord != nil {
		group.Go(func() error { return c.tendCertificate(ctx) })
		group.Go(func() error { return c.tendVirtual(ctx) })
		group.Go(func() error { return c.tendRoles(ctx) })
		group.Go(func() error { return c.tendTokens(ctx) })
		group.Go(func() error { return c.tendControl(ctx) })
		group.Go(func() error { return c.tendVerdicts(ctx) })
	}
	err := group.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// every calls do again and again, with a pause before each call, until ctx ends.
func every(ctx context.Context, pause time.Duration, do func()) error {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			do()
		}
	}
}

// expireSnapshots removes snapshots whose time is over, once a minute.
func (c *Cluster) expireSnapshots(ctx context.Context) error {
	return every(ctx, time.Minute, func() {
		view := c.store.View()
		for _, snapshot := range view.Snapshots("", "") {
			inst, err := view.Instance(snapshot.Project, snapshot.Instance)
			if err != nil || inst.Location != c.Self() {
				continue
			}
			if snapshot.ExpiresAt.IsZero() || snapshot.ExpiresAt.After(time.Now()) || snapshot.Busy != "" {
				continue
			}
			if err := c.deleteSnapshot(ctx, snapshot.Project, snapshot.Instance, snapshot.Name); err != nil && ctx.Err() == nil {
				c.log.Warn("remove an expired snapshot", "instance", snapshot.Instance, "snapshot", snapshot.Name, "error", err)
			}
		}
	})
}

// tellLifecycle makes the lifecycle events, from the changes themselves, so that
// events and state cannot disagree.
func (c *Cluster) tellLifecycle(ctx context.Context) error {
	if c.cfg.Events == nil {
		<-ctx.Done()
		return nil
	}
	return c.follow(ctx, c.tell, func(after state.Revision) {
		c.log.Warn("lifecycle events were skipped: the state was made anew", "after", after)
	})
}

// follow hands every change over from now on, in order and once, until ctx ends. skipped
// is told after which revision some were not at hand.
func (c *Cluster) follow(ctx context.Context, handle func(store.Change), skipped func(after state.Revision)) error {
	handled := c.store.View().Revision()
	for {
		subscription, err := c.store.Subscribe(handled)
		if errors.Is(err, state.ErrStale) {
			skipped(handled)
			handled = c.store.View().Revision()
			continue
		}
		if err != nil {
			return err
		}
		for {
			changes, err := subscription.Next(ctx)
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the end of ctx is how this ends
			}
			if errors.Is(err, state.ErrStale) {
				break // the View was made anew: the changes may be at hand all the same
			}
			if err != nil {
				return err
			}
			for _, change := range changes {
				handle(change)
				handled = change.Revision
			}
		}
	}
}

func (c *Cluster) tell(change store.Change) {
	event := c.lifecycle(change)
	if event == nil {
		return
	}
	c.cfg.Events.send(event)
	// The member where it happened logs it: instances that start, stop and move, and all
	// else that is told.
	if what, is := event.metadata.(Lifecycle); is && c.whereChanged(change) == c.Self() {
		who := ""
		if what.Requestor != nil {
			who = what.Requestor.Username
		}
		c.log.Info("something changed", "action", what.Action, "source", what.Source, "requestor", who)
	}
}

// EventsSince is a listener that also gets the lifecycle events of the changes after a
// revision, each once and in order. It is ErrStale when those are no longer at hand, and
// ErrInvalid when the revision is in the future.
func (c *Cluster) EventsSince(ctx context.Context, interest Interest, since state.Revision) (*Listener, error) {
	listener, err := c.cfg.Events.Subscribe(interest)
	if err != nil {
		return nil, err
	}
	older, upTo, err := c.lifecycleSince(ctx, &listener.interest, since)
	if err != nil {
		listener.Close()
		return nil, err
	}
	listener.replay(older, upTo)
	return listener, nil
}

// lifecycleSince makes the lifecycle events of the changes after since that this member
// knows of by now.
func (c *Cluster) lifecycleSince(ctx context.Context, interest *Interest, since state.Revision) (older []*Event, upTo state.Revision, err error) {
	now := c.store.View().Revision()
	subscription, err := c.store.Subscribe(since)
	if err != nil {
		return nil, 0, err
	}
	for upTo = since; upTo < now; {
		changes, err := subscription.Next(ctx)
		if err != nil {
			return nil, 0, err
		}
		for _, change := range changes {
			upTo = max(upTo, change.Revision)
			if event := c.lifecycle(change); event != nil && interest.covers(event) {
				older = append(older, event)
			}
		}
	}
	return older, upTo, nil
}

// lifecycle is the event that tells of a change, or nil.
func (c *Cluster) lifecycle(change store.Change) *Event {
	if change.Action == "" || change.Action == store.NoEvent {
		return nil
	}
	project, name, source := subject(change)
	event := Lifecycle{Action: change.Action, Source: source, Context: change.Context, Name: name, Project: project}
	event.Requestor = requestorOf(change.Requestor)
	return c.cfg.Events.lifecycle(change.At, c.whereChanged(change), project, change.Revision, event)
}

// whereChanged is the name of the member on which a change was made: the one that answered
// whoever asked for it, or the one that has the instance.
func (c *Cluster) whereChanged(change store.Change) string {
	if change.Requestor != nil && change.Requestor.Member != "" {
		return change.Requestor.Member
	}
	object := change.After
	if object == nil {
		object = change.Before
	}
	switch object := object.(type) {
	case *state.Instance:
		return object.Location
	case *state.Snapshot:
		if inst, err := c.store.View().Instance(object.Project, object.Instance); err == nil {
			return inst.Location
		}
	}
	return ""
}

// subject names what a change is about.
func subject(change store.Change) (project, name, source string) {
	object := change.After
	if object == nil {
		object = change.Before
	}
	switch object := object.(type) {
	case *state.Instance:
		return object.Project, object.Name, resource(object.Project, "instances", object.Name)
	case *state.Snapshot:
		return object.Project, object.Name, resource(object.Project, "instances", object.Instance, "snapshots", object.Name)
	case *state.Profile:
		return object.Project, object.Name, resource(object.Project, "profiles", object.Name)
	case *state.Image:
		return object.Project, object.Fingerprint, resource(object.Project, "images", object.Fingerprint)
	case *state.ImageAlias:
		return object.Project, object.Name, resource(object.Project, "images", "aliases", object.Name)
	case *state.Network:
		return object.Project, object.Name, resource(object.Project, "networks", object.Name)
	case *state.Pool:
		return "", object.Name, resource("", "storage-pools", object.Name)
	case *state.Project:
		return object.Name, object.Name, "/1.0/projects/" + url.PathEscape(object.Name)
	case *state.Certificate:
		return "", object.Name, resource("", "certificates", object.Fingerprint)
	case *state.Member:
		return "", object.Name, resource("", "cluster", "members", object.Name)
	}
	return "", "", "/1.0"
}
