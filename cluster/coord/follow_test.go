package coord

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/state"
)

// propose fails the test unless the member's own replica has the operation afterwards.
func propose(t *testing.T, n *Node, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if _, err := n.Propose(ctx, StartOperation{Operation{ID: id, Class: ClassTask, Member: n.cfg.ID}}); err != nil {
		t.Fatalf("%s through %s: %v", id, n.cfg.ID, err)
	}
	if _, known := n.Operation(id); !known {
		t.Errorf("%s: the replica of %s, which proposed it, does not have it", id, n.cfg.ID)
	}
}

// A worker does all that a control member does but lead, and its subscribers hear each
// change once.
func TestAWorkerFollowsAndProposes(t *testing.T) {
	l := newLan()
	ant := l.open(t, "ant", t.TempDir(), true)
	propose(t, ant, "before")
	worker := l.worker(t, "wasp", t.TempDir())
	if err := worker.WaitFilled(t.Context()); err != nil {
		t.Fatal(err)
	}
	var heard []string
	cancel := worker.SubscribeOperations(func(op Operation) { heard = append(heard, op.ID) })
	defer cancel()
	propose(t, worker, "own")
	propose(t, ant, "the other's")
	if err := worker.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"own", "the other's"}, heard); diff != "" {
		t.Errorf("subscribers on the worker heard (-want +got):\n%s", diff)
	}
	if _, err := worker.Propose(t.Context(), FinishOperation{ID: "nobody's", Status: Success}); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a refusal arrives at the worker as %v; want ErrNotFound", err)
	}
	if _, leading := worker.Leading(); leading || worker.Part() != state.PartNone {
		t.Errorf("the worker leads: %v, and has the part %q", leading, worker.Part())
	}
	if _, err := os.Stat(worker.cfg.Dir); err == nil {
		t.Error("the worker has a log on its disk")
	}
}

// What a worker misses while it hears nothing comes as entries when there are few, and
// as a snapshot when there are more than are kept.
func TestAWorkerCatchesUp(t *testing.T) {
	l := newLan()
	ant := l.open(t, "ant", t.TempDir(), true)
	for name, entries := range map[string]int{"by entries": 10, "by a snapshot": 2*recentEntries + 10} {
		t.Run(name, func(t *testing.T) {
			propose(t, ant, name)
			since := ant.Applied()
			for i := range entries {
				id := fmt.Sprintf("%s %d", name, i)
				if i < 5 {
					propose(t, ant, id)
				} else if i%100 == 0 || i > entries-5 {
					ant.must(t, AcquireLock{Name: "l", Holder: "ant"})
				} else if _, err := ant.Propose(t.Context(), barrier{}); err != nil {
					t.Fatal(err)
				}
			}
			late := &Node{replica: newReplica(), cfg: Config{ID: "late"}}
			late.told.Store("")
			snapshots := 0
			done := errors.New("enough")
			take := func(batch Batch) error {
				if batch.Snapshot != nil {
					snapshots++
				}
				if err := late.receive(batch); err != nil {
					return err
				}
				if late.Applied() >= ant.Applied() {
					return done
				}
				return nil
			}
			// It has what was there at the beginning, and goes on from there.
			late.content.Applied = since
			if err := ant.Relay(t.Context(), since, take); !errors.Is(err, done) {
				t.Fatal(err)
			}
			if want := entries > recentEntries; (snapshots > 0) != want {
				t.Errorf("%d snapshots for %d entries; want one: %v", snapshots, entries, want)
			}
			if got := len(late.Operations()); got < 5 {
				t.Errorf("%d operations arrived", got)
			}
		})
	}
	if err := ant.Relay(t.Context(), ant.Applied()+1, func(Batch) error { return nil }); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("following from the future: %v; want ErrInvalid", err)
	}
}

