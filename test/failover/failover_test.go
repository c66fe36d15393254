// Package failover measures how long a cluster of real daemons takes no writes when a
// member is killed, paused or cut off, and when the others show it offline.
//
// It never fails for being slow: what it asserts is that no acknowledged write is lost
// and that the member comes back.
package failover

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/test/lab"
)

// rounds is how often each fault is measured: once in `make test`, more by
// MUSTER_FAILOVER_ROUNDS (make failover takes 20).
func rounds(t *testing.T) int {
	t.Helper()
	value := os.Getenv("MUSTER_FAILOVER_ROUNDS")
	if value == "" {
		return 1
	}
	count, err := strconv.Atoi(value)
	if err != nil || count < 1 {
		t.Fatalf("MUSTER_FAILOVER_ROUNDS=%q: want a number above zero", value)
	}
	return count
}

// scene is one kind of fault.
type scene struct {
	name string
	// victim finds whom to hurt; -1 when nobody plays the part.
	victim func(rows []lab.Row) int
	// hurt makes the fault, and returns when it is time to take it back with heal.
	// shown is closed when the victim has been shown offline.
	hurt func(c *cluster, victim *lab.Member, shown <-chan struct{})
	heal func(c *cluster, victim *lab.Member)
}

func kill(_ *cluster, victim *lab.Member, shown <-chan struct{}) {
	victim.Kill()
	await(shown, patience)
}

func start(_ *cluster, victim *lab.Member) { victim.Up() }

func leads(rows []lab.Row) int { return slices.IndexFunc(rows, lab.Row.Leads) }

func coordinates(rows []lab.Row) int { return slices.IndexFunc(rows, lab.Row.Coordinates) }

var scenes = []scene{
	{
		"kill the database's leader", func(rows []lab.Row) int {
			if leads(rows) == coordinates(rows) {
				return -1
			}
			return leads(rows)
		}, kill, start,
	},
	{
		"kill the coordinator", func(rows []lab.Row) int {
			if leads(rows) == coordinates(rows) {
				return -1
			}
			return coordinates(rows)
		}, kill, start,
	},
	{
		"kill who is both", func(rows []lab.Row) int {
			if leads(rows) != coordinates(rows) {
				return -1
			}
			return leads(rows)
		}, kill, start,
	},
	{
		"pause the leader for 10 s", leads,
		func(_ *cluster, victim *lab.Member, _ <-chan struct{}) {
			victim.Pause()
			time.Sleep(10 * time.Second)
		},
		func(_ *cluster, victim *lab.Member) { victim.Resume() },
	},
	{
		"cut the leader off", leads,
		func(c *cluster, victim *lab.Member, shown <-chan struct{}) {
			c.network.Partition(victim)
			// What is acknowledged on the wrong side counts too.
			c.writer.once(c.t.Context(), victim)
			await(shown, patience)
		},
		func(c *cluster, _ *lab.Member) { c.network.Heal() },
	},
}

// patience is how long anything may take before the test gives up.
const patience = 30 * time.Second

// apart is the time between one fault and the next: a leader of the database tries to
// reach a member that was away once a second, and until it has, that member is as good
// as missing, so that a second fault would be one too many.
const apart = 2 * time.Second

func await(done <-chan struct{}, most time.Duration) {
	select {
	case <-done:
	case <-time.After(most):
	}
}

// cluster is what the scenes are played with.
type cluster struct {
	t       *testing.T
	network *lab.Network
	members []*lab.Member
	writer  *writer
}

// TestFailover plays every scene and prints what it took.
func TestFailover(t *testing.T) {
	network := lab.NewNetwork(t)
	c := &cluster{
		t: t, network: network, writer: &writer{known: map[string]int{}},
		members: lab.ClusterOf(t, 3, lab.Options{NoInit: true, Network: network}),
	}
	c.settled()
	results := make([]result, len(scenes))
	for round := range rounds(t) {
		for i, s := range scenes {
			if !c.round(s, &results[i]) {
				t.Logf("round %d, %s: nobody plays the part", round, s.name)
			}
			if last := results[i].last(); last > time.Second {
				t.Logf("round %d, %s: no writes for %v", round, s.name, last.Round(time.Millisecond))
			}
			if t.Failed() {
				t.Fatalf("round %d, %s: failed", round, s.name)
			}
		}
	}
	t.Logf("in milliseconds, median and worst; a write waits for 10 s at most\n%s", table(results))
}

