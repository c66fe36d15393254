package coord

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"muster/state"
)

// content is everything the log says, and the form of its snapshots. The values
// its maps point to are replaced, never changed, so that a snapshot may be
// written while entries are applied.
type content struct {
	Applied     uint64                `json:"applied"`
	Coordinator Coordinator           `json:"coordinator"`
	Members     map[string]*Member    `json:"members"`
	Leases      map[string]*Lease     `json:"leases"`
	Locks       map[string]*Lock      `json:"locks"`
	Operations  map[string]*Operation `json:"operations"`
	// Lives are the members' newest lives, by ID; see lives.
	Lives map[string]string `json:"lives,omitempty"`

	// finished are the final operations in the order they ended.
	finished []ended
	// changed are the operations that the entry at hand has touched.
	changed []*Operation
	// attention says that the entry at hand concerns the coordinator's loop.
	attention bool
}

type ended struct {
	id    string
	index uint64
}

func newContent() content {
	return content{
		Members: map[string]*Member{}, Leases: map[string]*Lease{},
		Locks: map[string]*Lock{}, Operations: map[string]*Operation{}, Lives: map[string]string{},
	}
}

// settle makes a content read from a snapshot whole.
func (c *content) settle() error {
	empty := newContent()
	if c.Members == nil {
		c.Members = empty.Members
	}
	if c.Lives == nil {
		c.Lives = empty.Lives
	}
	if c.Leases == nil {
		c.Leases = empty.Leases
	}
	if c.Locks == nil {
		c.Locks = empty.Locks
	}
	if c.Operations == nil {
		c.Operations = empty.Operations
	}
	if hasNil(c.Members) || hasNil(c.Leases) || hasNil(c.Locks) || hasNil(c.Operations) {
		return errors.New("the snapshot holds an empty value")
	}
	c.finished = nil
	for id, op := range c.Operations {
		if op.Status.Final() {
			c.finished = append(c.finished, ended{id, op.Revision})
		}
	}
	slices.SortFunc(c.finished, func(a, b ended) int { return cmp.Compare(a.index, b.index) })
	return nil
}

func hasNil[V any](m map[string]*V) bool {
	for _, v := range m {
		if v == nil {
			return true
		}
	}
	return false
}

// copy returns a content that shares the values but not the maps.
func (c *content) copy() content {
	same := *c
	same.Members = maps.Clone(c.Members)
	same.Leases = maps.Clone(c.Leases)
	same.Locks = maps.Clone(c.Locks)
	same.Operations = maps.Clone(c.Operations)
	same.Lives = maps.Clone(c.Lives)
	return same
}

func (c *content) takeChanged() []*Operation {
	changed := c.changed
	c.changed = nil
	return changed
}

func (c *content) takeAttention() bool {
	attention := c.attention
	c.attention = false
	return attention
}

// set puts an operation's next state in place.
func (c *content) set(op Operation, index uint64) {
	op.Revision = index
	c.Operations[op.ID] = &op
	c.changed = append(c.changed, &op)
	if op.Status.Final() {
		c.finished = append(c.finished, ended{op.ID, index})
		c.attention = true
	}
}

func (e PutMember) apply(c *content, _ uint64) error {
	if e.ID == "" {
		return state.Errorf(state.ErrInvalid, "a member has an ID")
	}
	next := Member{ID: e.ID, Verdict: Online, Epoch: 1, Since: e.At}
	if old, known := c.Members[e.ID]; known {
		next = *old
	}
	next.Name, next.Address, next.Roles, next.Pending = e.Name, e.Address, e.Roles, e.Pending
	c.Members[e.ID] = &next
	return nil
}

func (e RemoveMember) apply(c *content, index uint64) error {
	if _, known := c.Members[e.ID]; !known {
		return state.Errorf(state.ErrNotFound, "member %q not found", e.ID)
	}
	delete(c.Members, e.ID)
	delete(c.Lives, e.ID)
	for name, lease := range c.Leases {
		if lease.Holder == e.ID {
			delete(c.Leases, name)
			c.attention = true
		}
	}
	c.releaseLocks(e.ID)
	c.failOperations(index, "the cluster member was removed", func(op *Operation) bool { return op.Member == e.ID }, func(op *Operation) { op.UpdatedAt = e.At })
	return nil
}