// A worker whose source dies or says nothing takes another, and loses nothing.
func TestAWorkerTakesAnotherSource(t *testing.T) {
	for name, hurt := range map[string]func(*testing.T, *lan, *Node){
		"silence": func(_ *testing.T, l *lan, n *Node) { l.mu.Lock(); l.mute[n.cfg.ID] = true; l.mu.Unlock() },
		"death": func(t *testing.T, _ *lan, n *Node) {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLan()
			nodes := map[string]*Node{"ant": l.open(t, "ant", t.TempDir(), true)}
			for _, id := range []string{"bee", "cat"} {
				nodes[id] = l.open(t, id, t.TempDir(), false)
			}
			if err := nodes["ant"].Assign(t.Context(), map[string]bool{"ant": true, "bee": true, "cat": true}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all have the log", func() bool {
				return nodes["bee"].Part() == state.PartUsed && nodes["cat"].Part() == state.PartUsed && nodes["bee"].Applied() > 0 && nodes["cat"].Applied() > 0
			})
			l.mu.Lock()
			clear(l.followed) // the others, before they had the log
			l.mu.Unlock()
			worker := l.worker(t, "wasp", t.TempDir())
			propose(t, worker, "before")
			source := worker.sources()[0]
			l.mu.Lock()
			for _, id := range []string{"ant", "bee", "cat"} {
				if l.followed[id] > l.followed[source] {
					t.Errorf("%s was followed and not %s", id, source)
				}
			}
			l.mu.Unlock()
			hurt(t, l, nodes[source])
			began := time.Now()
			propose(t, worker, "after")
			t.Logf("%s of the source: %v until the next proposal", name, time.Since(began).Round(time.Millisecond))
			if took := time.Since(began); took > silent+3*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// A worker becomes a voter and a worker again while it runs, and its replica goes on
// through all of it.
func TestAMemberTakesPartAndStandsAside(t *testing.T) {
	l := newLan()
	ant := l.open(t, "ant", t.TempDir(), true)
	for i := range 20 {
		propose(t, ant, fmt.Sprint("early ", i))
	}
	dir := t.TempDir()
	wasp := l.worker(t, "wasp", dir)
	if err := wasp.WaitFilled(t.Context()); err != nil {
		t.Fatal(err)
	}
	var heard []string
	defer wasp.SubscribeOperations(func(op Operation) { heard = append(heard, op.ID) })()
	var want []string
	for round := range 3 {
		if err := wasp.TakePart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if wasp.Part() != state.PartFresh {
			t.Errorf("a member that has just taken part has the part %q", wasp.Part())
		}
		say := func(n *Node, what string) {
			t.Helper()
			id := fmt.Sprint(what, " ", round)
			want = append(want, id)
			propose(t, n, id)
		}
		say(wasp, "before it is taken in")
		if left, err := ant.Left(t.Context(), "wasp"); err != nil || !left {
			t.Errorf("before it is taken in it has left: %v, %v", left, err)
		}
		if err := ant.Assign(t.Context(), map[string]bool{"ant": true, "wasp": true}); err != nil {
			t.Fatal(err)
		}
		say(ant, "by the other")
		eventually(t, "it has the log", func() bool { return wasp.Part() == state.PartUsed && wasp.fed() })
		if left, err := ant.Left(t.Context(), "wasp"); err != nil || left {
			t.Errorf("while it votes it has left: %v, %v", left, err)
		}
		if err := ant.HandOver(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it coordinates", func() bool { _, leading := wasp.Leading(); return leading })
		say(wasp, "as the coordinator")
		if err := wasp.HandOver(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the other coordinates again", func() bool { _, leading := ant.Leading(); return leading })
		if err := ant.Assign(t.Context(), map[string]bool{"ant": true}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has left", func() bool { left, err := ant.Left(t.Context(), "wasp"); return left && err == nil })
		say(ant, "after it was left out")
		if err := wasp.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := wasp.StandAside(); err != nil {
			t.Fatal(err)
		}
		say(wasp, "as a worker")
	}
	noLog(t, dir)
	if err := wasp.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, heard); diff != "" {
		t.Errorf("its subscribers heard (-want +got):\n%s", diff)
	}
	ids := func(n *Node) []string {
		var ids []string
		for _, op := range n.Operations() {
			ids = append(ids, op.ID)
		}
		slices.Sort(ids)
		return ids
	}
	if diff := cmp.Diff(ids(ant), ids(wasp)); diff != "" {
		t.Errorf("the replicas differ:\n%s", diff)
	}
}

// noLog checks that nothing of a log is on a worker's disk. The names of its lives stay.
func noLog(t *testing.T, dir string) {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(dir, "*"))
	if found = slices.DeleteFunc(found, func(name string) bool { return filepath.Ext(name) == ".lives" }); len(found) > 0 {
		t.Errorf("on the worker's disk is %v", found)
	}
}

// What a member is when it starts, its disk says.
func TestAMemberThatRestartsIsWhatItWas(t *testing.T) {
	l := newLan()
	ant := l.open(t, "ant", t.TempDir(), true)
	dir := t.TempDir()
	wasp := l.worker(t, "wasp", dir)
	if err := wasp.TakePart(t.Context()); err != nil {
		t.Fatal(err)
	}
	shut := func(n *Node) {
		t.Helper()
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	shut(wasp)
	wasp = l.worker(t, "wasp", dir)
	if part := wasp.Part(); part != state.PartFresh {
		t.Fatalf("after a restart before it was taken in the part is %q", part)
	}
	if err := ant.Assign(t.Context(), map[string]bool{"ant": true, "wasp": false}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has the log", func() bool { return wasp.Part() == state.PartUsed })
	shut(wasp)
	// It is left out while it is down, and learns of it from the other.
	if err := ant.Assign(t.Context(), map[string]bool{"ant": true}); err != nil {
		t.Fatal(err)
	}
	propose(t, ant, "while it was down")
	wasp = l.worker(t, "wasp", dir)
	if part := wasp.Part(); part != state.PartUsed {
		t.Fatalf("after a restart its part is %q; want %q", part, state.PartUsed)
	}
	eventually(t, "it follows although it has a log", func() bool { _, known := wasp.Operation("while it was down"); return known })
	// A crash in the middle of standing aside.
	shut(wasp)
	if err := errors.Join(Forget(wasp.cfg.Dir), os.Rename(wasp.cfg.Dir, wasp.cfg.Dir+gone)); err != nil {
		t.Fatal(err)
	}
	wasp = l.worker(t, "wasp", dir)
	if part := wasp.Part(); part != state.PartNone {
		t.Errorf("after it stood aside its part is %q", part)
	}
	propose(t, wasp, "as a worker")
	noLog(t, dir)
}
