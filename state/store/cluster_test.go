package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/canonical/go-dqlite/client"
	"github.com/google/go-cmp/cmp"

	"muster/state"
)

// labLatency makes elections wait for 600 ms: the tests are about what happens when a
// leader is gone, not about a machine that is busy for a tenth of a second.
const labLatency = 40 * time.Millisecond

// lab is a cluster in one process, whose members can be cut off.
type lab struct {
	mu      sync.Mutex
	stores  map[string]*Store
	cut     map[string]bool
	streams map[string][]func() // what ends when the member is cut off
	mute    map[string]bool     // whose streams stay open and say nothing
}

// labMember is how one member sees the others. It is their Remote.
type labMember struct {
	lab *lab
	id  string
}

func newLab(t testing.TB, members int) *lab {
	t.Helper()
	l := &lab{stores: map[string]*Store{}, cut: map[string]bool{}, streams: map[string][]func(){}, mute: map[string]bool{}}
	for n := range members {
		id := fmt.Sprintf("m%d", n)
		m := labMember{l, id}
		s, err := Open(t.Context(), Config{
			Dir: filepath.Join(t.TempDir(), id), Member: state.Member{ID: id, Name: "name-" + id}, Join: n > 0,
			Dial: m.dial, Remote: m, Others: m.others, NetworkLatency: labLatency,
		})
		if err != nil {
			t.Fatal(err)
		}
		l.add(t, id, s)
		if n > 0 {
			voters := map[string]Role{}
			for voter := range n + 1 {
				voters[fmt.Sprintf("m%d", voter)] = Voter
			}
			if err := l.stores["m0"].Assign(t.Context(), voters); err != nil {
				t.Fatal(err)
			}
			if err := s.Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
			must(t, s, AddMember{Member: state.Member{ID: id, Name: "name-" + id}})
		}
	}
	return l
}

// reach returns another member's store, and registers what ends when either of the
// two is cut off.
func (m labMember) reach(id string, end func()) (*Store, error) {
	m.lab.mu.Lock()
	defer m.lab.mu.Unlock()
	s := m.lab.stores[id]
	if s == nil || m.lab.cut[id] || m.lab.cut[m.id] {
		return nil, state.Errorf(state.ErrUnavailable, "member %s cannot be reached", id)
	}
	for _, side := range []string{id, m.id} {
		m.lab.streams[side] = append(m.lab.streams[side], end)
	}
	return s, nil
}

func (m labMember) dial(_ context.Context, id string) (net.Conn, error) {
	here, there := net.Pipe()
	s, err := m.reach(id, func() { _ = here.Close() })
	if err != nil {
		return nil, err
	}
	s.Accept(there)
	return here, nil
}

func (m labMember) Apply(ctx context.Context, id string, envelope Envelope) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := m.reach(id, cancel)
	if err != nil {
		return Result{}, err
	}
	raw, err := json.Marshal(envelope)
	if err != nil {
		return Result{}, err
	}
	var arrived Envelope
	if err := json.Unmarshal(raw, &arrived); err != nil {
		return Result{}, err
	}
	return s.ApplyEnvelope(ctx, arrived)
}

func (m labMember) Revision(ctx context.Context, id, vouched string) (state.Revision, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := m.reach(id, cancel)
	if err != nil {
		return 0, err
	}
	return s.LeaderRevision(ctx, vouched)
}

func (m labMember) Leader(ctx context.Context, id string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := m.reach(id, cancel)
	if err != nil {
		return "", err
	}
	return s.KnownLeader(ctx)
}

// others are all members but this one.
func (m labMember) others() []string {
	m.lab.mu.Lock()
	defer m.lab.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Keys(m.lab.stores)), func(id string) bool { return id == m.id })
}

func (m labMember) Watch(ctx context.Context, id string, since state.Revision, schema int64, send func(Batch) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := m.reach(id, cancel)
	if err != nil {
		return err
	}
	return s.Watch(ctx, since, schema, func(batch Batch) error {
		m.lab.mu.Lock()
		mute := m.lab.mute[id]
		m.lab.mu.Unlock()
		if mute {
			<-ctx.Done()
			return ctx.Err()
		}
		return send(batch)
	})
}

