package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"muster/state"
)

// What was acknowledged through one member is seen through every other by a read that
// begins later.
func TestReadsAreFreshThroughAnyMember(t *testing.T) {
	l := newLab(t, 3)
	l.worker(t, "worker", t.TempDir())
	if err := l.stores["m0"].Assign(t.Context(), map[string]Role{"m0": Voter, "m1": Voter, "m2": Standby}); err != nil {
		t.Fatal(err)
	}
	all := []string{"m0", "m1", "m2", "worker"}
	var clients sync.WaitGroup
	for c := range 3 {
		clients.Go(func() {
			for n := range 40 {
				writer, reader := l.stores[all[(n+c)%4]], l.stores[all[(n/4+c)%4]]
				key := fmt.Sprint("c", c)
				must(t, writer, SetSettings{Cluster: map[string]string{key: fmt.Sprint(n)}})
				if err := reader.Fresh(t.Context()); err != nil {
					t.Errorf("read %d through %s: %v", n, reader.cfg.Member.ID, err)
				}
				if got := reader.View().Setting("", key); got != fmt.Sprint(n) {
					t.Errorf("%s shows %q; %s had acknowledged %d", reader.cfg.Member.ID, got, writer.cfg.Member.ID, n)
				}
			}
		})
	}
	clients.Wait()
}

// A read asks the leader, and leaves nothing in the log.
func TestAReadWritesNothing(t *testing.T) {
	l := newLab(t, 3)
	leader, _ := l.leader(t, "m0")
	count := func() string {
		t.Helper()
		table, err := l.stores[leader].Query(t.Context(), "SELECT barrier FROM fence", nil, false)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(table.Rows)
	}
	before := count()
	for range 10 {
		for _, s := range l.stores {
			if err := s.Fresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if after := count(); after != before {
		t.Errorf("the barriers went from %s to %s", before, after)
	}
}

// A pulse ends with the leadership, also when the same node leads again before anybody
// looks: what it was made before may be old.
func TestAPulseEndsWithTheLeadership(t *testing.T) {
	l := newLab(t, 3)
	l.transfer(t, "m0")
	must(t, l.stores["m0"], setting(0))
	st := l.stores["m0"].seat.Load()
	p := st.writer.pulse.Load()
	if p == nil {
		t.Fatal("a leader that wrote has no pulse")
	}
	for range 3 {
		if err := p.beats(t.Context()); err != nil {
			t.Fatalf("while the node leads: %v", err)
		}
	}
	l.transfer(t, "m1")
	l.transfer(t, "m0")
	if id, err := st.node.leader(t.Context()); id != "m0" || err != nil {
		t.Fatalf("%q leads, %v; want m0", id, err)
	}
	for range 3 {
		if err := p.beats(t.Context()); !errors.Is(err, errNoPulse) {
			t.Errorf("after another has led: %v; want %v", err, errNoPulse)
		}
	}
}

// A leader that was cut off confirms nothing, whatever it takes itself for, and whoever
// vouched for it before it was.
func TestALeaderThatIsCutOffConfirmsNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t, 3)
	leader, others := l.leader(t, "m0")
	former := l.stores[leader]
	must(t, former, setting(0))
	l.isolate(leader)
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if revision, err := former.LeaderRevision(short(), ""); err == nil {
		t.Errorf("cut off a moment ago it says %d", revision)
	}
	must(t, l.stores[others[0]], setting(1))
	if revision, err := former.LeaderRevision(short(), ""); err == nil {
		t.Errorf("while another leads it says %d", revision)
	}
	for _, id := range others {
		if named, err := l.stores[id].KnownLeader(t.Context()); named == leader {
			t.Errorf("%s names %s, %v: the majority that it counts could be wrong", id, named, err)
		}
	}
	l.heal()
	if err := former.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := former.View().Setting("", "k1"); got != "v" {
		t.Error("a fresh read misses what another leader acknowledged")
	}
}

