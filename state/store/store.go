// Package store is the state plane: it remembers what the cluster should be
// (instances, profiles, images, settings, trust) in dqlite, takes commands
// through one writer, and hands every change on to the View that all reads come
// from and to the subscriptions that events are made of.
//
// It never touches the host, never decides what a command should say, and never
// serves a read by SQL.
package store

import (
	"context"
	"log/slog"
	"net"
	"time"

	"muster/state"
)

// Config is what a Store needs. Dir and Member.ID are required, and Member.Name
// when the directory is new.
type Config struct {
	// Dir is the directory of the consensus log; it is made when it is missing.
	Dir string
	// Member is this member. Its ID is its address in the consensus log and never
	// changes; the rest is recorded when the store is made, and ignored later.
	Member state.Member
	// Dial connects to the dqlite node of another member, or is nil while there is
	// none. The other end hands the connection to Accept.
	Dial func(ctx context.Context, memberID string) (net.Conn, error)
	// Remote reaches the stores of other members, or is nil while there is none.
	Remote Remote
	// NetworkLatency is the usual one-way delay between members, from which the
	// election timeouts derive. Zero means 10 ms.
	NetworkLatency time.Duration
	// Log may be nil.
	Log *slog.Logger
}

// Remote reaches the store of another member; rpc/peer implements it.
type Remote interface {
	// Apply calls ApplyEnvelope there. An error of kind ErrUnavailable means that
	// the outcome is unknown, unless NotApplied says otherwise.
	Apply(ctx context.Context, memberID string, envelope Envelope) (Result, error)
	// Revision calls LeaderRevision there.
	Revision(ctx context.Context, memberID string) (state.Revision, error)
	// Watch calls Watch there and hands on what it sends.
	Watch(ctx context.Context, memberID string, since state.Revision, send func(Batch) error) error
}
