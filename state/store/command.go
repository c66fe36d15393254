package store

import (
	"context"
	"encoding/json"

	"muster/state"
)

// Command is a change to the state. The commands are the structs of this package
// that say so; each runs whole or not at all.
type Command interface {
	// name is the command's name in an Envelope.
	name() string
	// apply makes the change. It may run again, so it has no effect outside tx.
	apply(ctx context.Context, tx *tx) error
}

// Hint is what a command adds to the lifecycle event of its change. The zero
// value asks for the command's usual event.
type Hint struct {
	// Action is the event's action, such as "instance-started". Empty means the
	// command's own; NoEvent means none.
	Action string `json:",omitempty"`
	// Context is shown with the event.
	Context map[string]any `json:",omitempty"`
}

// NoEvent is the Hint.Action of a change that makes no lifecycle event.
const NoEvent = "none"

// Requestor is who asked for a change, as lifecycle events show it.
type Requestor struct {
	Username string `json:",omitempty"`
	// Protocol is "unix", "tls" or the like.
	Protocol string `json:",omitempty"`
	Address  string `json:",omitempty"`
}

type requestorKey struct{}

// WithRequestor returns a context whose commands are made in the name of r.
func WithRequestor(ctx context.Context, r Requestor) context.Context {
	return context.WithValue(ctx, requestorKey{}, r)
}

// Origin is the frame of a command: what identifies it and what fences it.
type Origin struct {
	// ID identifies the command: a second command with the same ID is not run, but
	// answered with the outcome of the first. Empty means a new one.
	ID string
	// Term is the coordinator's term when the coordinator's control loops speak,
	// and zero for everybody else. A term older than the newest seen is refused
	// with ErrConflict.
	Term uint64
}

// Envelope is a command on its way to the leader.
type Envelope struct {
	ID        string
	Term      uint64     `json:",omitempty"`
	Requestor *Requestor `json:",omitempty"`
	// Name and Command are the command's registered name and its JSON.
	Name    string
	Command json.RawMessage
}

// Result is the outcome of a command that succeeded.
type Result struct {
	// Revision is the revision at which the command's change can be seen.
	Revision state.Revision
}