// Without a leader reads wait for a second, then not at all, until there is one again.
func TestReadsWithoutALeader(t *testing.T) {
	t.Parallel()
	l := newLab(t, 3)
	leader, others := l.leader(t, "m0")
	s := l.stores[others[0]]
	if err := s.Fresh(t.Context()); err != nil || s.Stale() != 0 {
		t.Fatalf("with a leader: %v, stale for %v", err, s.Stale())
	}
	l.isolate(leader, others[1])
	if err := s.Fresh(t.Context()); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("the first read: %v; want ErrUnavailable", err)
	}
	for range 100 {
		if err := s.Fresh(t.Context()); !errors.Is(err, state.ErrUnavailable) {
			t.Fatalf("a later read: %v; want ErrUnavailable", err)
		}
	}
	if s.Stale() < time.Second {
		t.Errorf("stale for %v; the first read waited a second", s.Stale())
	}
	l.heal()
	deadline := time.Now().Add(30 * time.Second)
	for s.Fresh(t.Context()) != nil || s.Stale() != 0 {
		if time.Now().After(deadline) {
			t.Fatal("reads are old although all members are back")
		}
		time.Sleep(time.Millisecond)
	}
	must(t, l.stores[leader], setting(1))
	if err := s.Fresh(t.Context()); err != nil || s.View().Setting("", "k1") != "v" {
		t.Errorf("after that: %v", err)
	}
}

// A worker whose source brings nothing while the leader has more takes another.
func TestAWorkerLeavesASourceThatLags(t *testing.T) {
	t.Parallel()
	l := newLab(t, 3)
	worker := l.worker(t, "worker", t.TempDir())
	must(t, worker, setting(0))
	// The second of its sources must not be the silent one.
	source := worker.sources()[0]
	l.mu.Lock()
	l.mute[source] = true
	l.mu.Unlock()
	writer := l.stores[slices.DeleteFunc([]string{"m0", "m1", "m2"}, func(id string) bool { return id == source })[0]]
	must(t, writer, setting(1))
	if err := worker.Barrier(t.Context()); err != nil {
		t.Errorf("a read through the worker: %v", err)
	}
	if got := worker.View().Setting("", "k1"); got != "v" {
		t.Error("it shows what its silent source has brought")
	}
}

// A member that is alone asks nobody.
func TestAMemberThatIsAloneIsFresh(t *testing.T) {
	l := newLab(t, 1)
	s := l.stores["m0"]
	if !s.lone() {
		t.Error("it does not take itself for the whole cluster")
	}
	must(t, s, AddMember{Member: state.Member{ID: "m1", Name: "second"}})
	if s.lone() {
		t.Error("with a second member it does")
	}
	if err := s.Fresh(t.Context()); err != nil {
		t.Error(err)
	}
}

func BenchmarkFresh(b *testing.B) {
	for _, members := range []int{1, 3} {
		b.Run(fmt.Sprintf("of-%d", members), func(b *testing.B) {
			l := newLab(b, members)
			_, others := l.leader(b, "m0")
			via := l.stores["m0"]
			if len(others) > 0 {
				via = l.stores[others[0]]
			}
			took := make([]time.Duration, 0, b.N)
			for b.Loop() {
				start := time.Now()
				if err := via.Barrier(b.Context()); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// What a member without a part in the consensus was told is no vote for a leader.
func TestHearsayIsNoVote(t *testing.T) {
	l := newLab(t, 1)
	worker := l.worker(t, "worker", t.TempDir())
	must(t, worker, setting(0))
	if named, err := worker.KnownLeader(t.Context()); named != "" || err != nil {
		t.Errorf("a worker names %q, %v; want nobody", named, err)
	}
	if leader, err := worker.Leader(t.Context()); leader != "m0" || err != nil {
		t.Errorf("a worker knows of %q, %v; want m0", leader, err)
	}
}
