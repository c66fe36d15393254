package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster/state"
)

// A worker reads and writes like any member, has nothing on its disk, and goes on after
// the leader is gone.
func TestAWorkerReadsAndWrites(t *testing.T) {
	t.Parallel()
	l := newLab(t, 3)
	dir := t.TempDir()
	worker := l.worker(t, "worker", dir)
	must(t, worker, setting(1))
	if got := worker.View().Setting("", "k1"); got != "v" {
		t.Error("the worker does not read its own write")
	}
	must(t, l.stores["m1"], setting(2))
	l.same(t, "m0", "worker")
	refused(t, worker, DeletePool{Name: "none"}, state.ErrNotFound, `storage pool "none" not found`)
	if part, err := worker.Part(t.Context()); err != nil || part != state.PartNone {
		t.Errorf("the worker's part is %q, %v", part, err)
	}
	if _, err := worker.Query(t.Context(), "SELECT 1", nil, false); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("SQL on a worker: %v; want ErrUnavailable", err)
	}
	if err := l.stores["m1"].Watch(t.Context(), worker.View().Revision()+5, 0, nil); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("a stream from the future: %v; want ErrInvalid", err)
	}
	if err := worker.Watch(t.Context(), worker.View().Revision(), 0, func(Batch) error { return nil }); !errors.Is(err, errWorker) {
		t.Errorf("following a worker: %v; want a refusal", err)
	}
	leader, _ := l.leader(t, "m0")
	l.isolate(leader)
	if err := l.stores[leader].Close(); err != nil {
		t.Error(err)
	}
	began := time.Now()
	must(t, worker, setting(3))
	t.Logf("the worker's writes went on %v after the leader was gone", time.Since(began).Round(time.Millisecond))
	if found, _ := filepath.Glob(filepath.Join(dir, "*")); len(found) > 0 {
		t.Errorf("on the worker's disk is %v", found)
	}
}

// A worker whose source falls silent takes another, and loses nothing: it resumes, or
// gets a snapshot when it missed too much.
func TestAWorkerTakesAnotherSource(t *testing.T) {
	t.Parallel()
	l := newLab(t, 3)
	worker := l.worker(t, "worker", t.TempDir())
	must(t, worker, setting(0))
	source := worker.sources()[0]
	l.mu.Lock()
	l.mute[source] = true
	l.mu.Unlock()
	began := time.Now()
	must(t, worker, setting(1))
	took := time.Since(began)
	t.Logf("a write took %v when the source had fallen silent", took.Round(time.Millisecond))
	if took > fallsSilent+2*time.Second {
		t.Errorf("it took %v", took)
	}
	l.same(t, "m0", "worker")

	l.isolate("worker")
	for n := range window + 10 {
		if n%200 == 0 {
			must(t, l.stores["m0"], setting(n))
		} else if n%4 == 0 { // several changes a command
			must(t, l.stores["m0"], SetSettings{Cluster: map[string]string{"a": fmt.Sprint(n), "b": fmt.Sprint(n), "c": fmt.Sprint(n), "d": fmt.Sprint(n)}})
		}
	}
	l.mu.Lock()
	clear(l.mute)
	l.mu.Unlock()
	l.heal()
	l.same(t, "m0", "worker")
}

