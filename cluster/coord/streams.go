package coord

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"muster/state"
)

// streams is the transport of the log. A member without others has no wire at
// all.
type streams struct {
	transport raft.Transport
	close     func() error
}

// rpcTimeout bounds one exchange between control members.
const rpcTimeout = 5 * time.Second

func newStreams(ctx context.Context, id string, layer StreamLayer, log *slog.Logger) *streams {
	if layer == nil {
		_, transport := raft.NewInmemTransport(raft.ServerAddress(id))
		return &streams{transport, transport.Close}
	}
	w := &wire{
		listener: layer.Listener(), id: id, open: map[*wireConn]struct{}{},
		dial: func(id string, timeout time.Duration) (net.Conn, error) {
			dialing, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			return layer.Dial(dialing, id)
		},
	}
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                  w,
		MaxPool:                 2,
		Timeout:                 rpcTimeout,
		Logger:                  hclogTo(log),
		MsgpackUseNewTimeFormat: true,
		// No pipeline: raft's waits for itself without end when a follower answers
		// with a newer term while the next request is on its way.
		MaxRPCsInFlight: 1,
	})
	return &streams{transport, func() error { return errors.Join(transport.Close(), w.Close()) }}
}

// wire is a raft.StreamLayer whose addresses are member IDs. It knows its open
// connections, because raft's transport leaves them open when it closes.
type wire struct {
	listener net.Listener
	id       string
	dial     func(id string, timeout time.Duration) (net.Conn, error)

	mu     sync.Mutex
	open   map[*wireConn]struct{} // guarded by mu
	closed bool                   // guarded by mu
}

type wireConn struct {
	net.Conn
	wire *wire
}

// Accept implements net.Listener.
func (w *wire) Accept() (net.Conn, error) {
	conn, err := w.listener.Accept()
	if err != nil {
		return nil, err
	}
	return w.keep(conn)
}

// Dial implements raft.StreamLayer.
func (w *wire) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if string(address) == w.id {
		return nil, state.Errorf(state.ErrInvalid, "member %s needs no wire to itself", w.id)
	}
	conn, err := w.dial(string(address), timeout)
	if err != nil {
		return nil, err
	}
	return w.keep(conn)
}

func (w *wire) keep(conn net.Conn) (net.Conn, error) {
	kept := &wireConn{conn, w}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	w.open[kept] = struct{}{}
	return kept, nil
}

// Close implements net.Conn.
func (c *wireConn) Close() error {
	c.wire.mu.Lock()
	delete(c.wire.open, c)
	c.wire.mu.Unlock()
	return c.Conn.Close()
}

// Close implements net.Listener; it closes the connections as well.
func (w *wire) Close() error {
	w.mu.Lock()
	open := w.open
	w.open, w.closed = map[*wireConn]struct{}{}, true
	w.mu.Unlock()
	for conn := range open {
		_ = conn.Conn.Close() // raft's transport sees it end
	}
	return w.listener.Close()
}

// Addr implements net.Listener: the name others know this member by.
func (w *wire) Addr() net.Addr { return memberAddr(w.id) }

type memberAddr string

// Network implements net.Addr.
func (memberAddr) Network() string { return "member" }

// String implements net.Addr.
func (a memberAddr) String() string { return string(a) }
