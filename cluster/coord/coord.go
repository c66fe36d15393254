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
	// Listener yields the connections that other control members make; each one that
	// it returns is closed once, when this member stops being one.
	Listener() net.Listener
	// Dial connects to the control member with that ID.
	Dial(ctx context.Context, memberID string) (net.Conn, error)
}

// Forwarder reaches the logs of other members: it hands an encoded entry to the one that
// coordinates, and asks it how far the log is.
type Forwarder interface {
	// Forward proposes data at the coordinator (which calls
	// Node.ProposeEncoded) and returns the index it was committed at. An
	// error for which NotApplied holds makes the caller try again.
	Forward(ctx context.Context, coordinator string, data []byte) (uint64, error)
	// Index calls Node.LeaderIndex at the coordinator, and CoordinatorOf calls
	// Node.KnownCoordinator at a member. A member of a release that knows no such
	// question answers errors.ErrUnsupported.
	Index(ctx context.Context, coordinator, vouched string) (uint64, error)
	CoordinatorOf(ctx context.Context, memberID string) (string, error)
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
	// Patient says that there are other control members: Open then does not wait for
	// them, and what it would record is recorded once there is a coordinator.
	Patient bool
	// Worker says that this member has no part in the consensus unless Dir is there:
	// it follows another member's log, until TakePart.
	Worker bool
	// Follow reaches the logs of other members, and Sources names those that may have
	// one. Nil: this member has its own, always.
	Follow  Follower
	Sources func() []string
	// Reserve is how many bytes are kept in Dir for when the disk is full. Voters counts the
	// other voters whose logs can be written, and all voters; nil means that this member is
	// the only one. Freeze and Thaw are called when the reserve is given up, and when it is
	// whole again; they may be nil.
	Reserve      int64
	Voters       func() (fit, sick, all int)
	Freeze, Thaw func(context.Context)
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

// DESIGN.md §3 has these measured: a new leader 0.8 s after a kill with both
// cores of a small machine busy.
const (
	heartbeatTimeout = 300 * time.Millisecond
	electionTimeout  = 300 * time.Millisecond
	leaseTimeout     = 200 * time.Millisecond
)

// leaderWait bounds how long a proposal waits for there to be a coordinator. With the
// second that a request has waited before for what is the newest (Fresh), it fails within
// five (DESIGN.md §2).
const leaderWait = 4 * time.Second

func (cfg *Config) complete() error {
	if cfg.Dir == "" || cfg.ID == "" {
		return state.Errorf(state.ErrInvalid, "the coordination log needs a directory and the member's ID")
	}
	if cfg.KeepFinished == 0 {
		cfg.KeepFinished = time.Minute
	}
	if cfg.MaxFinished == 0 {
		cfg.MaxFinished = 4096
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
