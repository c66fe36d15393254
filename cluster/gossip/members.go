package gossip

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"muster/state"
)

// Status is how a member seems, which is not a verdict.
type Status string

// How a member can seem.
const (
	// Alive members answer.
	Alive Status = "alive"
	// Suspect members did not answer somebody, and may still speak up.
	Suspect Status = "suspect"
	// Dead members did not speak up in time.
	Dead Status = "dead"
	// Left members said goodbye.
	Left Status = "left"
)

// Meta is what a member tells about itself. Encoded as JSON it fits in 512 bytes.
type Meta struct {
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
	// SchemaMin and SchemaMax are the schema versions its store can read.
	SchemaMin int64 `json:"schema_min,omitempty"`
	SchemaMax int64 `json:"schema_max,omitempty"`
	// Extensions is a hash of the api_extensions it serves.
	Extensions string `json:"extensions,omitempty"`
}

// Member is another member, or this one, as the gossip knows it.
type Member struct {
	ID      string
	Address string
	Meta    Meta
	Status  Status
	// Since is when it came to seem so, by this member's clock.
	Since time.Time
}

// Load is what a member has left.
type Load struct {
	// FreeCPU is in thousandths of a processor; FreeMemory and FreeDisk are bytes.
	FreeCPU, FreeMemory, FreeDisk int64
	// Instances is how many it hosts.
	Instances int
	// Trouble is what keeps it from its part in the consensus.
	Trouble state.Trouble
}

// LoadOf is a member's load with its age as this member knows it.
type LoadOf struct {
	Load
	Member string
	Age    time.Duration
}

// Evidence says that a member has come to seem something else.
type Evidence struct {
	Member string
	Status Status
	At     time.Time
}

// table is what is known of the members. Its methods never call out.
type table struct {
	self string

	mu       sync.Mutex
	members  map[string]*Member         // guarded by mu
	loads    map[string]record          // guarded by mu
	watchers map[chan Evidence]struct{} // guarded by mu
	closed   bool                       // guarded by mu
	doubts   map[string]uint64          // guarded by mu: load seq at which a member became suspect
}

func newTable(self string) *table {
	return &table{
		self: self, members: map[string]*Member{}, loads: map[string]record{}, watchers: map[chan Evidence]struct{}{},
		doubts: map[string]uint64{},
	}
}

// seen records a member as memberlist tells it.
func (t *table) seen(m Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.members[m.ID]
	if known != nil && m.Meta == (Meta{}) {
		m.Meta = known.Meta
	}
	if known != nil && (m.Status == "" || known.Status == m.Status) {
		m.Status, m.Since = known.Status, known.Since
	}
	if known != nil && known.Status == Left && m.Status == Dead {
		// The goodbye was faster than the news that it went.
		m.Status, m.Since = known.Status, known.Since
	}
	if m.Status == "" {
		m.Status = Alive
	}
	t.members[m.ID] = &m
	if m.Status == Alive {
		delete(t.doubts, m.ID)
	}
	if known == nil || known.Status != m.Status {
		t.say(m)
	}
}

// say tells the watchers; t.mu is held. Who is slow loses the oldest evidence:
// Members has the newest.
func (t *table) say(m Member) {
	for watcher := range t.watchers {
		for sent := false; !sent; {
			select {
			case watcher <- Evidence{m.ID, m.Status, m.Since}:
				sent = true
			default:
				select {
				case <-watcher:
				default:
				}
			}
		}
	}
}

func (t *table) turn(id string, from, to Status, now time.Time) {
	if m := t.members[id]; m != nil && m.Status == from {
		m.Status, m.Since = to, now
		t.say(*m)
	}
}

// doubt makes a member suspect unless a newer word of its own than seq is known.
// It says whether that is news.
func (t *table) doubt(id string, seq uint64, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.members[id]
	if m == nil || m.Status != Alive || t.loads[id].seq > seq {
		return false
	}
	t.doubts[id] = t.loads[id].seq
	t.turn(id, Alive, Suspect, now)
	return true
}