// round plays a scene once; false means that the cast could not be found.
func (c *cluster) round(s scene, result *result) bool {
	victim := c.cast(s)
	if victim < 0 {
		return false
	}
	survivor := c.members[(victim+1)%len(c.members)]
	ctx, stop := context.WithCancel(c.t.Context())
	defer stop()
	var work sync.WaitGroup
	var watched watch
	shown := make(chan struct{})
	c.writer.begin()
	work.Go(func() { c.writer.write(ctx, survivor) })
	work.Go(func() { watched.look(ctx, survivor, fmt.Sprintf("m%d", victim+1), shown) })
	time.Sleep(apart)
	began := time.Now()
	s.hurt(c, c.members[victim], shown)
	healing := time.Now()
	s.heal(c, c.members[victim])
	c.settled()
	// Until writes go on again, if they have not.
	c.writer.nextAcknowledged(c.t)
	stop()
	work.Wait()

	result.outages = append(result.outages, c.writer.outage(began))
	result.refused += c.writer.refused
	if !watched.offline.IsZero() && watched.offline.Before(healing.Add(time.Second)) {
		result.offline = append(result.offline, watched.offline.Sub(began))
	}
	result.reads = append(result.reads, watched.slowest)
	c.check()
	return true
}

// cast finds the scene's victim. Who leads and who coordinates is not to be chosen, so
// members are started anew until they do as the scene has it.
func (c *cluster) cast(s scene) int {
	for range 20 {
		rows := c.settled()
		if victim := s.victim(rows); victim >= 0 {
			return victim
		}
		mover := c.members[leads(rows)]
		if err := mover.Stop(); err != nil {
			c.t.Fatalf("stop m%d: %v", leads(rows)+1, err)
		}
		mover.Up()
	}
	return -1
}

// settled waits until every member shows every member online and the same one leading,
// and returns what they show.
func (c *cluster) settled() []lab.Row {
	c.t.Helper()
	var problem string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var first []lab.Row
		problem = ""
		for i, m := range c.members {
			rows, err := m.Rows(c.t.Context())
			if i == 0 {
				first = rows
			}
			switch {
			case err != nil:
				problem = err.Error()
			case len(rows) != len(c.members) || slices.ContainsFunc(rows, func(r lab.Row) bool { return r.Status != "Online" }):
				problem = fmt.Sprintf("m%d shows %v", i+1, rows)
			case leads(rows) < 0 || coordinates(rows) < 0:
				problem = fmt.Sprintf("nobody leads or coordinates, says m%d", i+1)
			case leads(rows) != leads(first) || coordinates(rows) != coordinates(first):
				problem = fmt.Sprintf("m1 shows %v, m%d shows %v", first, i+1, rows)
			}
			if problem != "" {
				break
			}
		}
		if problem == "" {
			return first
		}
	}
	c.t.Fatalf("not all is well after %s: %s", patience, problem)
	return nil
}

// check looks on every member for every write that was acknowledged.
func (c *cluster) check() {
	c.t.Helper()
	for i, m := range c.members {
		config, err := read(c.t.Context(), m)
		if err != nil {
			c.t.Errorf("read through m%d: %v", i+1, err)
			continue
		}
		c.writer.mu.Lock()
		for key, want := range c.writer.known {
			// A write whose outcome nobody knows may have come after it.
			if got, err := strconv.Atoi(config[key]); err != nil || got < want {
				c.t.Errorf("m%d: %s is %q; write %d was acknowledged", i+1, key, config[key], want)
			}
		}
		c.writer.mu.Unlock()
	}
}

// read returns the keys that the writer writes, as new as what any member had
// acknowledged when it began.
func read(ctx context.Context, m *lab.Member) (map[string]string, error) {
	// Before a member says that it does not know a thing, it has heard of everything.
	if answer, err := m.Request(ctx, http.MethodGet, "/1.0/profiles/nobody", nil, nil); err != nil || answer.Code != http.StatusNotFound {
		return nil, fmt.Errorf("wait for what others wrote: %d %s, %w", answer.Code, answer.Error, err)
	}
	var shown struct{ Config map[string]string }
	err := m.Get(ctx, "/1.0/cluster/members/m1", &shown)
	return shown.Config, err
}