func (e SetVerdict) apply(c *content, index uint64) error {
	old, known := c.Members[e.ID]
	switch {
	case !known:
		return state.Errorf(state.ErrNotFound, "member %q not found", e.ID)
	case e.Verdict != Online && e.Verdict != Offline && e.Verdict != Evacuated:
		return state.Errorf(state.ErrInvalid, "unknown verdict %q: use online, offline or evacuated", e.Verdict)
	case e.Epoch != old.Epoch:
		return state.Errorf(state.ErrConflict, "member %s is in epoch %d, not %d: the verdict comes too late", old.Name, old.Epoch, e.Epoch)
	}
	next := *old
	next.Verdict, next.Epoch, next.Since = e.Verdict, old.Epoch+1, e.At
	c.Members[e.ID] = &next
	if e.Verdict == Offline {
		c.releaseLocks(e.ID)
		c.failOperations(index, "cluster member went offline", ofMember(e.ID), func(op *Operation) { op.UpdatedAt = e.At })
	}
	return nil
}

// ofMember picks what dies with a member's daemon. A token is only shown by its
// operation; it goes on.
func ofMember(id string) func(*Operation) bool {
	return func(op *Operation) bool { return op.Member == id && op.Class != ClassToken }
}

// failOperations ends the running operations that pick picks, oldest first: the
// order must be the same on every member.
func (c *content) failOperations(index uint64, reason string, pick func(*Operation) bool, stamp func(*Operation)) {
	var picked []*Operation
	for _, op := range c.Operations {
		if !op.Status.Final() && pick(op) {
			picked = append(picked, op)
		}
	}
	slices.SortFunc(picked, func(a, b *Operation) int { return cmp.Compare(a.Started, b.Started) })
	for _, op := range picked {
		next := *op
		next.Status, next.Err = Failure, reason
		stamp(&next)
		c.set(next, index)
	}
}

func (c *content) releaseLocks(holder string) {
	for name, lock := range c.Locks {
		if lock.Holder == holder {
			delete(c.Locks, name)
		}
	}
}

func (e AcquireLease) apply(c *content, index uint64) error {
	if e.Name == "" || e.Holder == "" || e.TTL <= 0 {
		return state.Errorf(state.ErrInvalid, "a lease has a name, a holder and a time to live")
	}
	next := Lease{Name: e.Name, Holder: e.Holder, Token: index, Renewed: index, TTL: e.TTL}
	if old, held := c.Leases[e.Name]; held {
		if old.Holder != e.Holder {
			return state.Errorf(state.ErrConflict, "lease %q is held by member %s", e.Name, old.Holder)
		}
		next.Token = old.Token
	}
	c.Leases[e.Name] = &next
	c.attention = true
	return nil
}

func (e ReleaseLease) apply(c *content, _ uint64) error {
	if old, held := c.Leases[e.Name]; held && old.Holder == e.Holder {
		delete(c.Leases, e.Name)
		c.attention = true
	}
	return nil
}

func (e ExpireLease) apply(c *content, _ uint64) error {
	if old, held := c.Leases[e.Name]; held && old.Renewed == e.Renewed {
		delete(c.Leases, e.Name)
	}
	return nil
}

func (e AcquireLock) apply(c *content, index uint64) error {
	if e.Name == "" || e.Holder == "" {
		return state.Errorf(state.ErrInvalid, "a lock has a name and a holder")
	}
	if old, held := c.Locks[e.Name]; held {
		if old.Holder == e.Holder {
			return nil
		}
		return state.Errorf(state.ErrConflict, "%s is locked by member %s (%s)", e.Name, old.Holder, cmp.Or(old.Reason, "no reason given"))
	}
	c.Locks[e.Name] = &Lock{Name: e.Name, Holder: e.Holder, Reason: e.Reason, Token: index}
	return nil
}

