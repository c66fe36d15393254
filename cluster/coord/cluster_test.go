package coord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/state"
)

// lan joins the members of a test by in-process pipes.
type lan struct {
	mu    sync.Mutex
	ports map[string]*port // guarded by mu
	nodes map[string]*Node // guarded by mu
	// mute are the members that others can't follow: their streams stay open and say
	// nothing. Guarded by mu.
	mute map[string]bool
	// followed counts the batches that each member has sent. Guarded by mu.
	followed map[string]int
}

type port struct {
	lan    *lan
	id     string
	conns  chan net.Conn
	closed chan struct{} // guarded by lan.mu
}

func (p *port) Listener() net.Listener {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	p.closed = make(chan struct{})
	return &ear{p, p.closed, sync.Once{}}
}
func (p *port) Addr() net.Addr { return memberAddr(p.id) }

// ear is a port as long as one seat listens on it.
type ear struct {
	*port
	closed chan struct{}
	once   sync.Once
}

func (e *ear) Close() error { e.once.Do(func() { close(e.closed) }); return nil }

func (e *ear) Accept() (net.Conn, error) {
	select {
	case c := <-e.conns:
		return c, nil
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

func (p *port) Dial(ctx context.Context, id string) (net.Conn, error) {
	p.lan.mu.Lock()
	peer := p.lan.ports[id]
	var closed chan struct{}
	if peer != nil {
		closed = peer.closed
	}
	p.lan.mu.Unlock()
	if closed == nil {
		return nil, errors.New("no such member, or a worker")
	}
	here, there := net.Pipe()
	select {
	case peer.conns <- there:
		return here, nil
	case <-closed:
	case <-ctx.Done():
	}
	return nil, errors.Join(errors.New("unreachable"), here.Close(), there.Close())
}

// Forward implements Forwarder.
func (p *port) Forward(ctx context.Context, coordinator string, data []byte) (uint64, error) {
	p.lan.mu.Lock()
	n := p.lan.nodes[coordinator]
	p.lan.mu.Unlock()
	if n == nil {
		return 0, ErrNotApplied
	}
	return n.ProposeEncoded(ctx, data)
}

// Index implements Forwarder.
func (p *port) Index(ctx context.Context, coordinator, vouched string) (uint64, error) {
	n := p.node(coordinator)
	if n == nil {
		return 0, state.Errorf(state.ErrUnavailable, "no such member")
	}
	return n.LeaderIndex(ctx, vouched)
}

// CoordinatorOf implements Forwarder.
func (p *port) CoordinatorOf(_ context.Context, id string) (string, error) {
	n := p.node(id)
	if n == nil {
		return "", state.Errorf(state.ErrUnavailable, "no such member")
	}
	return n.KnownCoordinator(), nil
}

func (p *port) node(id string) *Node {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	return p.lan.nodes[id]
}

// Follow implements Follower.
func (p *port) Follow(ctx context.Context, id string, since uint64, send func(Batch) error) error {
	p.lan.mu.Lock()
	n := p.lan.nodes[id]
	p.lan.mu.Unlock()
	if n == nil {
		return state.Errorf(state.ErrUnavailable, "no such member")
	}
	return n.Relay(ctx, since, func(batch Batch) error {
		p.lan.mu.Lock()
		mute := p.lan.mute[id]
		if !mute {
			p.lan.followed[id]++
		}
		p.lan.mu.Unlock()
		if mute {
			<-ctx.Done()
			return ctx.Err()
		}
		return send(batch)
	})
}

// others names the members that somebody may follow.
func (p *port) others() []string {
	p.lan.mu.Lock()
	defer p.lan.mu.Unlock()
	var ids []string
	for id, n := range p.lan.nodes {
		if id != p.id && n.Part() == state.PartUsed {
			ids = append(ids, id)
		}
	}
	return ids
}

func newLan() *lan {
	return &lan{ports: map[string]*port{}, nodes: map[string]*Node{}, mute: map[string]bool{}, followed: map[string]int{}}
}

func (l *lan) open(t *testing.T, id, dir string, bootstrap bool) *Node {
	t.Helper()
	return l.openWith(t, id, Config{Dir: dir, Bootstrap: bootstrap})
}

// worker opens a member that has no log of its own.
func (l *lan) worker(t *testing.T, id, dir string) *Node {
	t.Helper()
	return l.openWith(t, id, Config{Dir: filepath.Join(dir, "raft"), Worker: true})
}

func (l *lan) openWith(t *testing.T, id string, cfg Config) *Node {
	t.Helper()
	p := &port{lan: l, id: id, conns: make(chan net.Conn)}
	l.mu.Lock()
	l.ports[id] = p
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cfg.ID, cfg.Streams, cfg.Forward, cfg.Follow, cfg.Sources = id, p, p, p, p.others
	n, err := Open(ctx, cfg)
	if err != nil {
		t.Fatalf("open %s: %v", id, err)
	}
	l.mu.Lock()
	l.nodes[id] = n
	l.mu.Unlock()
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close %s: %v", id, err)
		}
	})
	return n
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// What the coordinator's death does to proposals is settled here.
func TestThreeMembersOutliveTheirCoordinator(t *testing.T) {
	l := newLan()
	dirs := map[string]string{"ant": t.TempDir(), "bee": t.TempDir(), "cat": t.TempDir()}
	ant := l.open(t, "ant", dirs["ant"], true)
	bee, cat := l.open(t, "bee", dirs["bee"], false), l.open(t, "cat", dirs["cat"], false)
	for _, id := range []string{"bee", "cat"} {
		if err := ant.Assign(t.Context(), map[string]bool{"ant": true, "bee": true, id: true}); err != nil {
			t.Fatal(err)
		}
	}
	propose := func(n *Node, id, owner string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		op := Operation{ID: id, Class: ClassTask, Member: owner}
		if _, err := n.Propose(ctx, StartOperation{op}); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if _, known := n.Operation(id); !known {
			t.Errorf("%s: the proposer's own replica does not have it", id)
		}
	}
	propose(ant, "at the coordinator", "ant")
	propose(bee, "forwarded", "bee")
	eventually(t, "cat has what the others proposed", func() bool { return len(cat.Operations()) == 2 })

	if err := ant.Close(); err != nil {
		t.Error(err)
	}
	died := time.Now()
	propose(bee, "after the death", "bee")
	t.Logf("a proposal was committed %v after the coordinator's death", time.Since(died))
	var leader *Node
	eventually(t, "somebody coordinates", func() bool {
		for _, n := range []*Node{bee, cat} {
			if _, leads := n.Leading(); leads {
				leader = n
			}
		}
		return leader != nil
	})
	if _, leads := ant.Leading(); leads {
		t.Error("a closed member still calls itself coordinator")
	}

	again := l.open(t, "ant", dirs["ant"], true)
	eventually(t, "the member that came back has everything", func() bool {
		_, known := again.Operation("after the death")
		return known
	})
	if op, _ := again.Operation("at the coordinator"); op.Status != Failure || op.Err != "the daemon restarted" {
		t.Errorf("ant's operation after its restart: %s %q", op.Status, op.Err)
	}
	if err := again.Barrier(t.Context()); err != nil {
		t.Errorf("barrier: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := leader.Propose(ctx, PutMember{ID: "ant", Name: "Ant"}); err != nil {
		t.Error(err)
	}
	eventually(t, "all three replicas agree", func() bool {
		return cmp.Equal(again.Members(), bee.Members()) && cmp.Equal(again.Operations(), cat.Operations()) && cmp.Equal(again.Operations(), bee.Operations())
	})
}

func TestWithoutAMajorityProposalsSayThatTheyWereNotApplied(t *testing.T) {
	l := newLan()
	ant, bee := l.open(t, "ant", t.TempDir(), true), l.open(t, "bee", t.TempDir(), false)
	if err := ant.Assign(t.Context(), map[string]bool{"ant": true, "bee": true}); err != nil {
		t.Fatal(err)
	}
	if err := ant.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "bee has no leader", func() bool { return bee.leader() == "" })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := bee.Propose(ctx, barrier{})
	if !errors.Is(err, state.ErrUnavailable) {
		t.Fatalf("%v; want ErrUnavailable", err)
	}
	t.Log(err)
	if len(bee.Members()) != 0 {
		t.Error("reads stopped")
	}
}