// writer writes numbers that grow, one after the other, to keys in turn.
type writer struct {
	mu   sync.Mutex
	next int // guarded by mu
	// known is the last acknowledged number of each key; guarded by mu.
	known map[string]int
	// acks are when writes of this round were acknowledged; guarded by mu.
	acks []time.Time
	// refused counts the writes of this round that failed; guarded by mu.
	refused int
}

// keys is how many keys the numbers are spread over: as many of the last
// acknowledged writes are looked for.
const keys = 50

func (w *writer) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acks, w.refused = nil, 0
}

// write writes through the member until ctx is done.
func (w *writer) write(ctx context.Context, m *lab.Member) {
	for ctx.Err() == nil {
		if !w.once(ctx, m) && ctx.Err() == nil {
			time.Sleep(time.Millisecond) // a refusal that comes at once is no reason to spin
		} else {
			w.acknowledged()
		}
	}
}

func (w *writer) acknowledged() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acks = append(w.acks, time.Now())
}

// once writes the next number, and reports whether that was acknowledged.
func (w *writer) once(ctx context.Context, m *lab.Member) bool {
	w.mu.Lock()
	w.next++
	number := w.next
	w.mu.Unlock()
	key := fmt.Sprintf("user.w%d", number%keys)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// What any member may write; a profile is its host's.
	change := map[string]any{"config": map[string]string{key: strconv.Itoa(number)}}
	answer, err := m.Request(ctx, http.MethodPatch, "/1.0/cluster/members/m1", change, nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && answer.Code == http.StatusOK {
		// Two may write at once, but the same key only a round of keys apart.
		w.known[key] = max(w.known[key], number)
		return true
	}
	if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		w.refused++
	}
	return false
}

// nextAcknowledged waits until one more write is acknowledged.
func (w *writer) nextAcknowledged(t *testing.T) {
	t.Helper()
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.acks)
	}
	before := count()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if count() > before {
			return
		}
	}
	t.Fatalf("no write was acknowledged for %s after the fault was taken back", patience)
}

// outage is the longest time without an acknowledged write that ended after since.
func (w *writer) outage(since time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return lab.LongestGap(w.acks, since)
}

// watch is what a client sees that lists the members all the time.
type watch struct {
	offline time.Time
	slowest time.Duration
}

// look lists the members through m until ctx is done, and closes shown when victim is
// offline for the first time.
func (w *watch) look(ctx context.Context, m *lab.Member, victim string, shown chan<- struct{}) {
	for ctx.Err() == nil {
		began := time.Now()
		rows, err := m.Rows(ctx)
		if ctx.Err() != nil {
			return
		}
		w.slowest = max(w.slowest, time.Since(began))
		gone := err == nil && slices.ContainsFunc(rows, func(r lab.Row) bool { return r.Name == victim && r.Status == "Offline" })
		if gone && w.offline.IsZero() {
			w.offline = time.Now()
			close(shown)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// result is what a scene took, round by round.
type result struct {
	outages, offline, reads []time.Duration
	refused                 int
}

// last is the outage of the last round that was played.
func (r *result) last() time.Duration {
	if len(r.outages) == 0 {
		return 0
	}
	return r.outages[len(r.outages)-1]
}

func table(results []result) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%-28s %6s %16s %16s %16s %8s\n", "", "rounds", "no writes", "shown offline", "slowest list", "refused")
	for i, r := range results {
		fmt.Fprintf(&out, "%-28s %6d %16s %16s %16s %8d\n", scenes[i].name, len(r.outages), both(r.outages), both(r.offline), both(r.reads), r.refused)
	}
	return out.String()
}

// both are the median and the worst.
func both(all []time.Duration) string {
	if len(all) == 0 {
		return "-"
	}
	sorted := slices.Sorted(slices.Values(all))
	return fmt.Sprintf("%d / %d", sorted[len(sorted)/2].Milliseconds(), sorted[len(sorted)-1].Milliseconds())
}