func (e ReleaseLock) apply(c *content, _ uint64) error {
	if old, held := c.Locks[e.Name]; held && old.Holder == e.Holder {
		delete(c.Locks, e.Name)
	}
	return nil
}

func (e StartOperation) apply(c *content, index uint64) error {
	op := e.Operation
	if op.ID == "" || op.Member == "" {
		return state.Errorf(state.ErrInvalid, "an operation has an ID and a member")
	}
	if op.Class != ClassTask && op.Class != ClassWebsocket && op.Class != ClassToken {
		return state.Errorf(state.ErrInvalid, "unknown class of operation %q: use task, websocket or token", op.Class)
	}
	if _, known := c.Operations[op.ID]; known {
		return nil
	}
	op.Status, op.Err, op.Started = Running, "", index
	c.set(op, index)
	return nil
}

func (e FinishOperation) apply(c *content, index uint64) error {
	old, known := c.Operations[e.ID]
	switch {
	case !known:
		return state.Errorf(state.ErrNotFound, "operation %q not found", e.ID)
	case e.Status != Success && e.Status != Failure && e.Status != Cancelled:
		return state.Errorf(state.ErrInvalid, "an operation ends as 200, 400 or 401, not %d", e.Status)
	case old.Status == e.Status:
		return nil
	case old.Status.Final():
		return state.Errorf(state.ErrConflict, "operation %s has ended already: %s", e.ID, cmp.Or(old.Err, old.Status.String()))
	}
	next := *old
	next.Status, next.Err, next.UpdatedAt, next.MayCancel = e.Status, e.Err, e.At, false
	if e.Metadata != nil {
		next.Metadata = e.Metadata
	}
	c.set(next, index)
	return nil
}

func (e UpdateOperation) apply(c *content, index uint64) error {
	old, known := c.Operations[e.ID]
	if !known {
		return state.Errorf(state.ErrNotFound, "operation %q not found", e.ID)
	}
	if old.Status.Final() {
		return state.Errorf(state.ErrConflict, "operation %s has ended already: %s", e.ID, cmp.Or(old.Err, old.Status.String()))
	}
	next := *old
	next.Metadata, next.UpdatedAt = e.Metadata, e.At
	c.set(next, index)
	return nil
}

func (e trimOperations) apply(c *content, _ uint64) error {
	n := 0
	for n < len(c.finished) && c.finished[n].index <= e.UpTo {
		delete(c.Operations, c.finished[n].id)
		n++
	}
	c.finished = slices.Clone(c.finished[n:])
	return nil
}

func (e memberRestarted) apply(c *content, index uint64) error {
	// A release that knows nothing of lives records none, and none is held against it.
	if delete(c.Lives, e.Member); e.Life {
		c.Lives[e.Member] = e.Boot
	}
	before := func(op *Operation) bool { return ofMember(e.Member)(op) && (e.Boot == "" || op.Boot != e.Boot) }
	c.failOperations(index, "the daemon restarted", before, func(op *Operation) { op.UpdatedAt = e.At })
	return nil
}

func (e coordinatorElected) apply(c *content, _ uint64) error {
	if e.Term < c.Coordinator.Term {
		return state.Errorf(state.ErrConflict, "term %d is over: %s coordinates under term %d", e.Term, c.Coordinator.Member, c.Coordinator.Term)
	}
	c.Coordinator = Coordinator(e)
	c.attention = true
	return nil
}

func (barrier) apply(*content, uint64) error { return nil }

// check is the invariant of a content: what is derived agrees with what it
// derives from.
func (c *content) check() error {
	seen := map[string]bool{}
	for _, f := range c.finished {
		op, known := c.Operations[f.id]
		if !known || !op.Status.Final() || op.Revision != f.index || seen[f.id] {
			return fmt.Errorf("operation %s is wrongly listed as finished at %d", f.id, f.index)
		}
		seen[f.id] = true
	}
	for id, op := range c.Operations {
		if op.ID != id || op.Status.Final() != seen[id] {
			return fmt.Errorf("operation %s is %s but listed as finished: %v", id, op.Status, seen[id])
		}
	}
	return nil
}