// worker opens a member without a node of its own.
func (l *lab) worker(t *testing.T, id, dir string) *Store {
	t.Helper()
	m := labMember{l, id}
	s, err := Open(t.Context(), Config{
		Dir: filepath.Join(dir, "database"), Member: state.Member{ID: id}, Worker: true,
		Dial: m.dial, Remote: m, Others: m.control, NetworkLatency: labLatency,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l.add(t, id, s)
}

// add has the others reach a member's store, which ends with the test.
func (l *lab) add(t testing.TB, id string, s *Store) *Store {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stores[id] = s
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// control are the other members that may have a node: all but workers.
func (m labMember) control() []string {
	return slices.DeleteFunc(m.others(), func(id string) bool {
		m.lab.mu.Lock()
		defer m.lab.mu.Unlock()
		return m.lab.stores[id].seat.Load() == nil
	})
}

// isolate cuts members off from all others.
func (l *lab) isolate(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.cut[id] = true
		for _, end := range l.streams[id] {
			end()
		}
		l.streams[id] = nil
	}
}

func (l *lab) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.cut)
}

// leader returns the leader's ID and the others', as the member says.
func (l *lab) leader(t testing.TB, via string) (leader string, others []string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		leader, err := l.stores[via].Leader(t.Context())
		if err != nil {
			continue
		}
		for id := range l.stores {
			if id != leader {
				others = append(others, id)
			}
		}
		return leader, others
	}
	t.Fatalf("%s knows of no leader", via)
	return "", nil
}

// same checks that all members show the same.
func (l *lab) same(t *testing.T, ids ...string) {
	t.Helper()
	first := l.stores[ids[0]]
	if err := first.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids[1:] {
		if err := l.stores[id].Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(dump(t, first.View()), dump(t, l.stores[id].View())); diff != "" {
			t.Errorf("%s and %s show different things:\n%s", ids[0], id, diff)
		}
	}
}

func setting(n int) SetSettings {
	return SetSettings{Cluster: map[string]string{fmt.Sprint("k", n): "v"}}
}

func TestThreeMembersAreOne(t *testing.T) {
	l := newLab(t, 3)
	all := []string{"m0", "m1", "m2"}
	// Every member takes writes, and reads its own at once.
	for n := range 30 {
		s := l.stores[all[n%3]]
		must(t, s, setting(n))
		if got := s.View().Setting("", fmt.Sprint("k", n)); got != "v" {
			t.Fatalf("%s does not read its own write %d", all[n%3], n)
		}
	}
	refused(t, l.stores["m2"], DeletePool{Name: "none"}, state.ErrNotFound, `storage pool "none" not found`)
	l.same(t, all...)

	// Nothing is lost with the leader, and writes go on.
	leader, others := l.leader(t, "m0")
	l.isolate(leader)
	if err := l.stores[leader].Close(); err != nil {
		t.Errorf("close the leader: %v", err)
	}
	start := time.Now()
	must(t, l.stores[others[0]], setting(100))
	t.Logf("writes went on %v after the leader was gone", time.Since(start).Round(time.Millisecond))
	must(t, l.stores[others[1]], setting(101))
	l.same(t, others...)
	for n := range 30 {
		if got := l.stores[others[1]].View().Setting("", fmt.Sprint("k", n)); got != "v" {
			t.Errorf("write %d is lost", n)
		}
	}
}

func TestWithoutAQuorum(t *testing.T) {
	t.Parallel() // it waits for seconds, idle
	l := newLab(t, 3)
	leader, others := l.leader(t, "m0")
	must(t, l.stores[others[0]], setting(1))
	l.isolate(leader, others[1])
	s := l.stores[others[0]]
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if id, err := s.Leader(t.Context()); err != nil || id == s.cfg.Member.ID {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the member still believes in its leader")
		}
	}
	start := time.Now()
	refused(t, s, setting(2), state.ErrUnavailable, "not applied")
	if took := time.Since(start); took > patience+500*time.Millisecond {
		t.Errorf("the refusal took %v", took)
	}
	if got := s.View().Setting("", "k1"); got != "v" {
		t.Error("reads do not answer without a quorum")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.Barrier(ctx); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("barrier: %v; want ErrUnavailable", err)
	}
	l.heal()
	must(t, s, setting(3))
	l.same(t, "m0", "m1", "m2")
}

// A leader that is cut off while it commits cannot know how it ended. It says so,
// and the command's ID tells later.
func TestALeaderThatIsCutOff(t *testing.T) {
	t.Parallel() // it waits for seconds, idle
	l := newLab(t, 3)
	leader, others := l.leader(t, "m0")
	l.isolate(leader)
	_, err := l.stores[leader].ApplyAs(t.Context(), Origin{ID: "torn"}, newInstanceOn("torn", "name-"+leader))
	if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("a write on the cut off leader: %v; want ErrUnavailable: … unknown …", err)
	}
	// It cannot answer a linearizable read either.
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := l.stores[leader].Barrier(ctx); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("a barrier on the cut off leader: %v; want ErrUnavailable", err)
	}
	must(t, l.stores[others[0]], setting(1))
	l.heal()
	if _, err := l.stores[leader].ApplyAs(t.Context(), Origin{ID: "torn"}, newInstanceOn("torn", "name-"+leader)); err != nil {
		t.Errorf("the same command again: %v", err)
	}
	l.same(t, "m0", "m1", "m2")
	if n := len(l.stores[others[0]].View().Instances("")); n != 1 {
		t.Errorf("%d instances; want the one", n)
	}
}

