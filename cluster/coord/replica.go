package coord

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"muster/state"
)

// Replica is the content of the log as this member has applied it. Reading it
// asks nobody. Its methods may be called from any goroutine.
type Replica struct {
	// feeding is held while the content changes and its subscribers hear of it: a
	// member's own log and another's may both feed the replica for a moment. It is
	// taken outside all other locks.
	feeding sync.Mutex

	mu sync.RWMutex
	// content is guarded by mu; what its maps point to never changes.
	content content
	// waiters get their operation when it is final and are closed when it is
	// gone; each has room for one. Guarded by mu.
	waiters map[string][]chan Operation
	// applied is closed and replaced whenever the content moves on; guarded
	// by mu, made when somebody waits.
	applied chan struct{}
	// recent are the newest entries, all those after the index past, while keep says
	// that others may ask for them. Guarded by mu.
	recent []LogEntry
	past   uint64
	keep   bool

	// subscribers is held while they are called, so that a cancelled one is
	// not called any more. It is taken inside no other lock.
	subscribersMu sync.Mutex
	subscribers   map[*subscriber]struct{} // guarded by subscribersMu

	// own is this member's ID, and hear is called with its newest life whenever the log
	// says one. Both are set before the log is followed.
	own  string
	hear func(life string)

	// attention tells the coordinator's loop that leases or finished
	// operations changed.
	attention chan struct{}
}

// subscriber hears of operations or of news; the other is nil.
type subscriber struct {
	call func(Operation)
	news func(News)
}

func newReplica() *Replica {
	return &Replica{
		content:     newContent(),
		waiters:     map[string][]chan Operation{},
		subscribers: map[*subscriber]struct{}{},
		attention:   make(chan struct{}, 1),
	}
}

// Applied returns the index of the newest entry in the replica.
func (r *Replica) Applied() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.content.Applied
}

// Moved returns what is closed when the replica moves on, and is closed already when it
// holds more than the entry at index.
func (r *Replica) Moved(index uint64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.content.Applied > index {
		return over
	}
	return r.moving()
}

// over is closed.
var over = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// WaitApplied waits until the replica holds the entry at index.
func (r *Replica) WaitApplied(ctx context.Context, index uint64) error {
	for {
		r.mu.Lock()
		if r.content.Applied >= index {
			r.mu.Unlock()
			return nil
		}
		moved := r.moving()
		r.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return state.Errorf(state.ErrUnavailable, "the coordination log has not reached this member: %w", ctx.Err())
		}
	}
}

// Coordinator returns the coordinator that the log last recorded.
func (r *Replica) Coordinator() Coordinator {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.content.Coordinator
}

// Members returns every member, ordered by ID.
func (r *Replica) Members() []Member {
	r.mu.RLock()
	members := valuesOf(r.content.Members)
	r.mu.RUnlock()
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return members
}

// Member returns the member with that ID.
func (r *Replica) Member(id string) (Member, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return find(r.content.Members, id)
}

// Leases returns every lease that somebody holds, ordered by name.
func (r *Replica) Leases() []Lease {
	r.mu.RLock()
	leases := valuesOf(r.content.Leases)
	r.mu.RUnlock()
	slices.SortFunc(leases, func(a, b Lease) int { return cmp.Compare(a.Name, b.Name) })
	return leases
}

// Lease returns the lease of that name, if somebody holds it.
func (r *Replica) Lease(name string) (Lease, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return find(r.content.Leases, name)
}

// Lock returns the lock of that name, if somebody holds it.
func (r *Replica) Lock(name string) (Lock, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return find(r.content.Locks, name)
}

// Operations returns the operations of the registry in the order they were
// started.
func (r *Replica) Operations() []Operation {
	r.mu.RLock()
	operations := valuesOf(r.content.Operations)
	r.mu.RUnlock()
	slices.SortFunc(operations, func(a, b Operation) int { return cmp.Compare(a.Started, b.Started) })
	return operations
}

// Operation returns the operation with that ID.
func (r *Replica) Operation(id string) (Operation, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return find(r.content.Operations, id)
}

