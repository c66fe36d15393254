// Package mux is the one port of a member: a TLS 1.3 listener that tells its
// guests apart by ALPN and hands each to the listener of its protocol.
//
// It never reads what is said inside a connection and never decides whether a
// client is trusted: REST asks the trust store. It does decide that a peer is a
// member, because the protocols between members are spoken to nobody else.
package mux

import (
	"container/list"
	"errors"
	"log/slog"
	"net"
	"sync"
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
	// authority may still come in or, when it was we who dialled it by its ID,
	// be talked to; its error is logged and the connection refused. Nil admits
	// every such member.
	Admit func(memberID string, dialled bool) error
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
	cfg       Config
	listeners map[string]*listener // by protocol; "" is REST

	// moving is held by the one SetAddress or Close at work.
	moving chan struct{}

	mu     sync.Mutex
	port   net.Listener       // guarded by mu; nil while the port is closed
	second net.Listener       // guarded by mu; see SetSecond
	conns  map[*conn]struct{} // guarded by mu
	queue  list.List          // guarded by mu: conns not handed over yet, oldest first
	closed bool               // guarded by mu

	// work counts the accept loops and the handshakes.
	work sync.WaitGroup
}

// New checks the configuration and returns a Mux that listens nowhere yet.
func New(cfg Config) (*Mux, error) {
	if cfg.Identity == nil {
		return nil, state.Errorf(state.ErrInvalid, "mux needs the member's identity")
	}
	if cfg.HandshakeTimeout == 0 {
		cfg.HandshakeTimeout = 10 * time.Second
	}
	if cfg.MaxHandshakes == 0 {
		cfg.MaxHandshakes = 512
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mux{
		cfg: cfg, listeners: map[string]*listener{}, moving: make(chan struct{}, 1), conns: map[*conn]struct{}{},
	}
	for _, protocol := range append([]string{rest}, memberProtocols...) {
		m.listeners[protocol] = &listener{mux: m, protocol: protocol, conns: make(chan net.Conn), closed: make(chan struct{})}
	}
	return m, nil
}

// rest stands for REST among the protocols.
const rest = ""

var memberProtocols = []string{GRPC, Dqlite, Raft, Gossip}

// REST returns the listener of REST clients. Its connections are *tls.Conn
// with the handshake done, so an http.Server given to it speaks h2 and
// HTTP/1.1 and sees Request.TLS. Closing it refuses REST connections from then
// on.
func (m *Mux) REST() net.Listener { return m.listeners[rest] }

// Listener returns the listener of one of the protocols between members. Its
// connections are *tls.Conn with the handshake done; MemberOf tells whose. While
// nobody accepts, connections wait for HandshakeTimeout and are then closed. An
// unknown protocol is a mistake of the caller's and panics.
func (m *Mux) Listener(protocol string) net.Listener {
	l, known := m.listeners[protocol]
	if !known || protocol == rest {
		panic("mux: no protocol " + protocol)
	}
	return l
}

// Close closes the port and every connection, and waits until all that the Mux
// started has ended. It may be called twice.
func (m *Mux) Close() error {
	m.moving <- struct{}{}
	defer func() { <-m.moving }()
	m.mu.Lock()
	m.closed = true
	port, second := m.port, m.second
	m.port, m.second = nil, nil
	open := m.conns
	m.conns = map[*conn]struct{}{}
	m.mu.Unlock()
	var err error
	if port != nil {
		err = port.Close()
	}
	if second != nil {
		err = errors.Join(err, second.Close())
	}
	for c := range open {
		_ = c.Close() // its reader sees it end
	}
	for _, l := range m.listeners {
		_ = l.Close() // never fails
	}
	m.work.Wait()
	return err
}

// listener hands over the connections of one protocol.
type listener struct {
	mux      *Mux
	protocol string
	conns    chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener: the address of the port as it is now.
func (l *listener) Addr() net.Addr {
	l.mux.mu.Lock()
	defer l.mux.mu.Unlock()
	if l.mux.port == nil {
		return &net.TCPAddr{}
	}
	return l.mux.port.Addr()
}
