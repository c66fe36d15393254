package cluster

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"muster/cluster/coord"
	"muster/state"
)

// operationSocket is a place for one websocket.
type operationSocket struct {
	name   string
	secret string
	// ready is closed when a client has connected.
	ready chan struct{}

	mu      sync.Mutex
	claimed bool   // guarded by mu
	socket  Socket // guarded by mu; nil until ready
}

// openSockets makes a place, with a secret of its own, for every socket of the
// operation.
func (op *Operation) openSockets() {
	for _, name := range slices.Concat(op.spec.Sockets, op.spec.OptionalSockets) {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails since Go 1.24
		op.sockets[name] = &operationSocket{name: name, secret: hex.EncodeToString(secret), ready: make(chan struct{})}
	}
}

// Sockets waits until a client has connected every one of spec.Sockets and
// returns them by name. When that takes longer than spec.ConnectTimeout from
// the start, the error says so. The runner closes the sockets after run ends.
func (op *Operation) Sockets(ctx context.Context) (map[string]Socket, error) {
	timeout := time.NewTimer(time.Until(op.opened.Add(op.spec.ConnectTimeout)))
	defer timeout.Stop()
	connected := map[string]Socket{}
	for _, name := range op.spec.Sockets {
		place := op.sockets[name]
		select {
		case <-place.ready:
			connected[name] = place.connected()
		case <-timeout.C:
			return nil, state.Errorf(state.ErrUnavailable, "nobody connected websocket %q within %s", name, op.spec.ConnectTimeout)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return connected, nil
}

// Socket waits, without a limit of its own, until a client has connected the
// named socket.
func (op *Operation) Socket(ctx context.Context, name string) (Socket, error) {
	place, ok := op.sockets[name]
	if !ok {
		return nil, state.Errorf(state.ErrNotFound, "the operation has no websocket %q", name)
	}
	select {
	case <-place.ready:
		return place.connected(), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *operationSocket) connected() Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.socket
}

// closing is the body of a close frame with the code for a normal end (RFC 6455,
// section 7.4.1).
var closing = []byte{0x03, 0xe8}

// socketClose is the kind of a close frame.
const socketClose = 8

// lingering is how long a client may take to answer a close. A connection that is
// closed while something unread lies in it would be reset, and the client would
// lose output it has not read yet.
const lingering = time.Second

// closeSockets tells every client that it is over. Reads on the sockets end soon
// after; hangUp closes them.
func (op *Operation) closeSockets() {
	for _, place := range op.sockets {
		if socket := place.connected(); socket != nil {
			now := time.Now()
			_ = socket.SetWriteDeadline(now.Add(lingering))
			_ = socket.WriteMessage(socketClose, closing)
			_ = socket.SetReadDeadline(now.Add(lingering))
		}
	}
}

// hangUp closes the sockets once their clients have answered, or after a moment,
// and takes no more.
func (op *Operation) hangUp() {
	for _, place := range op.sockets {
		place.mu.Lock()
		place.claimed = true
		place.mu.Unlock()
	}
	op.closeSockets()
	var closed sync.WaitGroup
	for _, place := range op.sockets {
		socket := place.connected()
		if socket == nil {
			continue
		}
		closed.Go(func() {
			for {
				if _, _, err := socket.ReadMessage(); err != nil {
					break
				}
			}
			_ = socket.Close()
		})
	}
	closed.Wait()
}

// SocketClaim is the right to connect one socket of an operation.
type SocketClaim struct {
	// Name is the socket's name ("0", "control").
	Name string

	op    *Operation
	place *operationSocket
}

// Claim checks the secret of a websocket before the connection is upgraded.
// Each socket can be claimed once: attach a connection or release the claim.
// A wrong secret is ErrForbidden; an operation that is unknown, or not run by
// this member, is ErrNotFound; one that has ended or is no websocket operation
// is ErrConflict.
func (o *Operations) Claim(id, secret string) (*SocketClaim, error) {
	op := o.find(id)
	if op == nil {
		registered, ok := o.cfg.Coord.Operation(id)
		if ok && registered.Status.Final() {
			return nil, state.Errorf(state.ErrConflict, "operation %q has ended already", id)
		}
		if ok && registered.Class != coord.ClassWebsocket {
			return nil, state.Errorf(state.ErrConflict, "operation %q has no websockets", id)
		}
		return nil, state.Errorf(state.ErrNotFound, "operation %q not found", id)
	}
	if len(op.sockets) == 0 {
		return nil, state.Errorf(state.ErrConflict, "operation %q has no websockets", id)
	}
	for name, place := range op.sockets {
		if subtle.ConstantTimeCompare([]byte(place.secret), []byte(secret)) != 1 {
			continue
		}
		place.mu.Lock()
		defer place.mu.Unlock()
		if place.claimed {
			return nil, state.Errorf(state.ErrConflict, "websocket %q of operation %q is connected already", name, id)
		}
		place.claimed = true
		return &SocketClaim{Name: name, op: op, place: place}, nil
	}
	return nil, state.Errorf(state.ErrForbidden, "wrong secret for operation %q", id)
}

// Attach hands the connected websocket to the operation, which from now on owns
// and closes it.
func (c *SocketClaim) Attach(socket Socket) {
	c.place.mu.Lock()
	c.place.socket = socket
	c.place.mu.Unlock()
	close(c.place.ready)
}

// Done is closed when the operation has ended and its sockets are closed.
func (c *SocketClaim) Done() <-chan struct{} { return c.op.done }

// Release gives the claim back after the upgrade failed.
func (c *SocketClaim) Release() {
	c.place.mu.Lock()
	defer c.place.mu.Unlock()
	c.place.claimed = false
}
