package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/state"
)

// mirror keeps what a subscription says, to be compared with the View.
type mirror struct {
	revision state.Revision
	objects  map[string]any
}

func mirrorOf(v *View) *mirror {
	m := &mirror{revision: v.Revision(), objects: map[string]any{}}
	for _, kind := range kinds {
		iterator, _ := v.txn.Get(string(kind), byID)
		for o := iterator.Next(); o != nil; o = iterator.Next() {
			m.objects[string(kind)+string(identify(kind, o))] = o
		}
	}
	return m
}

// follow takes changes in and complains about what does not fit.
func (m *mirror) follow(t *testing.T, changes []Change) {
	t.Helper()
	for _, c := range changes {
		if c.Index == 0 && c.Revision != m.revision+1 || c.Index > 0 && c.Revision != m.revision {
			t.Fatalf("change %d.%d comes after revision %d", c.Revision, c.Index, m.revision)
		}
		m.revision = c.Revision
		if c.Before != nil {
			k := string(c.Kind) + string(identify(c.Kind, c.Before))
			if m.objects[k] != c.Before {
				t.Fatalf("change %d.%d replaces a %s that was not there", c.Revision, c.Index, c.Kind)
			}
			delete(m.objects, k)
		}
		if c.After != nil {
			k := string(c.Kind) + string(identify(c.Kind, c.After))
			if m.objects[k] != nil {
				t.Fatalf("change %d.%d makes a %s that is there already", c.Revision, c.Index, c.Kind)
			}
			m.objects[k] = c.After
		}
	}
}

