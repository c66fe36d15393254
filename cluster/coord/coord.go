// Package coord is the coordination plane: a small replicated log that says who
// is alive, who coordinates, who holds which lease and lock, and what
// operations are under way.
//
// It never touches the state plane and never waits for it, so all of this stays
// known while the store has no quorum. It never reads a clock while applying an
// entry: every replica comes to the same content from the same log.
package coord

import (
	"context"
	"log/slog"
	"net"
	"time"

	"muster/state"
)

// StreamLayer carries the log's own protocol between control members. Members
// are named by their ID, never by an address, so a change of address needs no
// change of the log's configuration.
type StreamLayer interface {
	// Listener yields the connections that other control members make.
	Listener() net.Listener
	// Dial connects to the control member with that ID.
	Dial(ctx context.Context, memberID string) (net.Conn, error)
}

// Forwarder hands an encoded entry to the member that coordinates.
type Forwarder interface {
	// Forward proposes data at the coordinator (which calls
	// Node.ProposeEncoded) and returns the index it was committed at.
	Forward(ctx context.Context, coordinator string, data []byte) (uint64, error)
}

// Config is what a Node needs.
type Config struct {
	// Dir holds the log and its snapshots; it is made when missing. Required.
	Dir string
	// ID is this member's ID. Required.
	ID string
	// Bootstrap founds a cluster of one when Dir holds no log yet. Without it
	// a fresh node waits to be added by others.
	Bootstrap bool
	// Streams reaches the other control members. Nil: there are none.
	Streams StreamLayer
	// Forward reaches the coordinator when it is another member. Nil: there
	// is none.
	Forward Forwarder
	// KeepFinished is how long finished operations stay in the registry, and
	// MaxFinished how many; even beyond that number an operation stays 5 s
	// (stock clients rely on it). Zero means 60 s and 4096.
	KeepFinished time.Duration
	MaxFinished  int
	Log          *slog.Logger
}

// Node is one member's part in the log, with its replica of the content.
type Node struct {
	*Replica
	cfg Config
}

// Open starts the node and waits until its replica holds all that was committed
// before, which for a cluster of one includes becoming its coordinator.
// Operations of this member that were under way when it last stopped are
// Failure ("the daemon restarted") by then, except those of ClassToken. A
// damaged log is refused with an error that says what is damaged.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	return nil, state.Errorf(state.ErrUnavailable, "being built")
}

// Propose commits an entry and returns its index once the local replica has
// applied it. An entry that the content refuses (a lock that is held, an
// operation that is not there) changes nothing and returns the refusal, of kind
// ErrConflict, ErrNotFound or ErrInvalid. ErrUnavailable says in its text
// whether the entry was not applied or its outcome is unknown. Entries may be
// proposed concurrently; they share disk writes.
func (n *Node) Propose(ctx context.Context, entry Entry) (uint64, error) {
	return 0, state.Errorf(state.ErrUnavailable, "being built")
}

// ProposeEncoded is Propose for an entry that another member forwarded.
func (n *Node) ProposeEncoded(ctx context.Context, data []byte) (uint64, error) {
	return 0, state.Errorf(state.ErrUnavailable, "being built")
}

// Barrier returns once the local replica holds everything that was committed
// anywhere before the call.
func (n *Node) Barrier(ctx context.Context) error {
	return state.Errorf(state.ErrUnavailable, "being built")
}

// Leading reports whether this member is the coordinator, and under which term.
// The term is the fencing token of what the coordinator does.
func (n *Node) Leading() (term uint64, leading bool) { return 0, false }

// Close stops the node and waits for all it started. It may be called twice.
func (n *Node) Close() error { return nil }
