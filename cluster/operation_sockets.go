package cluster

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"muster/cluster/coord"
	"muster/state"
)

// Socket is a connected websocket; *websocket.Conn of gorilla is one.
type Socket interface {
	ReadMessage() (kind int, data []byte, err error)
	WriteMessage(kind int, data []byte) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	Close() error
}

// The kinds of websocket message (RFC 6455, opcodes).
const (
	SocketText   = 1
	SocketBinary = 2
)

const socketClose = 8

// operationSocket is one websocket that an operation offers.
type operationSocket struct {
	name, secret string

	mu      sync.Mutex
	claimed bool          // guarded by mu
	closed  bool          // guarded by mu
	line    *line         // guarded by mu; nil until attached
	ready   chan struct{} // closed when line is set
}

func newSockets(spec OperationSpec) map[string]*operationSocket {
	sockets := map[string]*operationSocket{}
	for _, name := range slices.Concat(spec.Sockets, spec.OptionalSockets) {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails (crypto/rand)
		sockets[name] = &operationSocket{name: name, secret: hex.EncodeToString(secret), ready: make(chan struct{})}
	}
	return sockets
}

func (op *Operation) secrets() map[string]string {
	secrets := make(map[string]string, len(op.sockets))
	for name, socket := range op.sockets {
		secrets[name] = socket.secret
	}
	return secrets
}

// Sockets waits until a client has connected every one of spec.Sockets and
// returns them by name. When that takes longer than spec.ConnectTimeout from
// the start, the error says so. The runner closes the sockets after run ends.
func (op *Operation) Sockets(ctx context.Context) (map[string]Socket, error) {
	limited, cancel := context.WithDeadline(ctx, op.started.Add(op.spec.ConnectTimeout))
	defer cancel()
	connected := map[string]Socket{}
	for _, name := range op.spec.Sockets {
		socket, err := op.Socket(limited, name)
		if err != nil && ctx.Err() == nil && limited.Err() != nil {
			return nil, state.Errorf(state.ErrConflict, "nobody connected the websocket %q within %s", name, op.spec.ConnectTimeout)
		}
		if err != nil {
			return nil, err
		}
		connected[name] = socket
	}
	return connected, nil
}

