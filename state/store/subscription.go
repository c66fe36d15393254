package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"muster/state"
)

// Subscribe returns a subscription to the changes after since, in the order of
// their revisions. ErrStale means that they are no longer at hand: take a View and
// subscribe from its Revision. ErrInvalid means that since is in the future.
func (s *Store) Subscribe(since state.Revision) (*Subscription, error) { return s.hub.subscribe(since) }

func (h *hub) subscribe(since state.Revision) (*Subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if head := h.head.Load(); since > head.last {
		return nil, state.Errorf(state.ErrInvalid, "revision %d is in the future: the newest is %d", since, head.last)
	}
	if since < h.oldest.last {
		return nil, state.Errorf(state.ErrStale, "changes after revision %d are no longer at hand, only those after %d", since, h.oldest.last)
	}
	at := h.oldest
	for next := at.next.Load(); next != nil && next.last <= since; next = at.next.Load() {
		at = next
	}
	return &Subscription{hub: h, at: at, after: since}, nil
}

// Subscription walks the changes at its own pace: it misses none and holds nobody
// up. It is for one goroutine, and needs no closing.
type Subscription struct {
	hub *hub
	// at is the last link that was returned, after the last revision.
	at    *link
	after state.Revision
}

// Next waits for changes and returns those of one or more whole revisions, which
// the caller must not write to. ErrStale means that the subscription lost its
// place, because it was too slow or because this member's View was made anew: take
// a View and subscribe from its Revision. ErrUnavailable means that the store is
// closed; otherwise the error is the context's.
func (s *Subscription) Next(ctx context.Context) ([]Change, error) {
	for {
		select {
		case <-s.at.ready:
		default:
			select {
			case <-s.at.ready:
			case <-s.hub.closed:
				return nil, errClosed
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		next := s.at.next.Load()
		if next == lost {
			return nil, state.Errorf(state.ErrStale, "changes after revision %d are no longer at hand", s.after)
		}
		changes, err := next.content()
		if err != nil {
			return nil, err
		}
		s.at = next
		fresh := slices.IndexFunc(changes, func(c Change) bool { return c.Revision > s.after })
		s.after = max(s.after, next.last)
		if fresh >= 0 {
			return changes[fresh:], nil
		}
	}
}

// Watch sends what another member needs to keep a View like this one's: a snapshot
// first when since is zero, the changes after it are no longer at hand or what it has was
// made by an older schema, then changes as they come, and a sign of life now and then. It
// returns when ctx is done, when send fails, when the store is closed, when this member is
// a worker or knows less.
func (s *Store) Watch(ctx context.Context, since state.Revision, schema int64, send func(Batch) error) error {
	if s.View().Revision() == 0 && !s.leading() {
		return state.Errorf(state.ErrUnavailable, "this member shows nothing of the database yet")
	}
	for {
		subscription, err := s.Subscribe(since)
		view := s.View()
		switch {
		case since == 0 || errors.Is(err, state.ErrStale):
			if subscription, err = s.Subscribe(view.Revision()); errors.Is(err, state.ErrStale) {
				continue // the View was made anew in between
			}
			if err == nil {
				err = s.sendSnapshot(view, send)
			}
		case err == nil && view.Schema() < schema:
			return state.Errorf(state.ErrUnavailable, "this member has not heard of schema %d yet", schema)
		case err == nil && view.Schema() != schema:
			// Events are made of the changes: what came before the snapshot is sent too.
			if err = s.relay(ctx, subscription, view.Revision(), send); err == nil {
				err = s.sendSnapshot(view, send)
			}
		}
		if err == nil {
			schema = view.Schema()
			err = s.relay(ctx, subscription, endless, send)
		}
		if !errors.Is(err, state.ErrStale) {
			return err
		}
		since = subscription.after
	}
}

func (s *Store) sendSnapshot(view *View, send func(Batch) error) error {
	snapshot, err := view.batch()
	if err != nil {
		return err
	}
	snapshot.Leader = s.LeaderSeen()
	return send(snapshot)
}

// endless is a revision that is never reached.
const endless = state.Revision(math.MaxInt64)

// relay sends what a subscription brings up to a revision, and who leads when that changes
// or nothing else happens.
func (s *Store) relay(ctx context.Context, subscription *Subscription, until state.Revision, send func(Batch) error) error {
	for subscription.after < until {
		changes, err := s.nextOrBeat(ctx, subscription)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case s.seat.Load() == nil:
			return errWorker // nobody follows a worker: it may be following them
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			changes = nil
		case err != nil:
			return err
		}
		batch := Batch{Revision: subscription.after, Leader: s.LeaderSeen(), Records: make([]Record, len(changes))}
		for i := range changes {
			if batch.Records[i], err = changes[i].record(); err != nil {
				return err
			}
		}
		if err := send(batch); err != nil {
			return err
		}
	}
	return nil
}

// nextOrBeat is Next, for as long as the leader is the same and at most for beatEvery.
func (s *Store) nextOrBeat(ctx context.Context, subscription *Subscription) ([]Change, error) {
	waiting, cancel := context.WithTimeout(ctx, beatEvery)
	defer cancel()
	defer s.seen.onChange(cancel)()
	return subscription.Next(waiting)
}

// record encodes the change.
func (c *Change) record() (Record, error) {
	r := Record{
		Revision: c.Revision, Index: c.Index, Kind: c.Kind,
		Action: c.Action, Context: c.Context, Requestor: c.Requestor, At: c.At,
	}
	var err error
	if c.After != nil {
		if r.After, err = json.Marshal(c.After); err != nil {
			return Record{}, fmt.Errorf("encode %s: %w", c.Kind, err)
		}
	}
	// Whoever knows the object finds what it was by its identity, and needs to be
	// told only when that changed.
	if c.Before != nil && (c.After == nil || renamed(c.Kind, c.Before, c.After)) {
		if r.Before, err = json.Marshal(c.Before); err != nil {
			return Record{}, fmt.Errorf("encode %s: %w", c.Kind, err)
		}
	}
	return r, nil
}

// batch returns everything in the View.
func (v *View) batch() (Batch, error) {
	batch := Batch{Snapshot: true, Revision: v.revision, Schema: v.schema}
	for _, kind := range kinds {
		iterator, err := v.txn.Get(string(kind), byID)
		if err != nil {
			return Batch{}, err
		}
		for object := iterator.Next(); object != nil; object = iterator.Next() {
			raw, err := json.Marshal(object)
			if err != nil {
				return Batch{}, fmt.Errorf("encode %s: %w", kind, err)
			}
			batch.Records = append(batch.Records, Record{Revision: metaOf(object).Revision, Kind: kind, After: raw})
		}
	}
	return batch, nil
}