// WaitOperation waits until the operation is final and returns it. When ctx
// ends first it returns the operation as it is, with ctx's error. An unknown
// operation is ErrNotFound.
func (r *Replica) WaitOperation(ctx context.Context, id string) (Operation, error) {
	r.mu.Lock()
	op, known := r.content.Operations[id]
	if !known {
		r.mu.Unlock()
		return Operation{}, state.Errorf(state.ErrNotFound, "operation %q not found", id)
	}
	if op.Status.Final() {
		r.mu.Unlock()
		return *op, nil
	}
	ended := make(chan Operation, 1)
	r.waiters[id] = append(r.waiters[id], ended)
	r.mu.Unlock()

	select {
	case final, ended := <-ended:
		if ended {
			return final, nil
		}
		return Operation{}, state.Errorf(state.ErrNotFound, "operation %q was removed from the registry", id)
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		if left := slices.DeleteFunc(r.waiters[id], func(w chan Operation) bool { return w == ended }); len(left) > 0 {
			r.waiters[id] = left
		} else {
			delete(r.waiters, id)
		}
		if now, found := r.content.Operations[id]; found {
			op = now
		}
		return *op, ctx.Err()
	}
}

// SubscribeOperations calls f with every change of an operation from now on:
// each once, in the order of the log, before the proposer's Propose returns. It
// is called by the goroutine that applies the log, so f must return at once and
// must not propose, wait or subscribe; reading the replica is allowed. The
// result ends the subscription; once it has returned, f is not called any more.
//
// A member that was so far behind that it received a snapshot instead of
// entries sees, for each operation that differs, its newest state.
func (r *Replica) SubscribeOperations(f func(Operation)) (cancel func()) {
	return r.subscribe(&subscriber{call: f})
}

// SubscribeNews calls f with all news from now on, as SubscribeOperations does with
// operations. A member that was so far behind that it received a snapshot misses some.
func (r *Replica) SubscribeNews(f func(News)) (cancel func()) {
	return r.subscribe(&subscriber{news: f})
}

func (r *Replica) subscribe(s *subscriber) (cancel func()) {
	r.subscribersMu.Lock()
	defer r.subscribersMu.Unlock()
	r.subscribers[s] = struct{}{}
	return func() {
		r.subscribersMu.Lock()
		defer r.subscribersMu.Unlock()
		delete(r.subscribers, s)
	}
}

// take applies an entry and tells everybody concerned, unless the content has it
// already; taken says so.
func (r *Replica) take(index uint64, data []byte, entry Entry) (taken bool, refusal error) {
	r.feeding.Lock()
	defer r.feeding.Unlock()
	r.mu.Lock()
	if index <= r.content.Applied {
		r.mu.Unlock()
		return false, nil
	}
	r.content.Applied = index
	refusal = entry.apply(&r.content, index)
	r.remember(LogEntry{index, data})
	changed := r.content.takeChanged()
	attention := r.content.takeAttention()
	var woken []wake
	for _, op := range changed {
		if op.Status.Final() {
			woken = r.rouse(woken, op.ID, op)
		}
	}
	moved := r.moveOn()
	life, hear := r.content.Lives[r.own], r.hear
	r.mu.Unlock()
	if restarted, is := entry.(*memberRestarted); is && restarted.Member == r.own && hear != nil {
		hear(life)
	}
	r.tell(changed, attention)
	r.spread(entry)
	deliver(woken, moved)
	return true, refusal
}

// remember keeps an entry at hand; the caller holds mu.
func (r *Replica) remember(entry LogEntry) {
	if !r.keep {
		r.past = entry.Index
		return
	}
	r.recent = append(r.recent, entry)
	if len(r.recent) >= 2*recentEntries {
		r.past = r.recent[recentEntries-1].Index
		// Not a slice of the same array, which would keep the older ones.
		r.recent = slices.Clone(r.recent[recentEntries:])
	}
}

// keepEntries says whether others may ask for entries from now on.
func (r *Replica) keepEntries(keep bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep, r.recent, r.past = keep, nil, r.content.Applied
}