func lone(t *testing.T, dir string, cfg Config) *Node {
	t.Helper()
	cfg.Dir, cfg.ID, cfg.Bootstrap = dir, "ant", true
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *Node) must(t *testing.T, entry Entry) {
	t.Helper()
	if _, err := n.Propose(t.Context(), entry); err != nil {
		t.Fatalf("%T: %v", entry, err)
	}
}

func TestASnapshotHoldsEverything(t *testing.T) {
	dir := t.TempDir()
	n := lone(t, dir, Config{})
	n.must(t, PutMember{ID: "ant", Name: "Ant", Roles: []string{"database"}, At: time.Unix(1, 0)})
	n.must(t, AcquireLease{Name: "vip", Holder: "ant", TTL: time.Hour})
	n.must(t, AcquireLock{Name: "l", Holder: "ant"})
	for i := range 50 {
		id := fmt.Sprint(i)
		n.must(t, StartOperation{Operation{ID: id, Class: ClassTask, Member: "bee", Metadata: json.RawMessage(`{"x":1}`)}})
		if i%2 == 0 {
			n.must(t, FinishOperation{ID: id, Status: Success, At: time.Unix(2, 0)})
		}
	}
	if err := n.seat.Load().raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	n.must(t, FinishOperation{ID: "1", Status: Failure, Err: "after the snapshot"})
	want := n.content.copy()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}

	again := lone(t, dir, Config{})
	got := again.content.copy()
	if err := got.check(); err != nil {
		t.Error(err)
	}
	// Its own restart is the one thing that is new.
	if diff := cmp.Diff([]any{want.Members, want.Leases, want.Locks, want.Operations}, []any{got.Members, got.Leases, got.Locks, got.Operations}); diff != "" {
		t.Errorf("after a restart from the snapshot (-want +got):\n%s", diff)
	}
}