// Socket waits, without a limit of its own, until a client has connected the
// named socket. The error is ctx's cause, or ErrConflict once the sockets are
// closed.
func (op *Operation) Socket(ctx context.Context, name string) (Socket, error) {
	socket, offered := op.sockets[name]
	if !offered {
		return nil, state.Errorf(state.ErrInvalid, "operation %s offers no websocket %q", op.id, name)
	}
	select {
	case <-socket.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	socket.mu.Lock()
	defer socket.mu.Unlock()
	if socket.line == nil {
		return nil, state.Errorf(state.ErrConflict, "the websockets of operation %s are closed", op.id)
	}
	return socket.line, nil
}

// deserted returns nil once the client has closed, or lost, every one of spec.Sockets. The
// error is ctx's.
func (op *Operation) deserted(ctx context.Context) error {
	for _, name := range op.spec.Sockets {
		socket := op.sockets[name]
		socket.mu.Lock()
		connected := socket.line
		socket.mu.Unlock()
		if connected == nil {
			continue // closed under us: ctx is about to end
		}
		select {
		case <-connected.failed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// closeSockets ends every socket: readers see io.EOF at once, clients a close
// message; the connections linger a moment so that nothing sent is lost.
func (op *Operation) closeSockets() {
	for _, socket := range op.sockets {
		socket.mu.Lock()
		if !socket.closed {
			socket.closed = true
			if socket.line == nil {
				close(socket.ready)
			}
		}
		connected := socket.line
		socket.mu.Unlock()
		if connected != nil {
			_ = connected.Close() // never fails
		}
	}
}

// abandonGrace is how long a run function has to return after its context has
// ended before its sockets are cut under it.
const abandonGrace = 2 * time.Second

// abandonSockets cuts the connections of an operation that was cancelled and
// does not end: it may hang on a client that reads nothing.
func (op *Operation) abandonSockets() {
	if len(op.sockets) == 0 {
		return
	}
	grace := time.NewTimer(abandonGrace)
	defer grace.Stop()
	select {
	case <-op.done:
		return
	case <-grace.C:
	}
	for _, socket := range op.sockets {
		socket.mu.Lock()
		connected := socket.line
		socket.mu.Unlock()
		if connected != nil {
			_ = connected.wire.Close() // whoever hangs on it sees
		}
	}
}

// SocketClaim is the right to connect one socket of an operation.
type SocketClaim struct {
	// Name is the socket's name ("0", "control").
	Name   string
	op     *Operation
	socket *operationSocket
	// over is closed when the socket is closed and has stopped lingering.
	over chan struct{}
}

// Claim checks the secret of a websocket before the connection is upgraded.
// Each socket can be claimed once: attach a connection or release the claim.
// A wrong secret is ErrForbidden, and so is one of a client that is not trusted any more; an operation that is unknown, or not run by
// this member, is ErrNotFound; one that has ended or is no websocket operation
// is ErrConflict, and so is a socket that is connected already.
func (o *Operations) Claim(id, secret string) (*SocketClaim, error) {
	registered, known := o.cfg.Coord.Operation(id)
	op := o.find(id)
	switch {
	case !known:
		return nil, state.Errorf(state.ErrNotFound, "operation %q not found", id)
	case registered.Class != coord.ClassWebsocket:
		return nil, state.Errorf(state.ErrConflict, "operation %s is of class %s: it has no websockets", id, registered.Class)
	case registered.Status.Final():
		return nil, state.Errorf(state.ErrConflict, "operation %s has ended already: %s", id, registered.Status)
	case op == nil:
		return nil, state.Errorf(state.ErrNotFound, "operation %s does not run on this member", id)
	case !o.cfg.Entitled(registered.Requestor, registered.Project):
		return nil, errRevoked
	}
	for _, socket := range op.sockets {
		if subtle.ConstantTimeCompare([]byte(socket.secret), []byte(secret)) == 1 {
			if err := socket.claim(id); err != nil {
				return nil, err
			}
			return &SocketClaim{Name: socket.name, op: op, socket: socket, over: make(chan struct{})}, nil
		}
	}
	return nil, state.Errorf(state.ErrForbidden, "the secret is not one of operation %s", id)
}

func (s *operationSocket) claim(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return state.Errorf(state.ErrConflict, "the websockets of operation %s are closed", id)
	case s.claimed:
		return state.Errorf(state.ErrConflict, "the websocket %q of operation %s is connected already", s.name, id)
	}
	s.claimed = true
	return nil
}

// Release gives the claim back after the upgrade failed.
func (c *SocketClaim) Release() {
	c.socket.mu.Lock()
	defer c.socket.mu.Unlock()
	if c.socket.line == nil {
		c.socket.claimed = false
	}
}

// Attach hands the connected websocket to the operation, which from now on owns
// and closes it.
func (c *SocketClaim) Attach(socket Socket) {
	c.socket.mu.Lock()
	defer c.socket.mu.Unlock()
	// What lingers is work of the runner's; a closed runner has no more.
	if c.socket.closed || c.socket.line != nil || !c.op.ops.addWork() {
		_ = socket.Close() // the operation has ended without it
		close(c.over)
		return
	}
	c.socket.line = newLine(socket)
	close(c.socket.ready)
	l := c.socket.line
	go func() { // counted by addWork
		defer c.op.ops.work.Done()
		defer close(c.over)
		l.read()
	}()
}

// addWork counts one more piece of work, unless the runner is closed and has
// none left.
func (o *Operations) addWork() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed && len(o.running) == 0 {
		return false
	}
	o.work.Add(1)
	return true
}

// Done is closed when the socket is closed and the connection no longer needed.
func (c *SocketClaim) Done() <-chan struct{} { return c.over }

// line is a websocket in the hands of an operation. One goroutine reads it all
// its life: so a closed line goes on taking what the client sends. To close a
// TCP connection with something unread would reset it, and take from the client
// what it has not yet received.
type line struct {
	wire Socket
	// messages carries what was read to whoever calls ReadMessage.
	messages chan message
	// failed is closed after readErr is set.
	failed  chan struct{}
	readErr error
	closing chan struct{}
	once    sync.Once

	deadlineMu sync.Mutex
	deadline   time.Time // guarded by deadlineMu; of ReadMessage
}

type message struct {
	kind int
	data []byte
}

func newLine(wire Socket) *line {
	return &line{wire: wire, messages: make(chan message), failed: make(chan struct{}), closing: make(chan struct{})}
}

// linger is how long a closed line waits for the client to close its side.
const linger = 2 * time.Second

// read reads until the connection ends, and closes it.
func (l *line) read() {
	defer l.wire.Close()
	for {
		kind, data, err := l.wire.ReadMessage()
		if err != nil {
			l.readErr = err
			close(l.failed)
			return
		}
		select {
		case l.messages <- message{kind, data}:
		case <-l.closing:
		}
	}
}

// ReadMessage implements Socket.
func (l *line) ReadMessage() (int, []byte, error) {
	l.deadlineMu.Lock()
	deadline := l.deadline
	l.deadlineMu.Unlock()
	var late <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-l.closing:
		return 0, nil, io.EOF
	default:
	}
	select {
	case m := <-l.messages:
		return m.kind, m.data, nil
	case <-l.failed:
		return 0, nil, l.readErr
	case <-l.closing:
		return 0, nil, io.EOF
	case <-late:
		return 0, nil, errReadTimeout
	}
}

var errReadTimeout = errors.New("no message came in time")

// WriteMessage implements Socket.
func (l *line) WriteMessage(kind int, data []byte) error {
	select {
	case <-l.closing:
		return net.ErrClosed
	default:
		return l.wire.WriteMessage(kind, data)
	}
}

// SetReadDeadline implements Socket; it counts for the next ReadMessage.
func (l *line) SetReadDeadline(t time.Time) error {
	l.deadlineMu.Lock()
	defer l.deadlineMu.Unlock()
	l.deadline = t
	return nil
}

// SetWriteDeadline implements Socket.
func (l *line) SetWriteDeadline(t time.Time) error { return l.wire.SetWriteDeadline(t) }

// Close implements Socket. It does not wait: the client is told, and the
// connection ends when it closes its side or has had its time.
func (l *line) Close() error {
	l.once.Do(func() {
		close(l.closing)
		now := time.Now()
		if control, can := l.wire.(interface {
			WriteControl(kind int, data []byte, deadline time.Time) error
		}); can {
			// 1000: a normal end (RFC 6455, 7.4.1). Who is gone is not told.
			_ = control.WriteControl(socketClose, []byte{0x03, 0xe8}, now.Add(linger))
		}
		_ = l.wire.SetReadDeadline(now.Add(linger))
	})
	return nil
}
