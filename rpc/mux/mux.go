// Package mux is the one port of a member: a TLS 1.3 listener that tells its
// guests apart by ALPN and hands each to the listener of its protocol.
//
// It never reads what is said inside a connection and never decides whether a
// client is trusted: REST asks the trust store. It does decide that a peer is a
// member, because the protocols between members are spoken to nobody else.
package mux

import (
	"context"
	"log/slog"
	"net"
	"time"

	"muster/cluster/pki"
	"muster/state"
)

// DefaultPort is the port used when an address names none.
const DefaultPort = "8443"

// The protocols between members, by their ALPN names (DESIGN.md §5). REST is
// everything that offers "h2", "http/1.1" or no protocol at all.
const (
	GRPC   = "muster/grpc"
	Dqlite = "muster/dqlite"
	Raft   = "muster/raft"
	Gossip = "muster/gossip"
)

// Config is what a Mux needs.
type Config struct {
	// Identity is the member's certificates. Required.
	Identity *pki.Identity
	// Admit says whether a member that shows a certificate signed by the
	// authority may still come in; its error is logged and the connection
	// refused. Nil admits every such member.
	Admit func(memberID string) error
	// HandshakeTimeout bounds the time from accept to the end of the TLS
	// handshake. Zero means 10 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes bounds the handshakes in progress; one more ends the
	// oldest of them. Zero means 512.
	MaxHandshakes int
	Log           *slog.Logger
}

// Mux owns the port. Its methods may be called from any goroutine.
type Mux struct {
	cfg Config
}

// New checks the configuration and returns a Mux that listens nowhere yet.
func New(cfg Config) (*Mux, error) {
	if cfg.Identity == nil {
		return nil, state.Errorf(state.ErrInvalid, "mux needs the member's identity")
	}
	return &Mux{cfg: cfg}, nil
}

// SetAddress moves the port to address ("host:port", "host", ":port", or "" to
// close it). The new address is bound before the old one is closed, and
// connections made through the old one live on. When binding fails the old
// address stays in use; the error is of kind state.ErrInvalid (no address at
// all) or state.ErrConflict (taken, or not this machine's).
func (m *Mux) SetAddress(ctx context.Context, address string) error {
	return state.Errorf(state.ErrUnavailable, "being built")
}

// Address returns the address the port is bound to, with its real port, or ""
// while it is closed.
func (m *Mux) Address() string { return "" }

// REST returns the listener of REST clients. Its connections are *tls.Conn
// with the handshake done, so an http.Server given to it speaks h2 and
// HTTP/1.1 and sees Request.TLS. Closing it refuses REST connections from then
// on.
func (m *Mux) REST() net.Listener { return nil }

// Listener returns the listener of one of the protocols between members. Its
// connections are *tls.Conn with the handshake done; MemberOf tells whose. While
// nobody accepts, connections wait for HandshakeTimeout and are then closed.
func (m *Mux) Listener(protocol string) net.Listener { return nil }

// Dial connects to the given protocol of a member at address. The peer must
// show a certificate signed by our authority and naming member; an empty member
// accepts any. The connection is a *tls.Conn and is cut by CutMember like an
// accepted one. Errors are of kind state.ErrUnavailable, or state.ErrForbidden
// when the peer is not who it should be.
func (m *Mux) Dial(ctx context.Context, member, address, protocol string) (net.Conn, error) {
	return nil, state.Errorf(state.ErrUnavailable, "being built")
}

// CutClient closes at once every REST connection made with the client
// certificate of that fingerprint, open streams included, and returns how many
// there were. Remove the certificate from the trust store first: then no
// connection can slip through between the two.
func (m *Mux) CutClient(fingerprint string) int { return 0 }

// CutMember closes at once every connection from and to the member, and returns
// how many there were. Make Admit refuse the member first.
func (m *Mux) CutMember(id string) int { return 0 }

// MemberOf returns the ID of the member at the other end of a connection that
// came from Listener or Dial, or "" for any other connection.
func MemberOf(conn net.Conn) string { return "" }

// Close closes the port and every connection, and waits until all that the Mux
// started has ended. It may be called twice.
func (m *Mux) Close() error { return nil }

// ParseAddress completes an address as users write it to host:port: the port
// is DefaultPort when omitted, and no host means every address of the machine
// ("[::]"). The error is of kind state.ErrInvalid.
func ParseAddress(address string) (string, error) {
	return "", state.Errorf(state.ErrInvalid, "being built")
}
