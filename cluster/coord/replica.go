package coord

import (
	"context"

	"muster/state"
)

// Replica is the content of the log as this member has applied it. Reading it
// asks nobody. Its methods may be called from any goroutine.
type Replica struct{}

// Applied returns the index of the newest entry in the replica.
func (r *Replica) Applied() uint64 { return 0 }

// Coordinator returns the coordinator that the log last recorded.
func (r *Replica) Coordinator() Coordinator { return Coordinator{} }

// Members returns every member, ordered by ID.
func (r *Replica) Members() []Member { return nil }

// Member returns the member with that ID.
func (r *Replica) Member(id string) (Member, bool) { return Member{}, false }

// Lease returns the lease of that name, if somebody holds it.
func (r *Replica) Lease(name string) (Lease, bool) { return Lease{}, false }

// Lock returns the lock of that name, if somebody holds it.
func (r *Replica) Lock(name string) (Lock, bool) { return Lock{}, false }

// Operations returns the operations of the registry in the order they were
// started.
func (r *Replica) Operations() []Operation { return nil }

// Operation returns the operation with that ID.
func (r *Replica) Operation(id string) (Operation, bool) { return Operation{}, false }

// WaitOperation waits until the operation is final and returns it. When ctx
// ends first it returns the operation as it is, with ctx's error. An unknown
// operation is ErrNotFound.
func (r *Replica) WaitOperation(ctx context.Context, id string) (Operation, error) {
	return Operation{}, state.Errorf(state.ErrUnavailable, "being built")
}

// SubscribeOperations calls f with every change of an operation from now on:
// each once, in the order of the log, before the proposer's Propose returns. It
// is called by the goroutine that applies the log, so f must return at once and
// must call nothing of this package. The result ends the subscription; once it
// has returned, f is not called any more.
func (r *Replica) SubscribeOperations(f func(Operation)) (cancel func()) { return func() {} }