// A member takes part and stands aside while it runs: its View and its subscriptions go
// on, and it comes back with an empty log that is filled again.
func TestAMemberTakesPartAndStandsAside(t *testing.T) {
	t.Parallel()
	l := newLab(t, 1)
	first := l.stores["m0"]
	dir := t.TempDir()
	worker := l.worker(t, "worker", dir)
	must(t, worker, setting(1000))
	subscription, err := worker.Subscribe(worker.View().Revision())
	if err != nil {
		t.Fatal(err)
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within 10 s: %s", what)
			}
		}
	}
	part := func(want state.Part) {
		t.Helper()
		until("the part "+string(want), func() bool { got, err := worker.Part(t.Context()); return err == nil && got == want })
	}
	for round := range 3 {
		n := 10 * round
		if err := worker.TakePart(t.Context()); err != nil {
			t.Fatal(err)
		}
		part(state.PartFresh)
		must(t, worker, setting(n)) // it is not taken in yet
		if left, err := first.Left(t.Context(), "worker"); err != nil || !left {
			t.Errorf("before it is taken in it has left: %v, %v", left, err)
		}
		if err := first.Assign(t.Context(), map[string]Role{"m0": Voter, "worker": Voter}); err != nil {
			t.Fatal(err)
		}
		part(state.PartUsed)
		if left, err := first.Left(t.Context(), "worker"); err != nil || left {
			t.Errorf("while it votes it has left: %v, %v", left, err)
		}
		must(t, worker, setting(n+1))
		if err := first.HandOver(t.Context()); err != nil {
			t.Fatal(err)
		}
		must(t, worker, setting(n+2))
		until("it leads", worker.leading)
		must(t, first, setting(n+3))
		if err := worker.HandOver(t.Context()); err != nil {
			t.Fatal(err)
		}
		must(t, worker, setting(n+4))
		until("the other leads", first.leading)
		if err := first.Assign(t.Context(), map[string]Role{"m0": Voter}); err != nil {
			t.Fatal(err)
		}
		until("it has left", func() bool { left, err := first.Left(t.Context(), "worker"); return left && err == nil })
		must(t, worker, setting(n+5)) // it does not know yet
		if err := worker.StandAside(); err != nil {
			t.Fatal(err)
		}
		must(t, worker, setting(n+6))
		if found, _ := filepath.Glob(filepath.Join(dir, "*")); len(found) > 0 {
			t.Errorf("on the worker's disk is %v", found)
		}
	}
	l.same(t, "m0", "worker")
	for heard := 0; heard < 21; {
		changes, err := subscription.Next(t.Context())
		if err != nil {
			t.Fatalf("the subscription ended after %d changes: %v", heard, err)
		}
		heard += len(changes)
	}
}

// What a member is when it starts, its disk says.
func TestAMemberThatRestartsIsWhatItWas(t *testing.T) {
	t.Parallel()
	l := newLab(t, 1)
	dir := t.TempDir()
	worker := l.worker(t, "worker", dir)
	if err := worker.TakePart(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, worker, setting(1)) // its View shows more than its log has
	again := func() {
		t.Helper()
		if err := worker.Close(); err != nil {
			t.Fatal(err)
		}
		worker = l.worker(t, "worker", dir)
	}
	again()
	if part, err := worker.Part(t.Context()); err != nil || part != state.PartFresh {
		t.Errorf("after a restart before it was taken in the part is %q, %v", part, err)
	}
	if err := l.stores["m0"].Assign(t.Context(), map[string]Role{"m0": Voter, "worker": Standby}); err != nil {
		t.Fatal(err)
	}
	must(t, worker, setting(2))
	used := func() bool { part, err := worker.Part(t.Context()); return err == nil && part == state.PartUsed }
	for deadline := time.Now().Add(10 * time.Second); !used() && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	again()
	must(t, worker, setting(3))
	if err := worker.Close(); err != nil {
		t.Fatal(err)
	}
	// It is left out while it is down.
	if err := l.stores["m0"].Assign(t.Context(), map[string]Role{"m0": Voter}); err != nil {
		t.Fatal(err)
	}
	must(t, l.stores["m0"], setting(4))
	again()
	if part, err := worker.Part(t.Context()); err != nil || part != state.PartUsed {
		t.Errorf("after a restart its part is %q, %v", part, err)
	}
	must(t, worker, setting(5))
	l.same(t, "m0", "worker")
	// A crash in the middle of standing aside.
	if err := worker.Close(); err != nil {
		t.Fatal(err)
	}
	database := filepath.Join(dir, "database")
	if err := errors.Join(Forget(database), os.Rename(database, database+gone)); err != nil {
		t.Fatal(err)
	}
	again()
	must(t, worker, setting(6))
	if part, err := worker.Part(t.Context()); err != nil || part != state.PartNone {
		t.Errorf("after it stood aside its part is %q, %v", part, err)
	}
}

// What a leader acknowledged just before it died is shown by its successor, and by whoever
// follows that one, though nobody asks for anything: somebody may be waiting for it.
func TestTheSuccessorShowsWhatWasAcknowledged(t *testing.T) {
	l := newLab(t, 3)
	leader, others := l.leader(t, "m0")
	for _, id := range others {
		if err := l.stores[id].Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.mu.Lock()
	l.mute[leader] = true
	l.mu.Unlock()
	result := must(t, l.stores[leader], setting(1))
	l.isolate(leader)
	waiting, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, id := range others {
		if err := l.stores[id].WaitRevision(waiting, result.Revision); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}