// gone tells a goodbye from a death; memberlist says only that it went.
func (t *table) gone(id string, seq uint64, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.members[id]
	if m == nil || m.Status == Left || t.loads[id].seq >= seq {
		return false
	}
	before := m.Status
	t.turn(id, before, Left, now)
	return true
}

// heard keeps a load when it is news. A word of its own clears a doubt.
func (t *table) heard(r record, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.id == t.self {
		// A word of ours from before a restart: speak with a higher number.
		if own := t.loads[t.self]; r.seq >= own.seq {
			own.id, own.seq = t.self, r.seq
			t.loads[t.self] = own
		}
		return false
	}
	if t.members[r.id] == nil || r.seq <= t.loads[r.id].seq {
		return false
	}
	t.loads[r.id] = r
	if seq, doubted := t.doubts[r.id]; doubted && r.seq > seq {
		delete(t.doubts, r.id)
		t.turn(r.id, Suspect, Alive, now)
	}
	return true
}

func (t *table) setOwn(load Load, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.loads[t.self]
	own.id, own.load, own.at = t.self, load, now
	t.loads[t.self] = own
}

// own returns this member's load with a new number.
func (t *table) own(now time.Time) record {
	seq := t.nextSeq(now)
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.loads[t.self]
	own.id, own.seq = t.self, seq
	if own.at.IsZero() {
		own.at = now
	}
	t.loads[t.self] = own
	return own
}

// nextSeq grows across restarts too, as the clock does; what others remember of
// us corrects a clock that went back.
func (t *table) nextSeq(now time.Time) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.loads[t.self]
	own.id, own.seq = t.self, max(own.seq+1, uint64(max(now.UnixMilli(), 0)))
	t.loads[t.self] = own
	return own.seq
}

func (t *table) seq(id string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.loads[id].seq
}

func (t *table) records() []record {
	t.mu.Lock()
	defer t.mu.Unlock()
	var records []record
	for _, r := range t.loads {
		if !r.at.IsZero() {
			records = append(records, r)
		}
	}
	return records
}

func (t *table) alive() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, m := range t.members {
		if m.Status == Alive || m.Status == Suspect {
			n++
		}
	}
	return max(n, 1)
}

func (t *table) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for watcher := range t.watchers {
		delete(t.watchers, watcher)
		close(watcher)
	}
}

// Members returns all members heard of, this one included, by ID.
func (g *Gossip) Members() []Member {
	g.table.mu.Lock()
	defer g.table.mu.Unlock()
	var members []Member
	for _, m := range g.table.members {
		members = append(members, *m)
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return members
}

// Loads returns the loads heard of, by member ID. Dead members keep their last.
func (g *Gossip) Loads() []LoadOf {
	now := time.Now()
	var loads []LoadOf
	for _, r := range g.table.records() {
		loads = append(loads, LoadOf{Load: r.load, Member: r.id, Age: max(now.Sub(r.at), 0)})
	}
	slices.SortFunc(loads, func(a, b LoadOf) int { return cmp.Compare(a.Member, b.Member) })
	return loads
}

// Watch returns evidence as it comes, until stop is called or the gossip closes.
// A watcher that falls 256 behind loses the oldest: Members has the newest.
func (g *Gossip) Watch() (evidence <-chan Evidence, stop func()) {
	watcher := make(chan Evidence, 256)
	g.table.mu.Lock()
	defer g.table.mu.Unlock()
	if g.table.closed {
		close(watcher)
		return watcher, func() {}
	}
	g.table.watchers[watcher] = struct{}{}
	return watcher, func() {
		g.table.mu.Lock()
		defer g.table.mu.Unlock()
		if _, there := g.table.watchers[watcher]; there {
			delete(g.table.watchers, watcher)
			close(watcher)
		}
	}
}

// Forget drops what is known of a member that was removed from the cluster.
func (g *Gossip) Forget(id string) {
	g.table.mu.Lock()
	defer g.table.mu.Unlock()
	delete(g.table.members, id)
	delete(g.table.loads, id)
	delete(g.table.doubts, id)
}