// entriesAfter returns entries after an index, or what is closed when there are some.
// ErrStale means that they are no longer at hand, ErrInvalid that the index is in the
// future.
func (r *Replica) entriesAfter(index uint64) (entries []LogEntry, moved <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case index > r.content.Applied:
		return nil, nil, state.Errorf(state.ErrInvalid, "entry %d is in the future: the newest here is %d", index, r.content.Applied)
	case index < r.past:
		return nil, nil, state.Errorf(state.ErrStale, "entries after %d are no longer at hand, only those after %d", index, r.past)
	}
	from, _ := slices.BinarySearchFunc(r.recent, index+1, func(e LogEntry, index uint64) int { return cmp.Compare(e.Index, index) })
	if from < len(r.recent) {
		return slices.Clone(r.recent[from:min(from+batchEntries, len(r.recent))]), nil, nil
	}
	return nil, r.moving(), nil
}

// moving returns what is closed when the content moves on; the caller holds mu.
func (r *Replica) moving() <-chan struct{} {
	if r.applied == nil {
		r.applied = make(chan struct{})
	}
	return r.applied
}

// restore puts a snapshot in place of the content, unless that is newer.
func (r *Replica) restore(restored content) {
	r.feeding.Lock()
	defer r.feeding.Unlock()
	r.mu.Lock()
	if restored.Applied < r.content.Applied {
		r.mu.Unlock()
		return
	}
	before := r.content.Operations
	r.content = restored
	r.recent, r.past = nil, restored.Applied
	var changed []*Operation
	for id, op := range restored.Operations {
		if old, known := before[id]; !known || old.Revision != op.Revision {
			changed = append(changed, op)
		}
	}
	slices.SortFunc(changed, func(a, b *Operation) int { return cmp.Compare(a.Revision, b.Revision) })
	var woken []wake
	for id := range r.waiters {
		if op, known := restored.Operations[id]; !known || op.Status.Final() {
			woken = r.rouse(woken, id, op)
		}
	}
	moved := r.moveOn()
	life, hear := r.content.Lives[r.own], r.hear
	r.mu.Unlock()
	if hear != nil {
		hear(life)
	}
	r.tell(changed, true)
	deliver(woken, moved)
}

// wake is a waiter with the operation it waited for, nil when that is gone.
type wake struct {
	waiter chan Operation
	op     *Operation
}

// rouse takes the waiters for an operation off the list; the caller holds mu.
func (r *Replica) rouse(woken []wake, id string, op *Operation) []wake {
	for _, waiter := range r.waiters[id] {
		woken = append(woken, wake{waiter, op})
	}
	delete(r.waiters, id)
	return woken
}

// moveOn returns what waits for the content to move; the caller holds mu.
func (r *Replica) moveOn() chan struct{} {
	moved := r.applied
	r.applied = nil
	return moved
}

// deliver ends the waiting. It comes after the subscribers: whoever waited for
// an end finds its event sent.
func deliver(woken []wake, moved chan struct{}) {
	for _, w := range woken {
		if w.op != nil {
			w.waiter <- *w.op
		}
		close(w.waiter)
	}
	if moved != nil {
		close(moved)
	}
}

func (r *Replica) tell(changed []*Operation, attention bool) {
	if attention {
		select {
		case r.attention <- struct{}{}:
		default:
		}
	}
	if len(changed) == 0 {
		return
	}
	r.subscribersMu.Lock()
	defer r.subscribersMu.Unlock()
	for _, op := range changed {
		for s := range r.subscribers {
			if s.call != nil {
				s.call(*op)
			}
		}
	}
}

// spread hands on the news that an entry brings.
func (r *Replica) spread(entry Entry) {
	b, is := entry.(*barrier)
	if !is || len(b.News) == 0 {
		return
	}
	r.subscribersMu.Lock()
	defer r.subscribersMu.Unlock()
	for _, news := range b.News {
		for s := range r.subscribers {
			if s.news != nil {
				s.news(news)
			}
		}
	}
}

func valuesOf[V any](m map[string]*V) []V {
	values := make([]V, 0, len(m))
	for _, v := range m {
		values = append(values, *v)
	}
	return values
}

func find[V any](m map[string]*V, key string) (V, bool) {
	if v, found := m[key]; found {
		return *v, true
	}
	var none V
	return none, false
}