// A member that lagged gets a snapshot in place of entries: subscribers and
// waiters must not miss what it brings.
func TestRestoringASnapshotTellsSubscribersAndWaiters(t *testing.T) {
	r := newReplica()
	run := func(e Entry, index uint64) {
		if taken, err := r.take(index, nil, e); err != nil || !taken {
			t.Fatal(err, taken)
		}
	}
	for i, id := range []string{"same", "ends", "goes"} {
		run(StartOperation{Operation{ID: id, Class: ClassTask, Member: "ant"}}, uint64(i+1))
	}
	ahead := r.content.copy()
	for i, e := range []Entry{
		FinishOperation{ID: "ends", Status: Success},
		StartOperation{Operation{ID: "comes", Class: ClassTask, Member: "ant"}},
		FinishOperation{ID: "goes", Status: Success},
		trimOperations{UpTo: 0},
	} {
		if err := e.apply(&ahead, uint64(i+10)); err != nil {
			t.Fatal(err)
		}
	}
	delete(ahead.Operations, "goes")
	if err := ahead.settle(); err != nil {
		t.Fatal(err)
	}

	var heard []string
	r.SubscribeOperations(func(op Operation) { heard = append(heard, op.ID+" "+op.Status.String()) })
	type end struct {
		op  Operation
		err error
	}
	ends := map[string]chan end{"ends": make(chan end, 1), "goes": make(chan end, 1)}
	for id, ch := range ends {
		go func() {
			op, err := r.WaitOperation(t.Context(), id)
			ch <- end{op, err}
		}()
	}
	eventually(t, "both wait", func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return len(r.waiters) == 2
	})
	r.restore(ahead)
	if e := <-ends["ends"]; e.err != nil || e.op.Status != Success {
		t.Errorf("waited for the one that ended: %v, %v", e.op.Status, e.err)
	}
	if e := <-ends["goes"]; !errors.Is(e.err, state.ErrNotFound) {
		t.Errorf("waited for the one that is gone: %v; want ErrNotFound", e.err)
	}
	if diff := cmp.Diff([]string{"ends Success", "comes Running"}, heard); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
}