func newInstanceOn(name, member string) CreateInstance {
	command := newInstance(name)
	command.Instance.Location = member
	return command
}

// transfer makes another member the leader. On a busy machine an election may come
// between: then it is for whoever leads now to hand over.
func (l *lab) transfer(t *testing.T, to string) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		leader, _ := l.leader(t, to)
		if leader == to {
			return
		}
		err = l.stores[leader].seat.Load().node.ask(t.Context(), func(c *client.Client) error {
			return c.Transfer(t.Context(), l.stores[to].seat.Load().dir.owner.NodeID)
		})
	}
	t.Fatalf("%s does not lead: %v", to, err)
}

// Whoever led before does not go on as if nothing had happened, neither at once nor
// when it leads again.
func TestTheLeadershipGoesAndComesBack(t *testing.T) {
	l := newLab(t, 3)
	l.transfer(t, "m0")
	must(t, l.stores["m0"], setting(0))
	for round := range 4 {
		l.transfer(t, "m1")
		must(t, l.stores["m1"], setting(10*round+1))
		must(t, l.stores["m2"], setting(10*round+2))
		l.transfer(t, "m0")
		if round%2 == 0 { // the first thing it does is to read, or to write
			if err := l.stores["m0"].Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else {
			must(t, l.stores["m0"], setting(10*round+3))
		}
		if got := l.stores["m0"].View().Setting("", fmt.Sprint("k", 10*round+2)); got != "v" {
			t.Fatalf("round %d: a barrier lets the leader miss what was acknowledged while another led", round)
		}
		must(t, l.stores["m0"], setting(10*round+3))
		l.transfer(t, "m2")
		must(t, l.stores["m0"], setting(10*round+4)) // it thinks that it leads
		l.transfer(t, "m0")
		must(t, l.stores["m0"], setting(10*round+5))
	}
	l.same(t, "m0", "m1", "m2")
	var got int
	for _, s := range l.stores["m2"].View().Settings("") {
		got += len(s.Value)
	}
	if got != 1+4*5 {
		t.Errorf("%d settings; want %d", got, 1+4*5)
	}
}

// Whoever led before shows what its successor does, also when nobody asks it for
// anything.
func TestAFormerLeaderFollows(t *testing.T) {
	l := newLab(t, 3)
	leader, others := l.leader(t, "m0")
	former := l.stores[leader]
	must(t, former, setting(0))
	l.transfer(t, others[0])
	result, err := l.stores[others[0]].Apply(t.Context(), setting(1))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := former.WaitRevision(ctx, result.Revision); err != nil {
		t.Errorf("what the next leader wrote: %v", err)
	}
	if next, err := former.Leader(t.Context()); next != others[0] || err != nil {
		t.Errorf("it says that %s leads, %v; want %s", next, err, others[0])
	}
}

// Roles are what Assign says, members that it does not name go, and what is down
// keeps the rest from nothing.
func TestRolesAreAssigned(t *testing.T) {
	l := newLab(t, 3)
	leader, others := l.leader(t, "m0")
	s := l.stores[leader]
	want := map[string]Role{leader: Voter, others[0]: Standby, others[1]: Spare}
	if err := s.Assign(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	got, err := s.Roles(t.Context())
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("roles differ (%v):\n%s", err, diff)
	}
	if err := l.stores[others[0]].Barrier(t.Context()); err != nil {
		t.Errorf("a stand-by does not follow: %v", err)
	}
	if err := l.stores[others[0]].Assign(t.Context(), want); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("Assign on another member: %v; want ErrUnavailable", err)
	}
	if err := s.Assign(t.Context(), map[string]Role{leader: Standby}); !errors.Is(err, state.ErrConflict) {
		t.Errorf("taking the leader's vote: %v; want ErrConflict", err)
	}
	if err := s.Assign(t.Context(), map[string]Role{leader: Voter, others[0]: Voter}); err != nil {
		t.Fatal(err)
	}
	got, err = s.Roles(t.Context())
	if diff := cmp.Diff(map[string]Role{leader: Voter, others[0]: Voter}, got); diff != "" || err != nil {
		t.Errorf("roles differ (%v):\n%s", err, diff)
	}
	must(t, l.stores[others[0]], setting(1))
	if err := s.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	if next, _ := l.leader(t, others[0]); next != others[0] {
		t.Errorf("after handing over %s leads; want %s", next, others[0])
	}
}