// work makes, changes, renames and deletes instances, in parallel.
func work(t *testing.T, s *Store, workers, rounds int) {
	t.Helper()
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for r := range rounds {
				name := fmt.Sprintf("w%d-%d", w, r)
				for _, command := range []Command{
					newInstance(name),
					FinishCreate{Project: "default", Name: name, IntentID: "create-" + name},
					SetInstanceState{Project: "default", Name: name, Status: state.StatusRunning, Hint: Hint{Action: "instance-started"}},
					RenameInstance{Project: "default", Name: name, NewName: name + "x"},
				} {
					if _, err := s.Apply(t.Context(), command); err != nil {
						t.Errorf("%s: %v", command.name(), err)
					}
				}
				if r%2 == 0 {
					if _, err := s.Apply(t.Context(), DeleteInstance{Project: "default", Name: name + "x"}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	running.Wait()
}

func TestASubscriptionMissesNothing(t *testing.T) {
	s := freshStore(t)
	m := mirrorOf(s.View())
	subscription, err := s.Subscribe(m.revision)
	if err != nil {
		t.Fatal(err)
	}
	var worker sync.WaitGroup
	worker.Go(func() { work(t, s, 8, 8) })
	last := m.revision + 8*8*4 + 8*4
	for m.revision < last {
		changes, err := subscription.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m.follow(t, changes)
	}
	worker.Wait()
	if !maps.Equal(mirrorOf(s.View()).objects, m.objects) {
		t.Errorf("the changes do not add up to the View: %d objects of %d", len(m.objects), len(mirrorOf(s.View()).objects))
	}
	// Whoever comes late gets the same.
	late, err := s.Subscribe(1)
	if err != nil {
		t.Fatal(err)
	}
	for at := state.Revision(1); at < last; {
		changes, err := late.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if c.Index == 0 && c.Revision != at+1 {
				t.Fatalf("revision %d follows %d", c.Revision, at)
			}
			at = c.Revision
		}
	}
	consistent(t, s)
}

func TestEventsAreInTheChanges(t *testing.T) {
	s := freshStore(t)
	revision := s.View().Revision()
	ctx := WithRequestor(t.Context(), Requestor{Username: "root", Protocol: "unix"})
	apply := func(command Command) {
		t.Helper()
		if _, err := s.Apply(ctx, command); err != nil {
			t.Fatal(err)
		}
	}
	apply(newInstance("c1"))
	apply(FinishCreate{Project: "default", Name: "c1", IntentID: "create-c1"})
	apply(SetInstanceState{Project: "default", Name: "c1", Status: state.StatusRunning, Hint: Hint{Action: "instance-started", Context: map[string]any{"pid": 7.0}}})
	apply(SetInstanceState{Project: "default", Name: "c1", Set: state.Config{"volatile.x": "y"}})
	apply(RenameInstance{Project: "default", Name: "c1", NewName: "c2"})
	apply(DeleteInstance{Project: "default", Name: "c2", Hint: Hint{Action: NoEvent}})
	subscription, err := s.Subscribe(revision)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for at := revision; at < s.View().Revision(); {
		changes, err := subscription.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			at = c.Revision
			if c.Requestor == nil || c.Requestor.Username != "root" || c.At.IsZero() {
				t.Errorf("change %d.%d was made by %v at %v", c.Revision, c.Index, c.Requestor, c.At)
			}
			if c.Action == "" {
				continue
			}
			before, _ := c.Before.(*state.Instance)
			got = append(got, fmt.Sprint(c.Action, " ", before.Name, "→", c.After.(*state.Instance).Name, " ", c.Context))
		}
	}
	want := []string{"instance-created c1→c1 map[]", "instance-started c1→c1 map[pid:7]", "instance-renamed c1→c2 map[]"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestSubscribingToThePastAndTheFuture(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for n := range 10 {
		must(t, s, SetSettings{Cluster: map[string]string{"n": fmt.Sprint(n)}})
	}
	must(t, s, newInstance("c1"))
	must(t, s, DeleteInstance{Project: "default", Name: "c1", IntentID: "create-c1"})
	newest := s.View().Revision()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if _, err := s.Subscribe(newest + 1); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("subscribing to the future: %v; want ErrInvalid", err)
	}
	// Changes from before the restart are still to be had.
	subscription, err := s.Subscribe(newest - 3)
	if err != nil {
		t.Fatal(err)
	}
	changes, err := subscription.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if changes[0].Revision != newest-2 || changes[0].After.(*state.Setting).Value != "9" {
		t.Errorf("first change %+v; want the last setting, revision %d", changes[0], newest-2)
	}
	last := changes[len(changes)-1]
	if gone, ok := last.Before.(*state.Instance); !ok || gone.Name != "c1" || last.After != nil || last.Action != "instance-deleted" {
		t.Errorf("last change %+v; want the deletion of c1", last)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := subscription.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("nothing new and no patience: %v; want the context's error", err)
	}
}

func TestASubscriptionThatSleepsLosesItsPlace(t *testing.T) {
	s := freshStore(t)
	first := s.View().Revision()
	asleep, err := s.Subscribe(first)
	if err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for w := range 32 {
		writers.Go(func() {
			for n := range (window + 500) / 32 {
				if _, err := s.Apply(t.Context(), SetSettings{Cluster: map[string]string{fmt.Sprint("k", w): fmt.Sprint(n)}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	if _, err := asleep.Next(t.Context()); !errors.Is(err, state.ErrStale) {
		t.Errorf("after more than the window: %v; want ErrStale", err)
	}
	if _, err := s.Subscribe(first); !errors.Is(err, state.ErrStale) {
		t.Errorf("subscribing to what is gone: %v; want ErrStale", err)
	}
	table, err := s.Query(t.Context(), "SELECT count(*) FROM changes", nil, false)
	if err != nil || table.Rows[0][0].(int64) > window+trimEvery+1 {
		t.Errorf("the table of changes is not trimmed: %v rows, %v", table.Rows, err)
	}
	if now, err := s.Subscribe(s.View().Revision()); err != nil {
		t.Error(err)
	} else {
		must(t, s, SetSettings{Cluster: map[string]string{"a": "b"}})
		if changes, err := now.Next(t.Context()); err != nil || len(changes) != 1 {
			t.Errorf("after starting over: %v, %v", changes, err)
		}
	}
}

// What Watch sends makes another member's View the same, through the wire's JSON.
func TestWatchKeepsAnotherViewUpToDate(t *testing.T) {
	s := freshStore(t)
	populate(t, s)
	hub, err := newHub()
	if err != nil {
		t.Fatal(err)
	}
	other := &Store{cfg: s.cfg, hub: hub, background: t.Context()}
	ctx, cancel := context.WithCancel(t.Context())
	var snapshots int
	var watcher sync.WaitGroup
	watcher.Go(func() {
		err := s.Watch(ctx, 0, 0, func(batch Batch) error {
			raw, err := json.Marshal(batch)
			if err != nil {
				return err
			}
			var arrived Batch
			if err := json.Unmarshal(raw, &arrived); err != nil {
				return err
			}
			if arrived.Snapshot {
				snapshots++
			}
			return other.receive(arrived)
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("watch: %v", err)
		}
	})
	work(t, s, 4, 4)
	if err := other.WaitRevision(t.Context(), s.View().Revision()); err != nil {
		t.Fatal(err)
	}
	cancel()
	watcher.Wait()
	if diff := cmp.Diff(dump(t, s.View()), dump(t, other.View())); diff != "" {
		t.Errorf("the other View (-leader +other):\n%s", diff)
	}
	if snapshots != 1 {
		t.Errorf("%d snapshots; want one, at the start", snapshots)
	}
}