func TestFinishedOperationsAreForgottenInTime(t *testing.T) {
	n := lone(t, t.TempDir(), Config{KeepFinished: time.Minute, MaxFinished: 3})
	finish := func(id string) {
		n.must(t, StartOperation{Operation{ID: id, Class: ClassTask, Member: "ant"}})
		n.must(t, FinishOperation{ID: id, Status: Success})
	}
	// The loop of the node itself sees everything too, but nothing is old
	// enough for it: w plays with time.
	w := &watch{leases: map[string]seenLease{}}
	now := time.Now()
	left := func() int { return len(n.Operations()) }
	tend := func(later time.Duration, want int, why string) {
		t.Helper()
		n.seat.Load().tendFinished(t.Context(), w, now.Add(later))
		if left() != want {
			t.Errorf("after %v %d operations are left; want %d: %s", later, left(), want, why)
		}
	}
	finish("1")
	finish("2")
	n.must(t, StartOperation{Operation{ID: "running", Class: ClassTask, Member: "ant"}})
	tend(0, 3, "nothing is old")
	tend(59*time.Second, 3, "a minute has not passed")
	tend(61*time.Second, 1, "a minute has passed, and what runs stays")
	now = now.Add(2 * time.Minute)
	for i := range 6 {
		finish(fmt.Sprint("many", i))
	}
	tend(0, 7, "more than three, but all are new")
	tend(4*time.Second, 7, "stock clients ask within 5 s")
	tend(6*time.Second, 4, "only three finished ones are kept")
	tend(12*time.Second, 4, "the three are within their minute")
	if err := n.content.check(); err != nil {
		t.Error(err)
	}
}

// Two replicas that apply the same entries are the same, also when one of them
// went through a snapshot on the way, and what is derived stays right.
func TestReplicasAgree(t *testing.T) {
	ids := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	entries := rapid.OneOf(
		rapid.Map(ids, func(id string) Entry { return PutMember{ID: id, Name: id} }),
		rapid.Map(ids, func(id string) Entry { return RemoveMember{ID: id} }),
		rapid.Custom(func(t *rapid.T) Entry {
			return SetVerdict{ID: ids.Draw(t, "id"), Verdict: rapid.SampledFrom([]Verdict{Online, Offline}).Draw(t, "verdict"), Epoch: rapid.Uint64Range(1, 3).Draw(t, "epoch")}
		}),
		rapid.Custom(func(t *rapid.T) Entry {
			return AcquireLease{Name: ids.Draw(t, "name"), Holder: ids.Draw(t, "holder"), TTL: 1}
		}),
		rapid.Custom(func(t *rapid.T) Entry { return ReleaseLease{Name: ids.Draw(t, "name"), Holder: ids.Draw(t, "holder")} }),
		rapid.Custom(func(t *rapid.T) Entry { return AcquireLock{Name: ids.Draw(t, "name"), Holder: ids.Draw(t, "holder")} }),
		rapid.Custom(func(t *rapid.T) Entry {
			return StartOperation{Operation{ID: ids.Draw(t, "id"), Member: ids.Draw(t, "member"), Class: rapid.SampledFrom([]Class{ClassTask, ClassToken}).Draw(t, "class")}}
		}),
		rapid.Custom(func(t *rapid.T) Entry {
			return FinishOperation{ID: ids.Draw(t, "id"), Status: rapid.SampledFrom([]StatusCode{Success, Failure, Cancelled, Running}).Draw(t, "status")}
		}),
		rapid.Map(ids, func(id string) Entry { return memberRestarted{Member: id} }),
		rapid.Map(rapid.Uint64Range(0, 60), func(n uint64) Entry { return trimOperations{UpTo: n} }),
	)
	rapid.Check(t, func(t *rapid.T) {
		one, two := newContent(), newContent()
		for i, entry := range rapid.SliceOfN(entries, 1, 60).Draw(t, "entries") {
			index := uint64(i + 1)
			data, err := encodeEntry(entry)
			if err != nil {
				t.Fatal(err)
			}
			decoded, err := decodeEntry(data)
			if err != nil {
				t.Fatal(err)
			}
			first, second := entry.apply(&one, index), decoded.apply(&two, index)
			if fmt.Sprint(first) != fmt.Sprint(second) {
				t.Fatalf("%T: one says %v, the other %v", entry, first, second)
			}
			if changedOne, changedTwo := one.takeChanged(), two.takeChanged(); !cmp.Equal(changedOne, changedTwo) {
				t.Fatalf("%T: changes differ: %s", entry, cmp.Diff(changedOne, changedTwo))
			}
			if err := one.check(); err != nil {
				t.Fatal(err)
			}
			if i%7 == 3 {
				written, err := json.Marshal(two)
				if err != nil {
					t.Fatal(err)
				}
				two = content{}
				if err := errors.Join(json.Unmarshal(written, &two), two.settle()); err != nil {
					t.Fatal(err)
				}
			}
		}
		a, _ := json.Marshal(one)
		b, _ := json.Marshal(two)
		if string(a) != string(b) {
			t.Fatalf("the replicas differ: %s", cmp.Diff(string(a), string(b)))
		}
	})
}

func TestALogOfANewerReleaseIsNotGuessedAt(t *testing.T) {
	dir := t.TempDir()
	n := lone(t, dir, Config{})
	if err := n.seat.Load().raft.Apply([]byte(`{"kind":"paint_member","entry":{}}`), time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Propose(t.Context(), barrier{}); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("a proposal after an entry that cannot be read: %v; want ErrUnavailable", err)
	}
	if err := n.seat.Load().raft.Snapshot().Error(); err == nil {
		t.Error("a snapshot was taken of half a log")
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	again, err := Open(ctx, Config{Dir: dir, ID: "ant", Bootstrap: true})
	if err == nil {
		t.Fatal("the log was opened", again.Close())
	}
	if !errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), "upgrade this member") {
		t.Errorf("%v; want a conflict that says to upgrade", err)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for kind := range kinds {
		f.Add(fmt.Sprintf(`{"kind":%q,"entry":{}}`, kind))
	}
	f.Fuzz(func(t *testing.T, data string) {
		entry, err := decodeEntry([]byte(data))
		if err != nil {
			return
		}
		c := newContent()
		if refusal := entry.apply(&c, 1); refusal != nil && state.Kind(refusal) == nil {
			t.Errorf("%s: refused without a kind: %v", data, refusal)
		}
		if err := c.check(); err != nil {
			t.Errorf("%s: %v", data, err)
		}
	})
}

// Who takes part is what Assign says; only the coordinator can say it.
func TestTheMembersOfTheLogAreAssigned(t *testing.T) {
	l := newLan()
	ant := l.open(t, "ant", t.TempDir(), true)
	bee := l.open(t, "bee", t.TempDir(), false)
	l.open(t, "cat", t.TempDir(), false)
	for _, step := range []struct {
		wanted map[string]bool
	}{
		{map[string]bool{"ant": true, "bee": true, "cat": false}},
		{map[string]bool{"ant": true, "bee": true, "cat": true}},
		{map[string]bool{"ant": true, "bee": false, "cat": true}},
		{map[string]bool{"ant": true, "bee": true}},
	} {
		if err := ant.Assign(t.Context(), step.wanted); err != nil {
			t.Fatal(err)
		}
		seats, err := ant.Seats()
		if diff := cmp.Diff(step.wanted, seats); diff != "" || err != nil {
			t.Errorf("the seats are not what was assigned (%v):\n%s", err, diff)
		}
	}
	if err := bee.Assign(t.Context(), map[string]bool{"bee": true}); !NotApplied(err) {
		t.Errorf("Assign on another member: %v; want NotApplied", err)
	}
	if err := ant.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "bee coordinates", func() bool { _, leading := bee.Leading(); return leading })
}
