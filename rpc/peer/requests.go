package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	peerpb "muster/rpc/peer/proto"
	"muster/rpc/rest"
	"muster/state"
)

// callerKey is the metadata in which the caller's identity travels; the suffix makes
// gRPC carry bytes.
const callerKey = "muster-caller-bin"

// Transport implements rest.Peers: each request gets a connection of its own, which
// is a stream on the one that the members have between them.
func (p *Peers) Transport(name string, caller rest.Caller) http.RoundTripper {
	return &http.Transport{
		DisableKeepAlives:  true,
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return p.carry(ctx, name, caller)
		},
	}
}

var _ rest.Peers = (*Peers)(nil)

// carryPatience is how long a member that is online may be out of reach: one that has
// just joined or was restarted comes up anew, and is known by then.
const carryPatience = time.Second

// carry opens a connection on which the named member speaks HTTP/1.1. Nothing has been
// sent before it is open, so it may be tried again.
func (p *Peers) carry(ctx context.Context, name string, caller rest.Caller) (net.Conn, error) {
	patience := time.Now().Add(carryPatience)
	for {
		conn, err := p.carryOnce(ctx, name, caller)
		if err == nil || !errors.Is(err, state.ErrUnavailable) || time.Now().After(patience) {
			return conn, err
		}
		id, unknown := p.cfg.Resolve(name)
		if unknown != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
		if over, closed := p.conn(id); closed == nil {
			over.ResetConnectBackoff()
		}
	}
}

func (p *Peers) carryOnce(ctx context.Context, name string, caller rest.Caller) (net.Conn, error) {
	id, err := p.cfg.Resolve(name)
	if err != nil {
		return nil, err
	}
	conn, err := p.conn(id)
	if err != nil {
		return nil, err
	}
	identity, err := json.Marshal(caller)
	if err != nil {
		return nil, err
	}
	// The connection ends when it is closed, not with the dialling of it.
	streaming, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.WithoutCancel(ctx), callerKey, string(identity)))
	dialling := context.AfterFunc(ctx, cancel)
	stream, err := peerpb.NewRequestsClient(conn).Carry(streaming)
	if !dialling() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, fromWire(name, err)
	}
	reads, answers := net.Pipe()
	writes, questions := net.Pipe()
	ended := p.carrying.add(id, cancel)
	p.carried.Go(func() {
		defer cancel()
		defer ended()
		pump(questions, answers, func() ([]byte, error) {
			answer, err := stream.Recv()
			return answer.GetData(), err
		}, func(data []byte) error { return stream.Send(&peerpb.CarryRequest{Data: data}) }, func() {
			// What was sent may still be on its way, and to cancel would take it back. The
			// member ends the stream when it has read it all.
			_ = stream.CloseSend()
		})
	})
	return &halves{Conn: reads, writes: writes}, nil
}

// halves is a connection of which each direction ends by itself: when nothing more is to
// be read, writing still goes on, so that who copies both ways does not give the one up
// for the other before all is read.
type halves struct {
	net.Conn

	writes net.Conn
}

// Write implements net.Conn.
func (h *halves) Write(data []byte) (int, error) { return h.writes.Write(data) }

// Close implements net.Conn.
func (h *halves) Close() error { return errors.Join(h.Conn.Close(), h.writes.Close()) }

// SetDeadline implements net.Conn.
func (h *halves) SetDeadline(t time.Time) error {
	return errors.Join(h.Conn.SetDeadline(t), h.writes.SetDeadline(t))
}

// SetWriteDeadline implements net.Conn.
func (h *halves) SetWriteDeadline(t time.Time) error { return h.writes.SetWriteDeadline(t) }

// HangUp ends the calls and the connections that are under way to a member. It is offline:
// nobody should wait for its answer until its connection is found dead.
func (p *Peers) HangUp(memberID string) { p.carrying.end(memberID) }

// HangUpFrom ends the connections that a member carries here: it went offline, and nobody
// should wait for what its client says next.
func (p *Peers) HangUpFrom(memberID string) { p.carriedHere.end(memberID) }

// carrying is what is carried to whom.
type carrying struct {
	mu   sync.Mutex
	ends map[string]map[*context.CancelFunc]struct{} // guarded by mu
}

// add notes how a connection to the member is ended; ended says that it has.
func (c *carrying) add(id string, end context.CancelFunc) (ended func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ends == nil {
		c.ends = map[string]map[*context.CancelFunc]struct{}{}
	}
	if c.ends[id] == nil {
		c.ends[id] = map[*context.CancelFunc]struct{}{}
	}
	c.ends[id][&end] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.ends[id], &end)
	}
}

func (c *carrying) end(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for end := range c.ends[id] {
		(*end)()
	}
}

// chunk is how much of a body one message carries.
const chunk = 32 << 10

// lastWords is how long what a stream brought last may take to be read by somebody who
// still writes.
const lastWords = 5 * time.Second

// pump sends what comes from in and writes what is received to out. When nothing more
// comes it calls end, and goes on receiving until the stream ends, although nobody may be
// there to take it. Then it closes out, and in when its writer has closed it or had time
// to. It returns when both directions have stopped.
func pump(in io.ReadCloser, out io.WriteCloser, receive func() ([]byte, error), send func([]byte) error, end func()) {
	var sending sync.WaitGroup
	sending.Go(func() {
		defer end()
		buffer := make([]byte, chunk)
		// When the other side has ended, its last words may still be on their way here: what
		// comes in until they have been read is nobody's.
		over := false
		for {
			n, err := in.Read(buffer)
			// What was sent is gRPC's from then on.
			over = over || n > 0 && send(bytes.Clone(buffer[:n])) != nil
			if err != nil {
				return
			}
		}
	})
	var failed error
	for failed == nil {
		var data []byte
		if data, failed = receive(); failed == nil {
			_, _ = out.Write(data) // fails when the other end is closed, which is no loss
		}
	}
	_ = out.Close()
	if errors.Is(failed, io.EOF) {
		patience := time.AfterFunc(lastWords, func() { _ = in.Close() })
		defer patience.Stop()
	} else {
		_ = in.Close()
	}
	sending.Wait()
	_ = in.Close()
}

// requests serves the connections that other members carry here.
type requests struct {
	peerpb.UnimplementedRequestsServer

	server *http.Server
	// here is what is carried here, by who carries it.
	here   *carrying
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// carried is the end of a carried connection that the HTTP server sees.
type carried struct {
	net.Conn

	caller rest.Caller
}

type carriedKey struct{}

func newRequests(log *slog.Logger, handler Handler, here *carrying) *requests {
	r := &requests{here: here, conns: make(chan net.Conn), closed: make(chan struct{})}
	r.server = &http.Server{
		ReadHeaderTimeout: 15 * time.Second,
		MaxHeaderBytes:    256 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, carriedKey{}, conn.(*carried).caller)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			handler.ServePeer(w, request, request.Context().Value(carriedKey{}).(rest.Caller))
		}),
	}
	return r
}

// serve runs the HTTP server until close.
func (r *requests) serve() {
	_ = r.server.Serve(r) // ends by close only
}

// close ends the connections that are not upgraded; those end with their streams.
func (r *requests) close() {
	_ = r.Close()
	_ = r.server.Close()
}

// Carry implements peerpb.RequestsServer.
func (r *requests) Carry(stream grpc.BidiStreamingServer[peerpb.CarryRequest, peerpb.CarryResponse]) error {
	sent := metadata.ValueFromIncomingContext(stream.Context(), callerKey)
	var caller rest.Caller
	if len(sent) != 1 || json.Unmarshal([]byte(sent[0]), &caller) != nil || caller.Trust == "" {
		return status.Error(codes.InvalidArgument, "the request says not who makes it")
	}
	near, far := net.Pipe()
	select {
	case r.conns <- &carried{near, caller}:
	case <-r.closed:
		return status.Error(codes.Unavailable, "the member is shutting down")
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer r.here.add(calling(ctx), cancel)()
	// Returning ends the stream, and so a receive that waits.
	ended := make(chan struct{})
	var pumping sync.WaitGroup
	received := make(chan []byte)
	pumping.Go(func() {
		pump(far, far, func() ([]byte, error) {
			select {
			case data, open := <-received:
				if !open {
					return nil, io.EOF
				}
				return data, nil
			case <-ended:
				return nil, io.EOF
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}, func(data []byte) error { return stream.Send(&peerpb.CarryResponse{Data: data}) }, func() { close(ended) })
	})
	go func() {
		// Ends with the stream, at the latest when Carry has returned.
		defer close(received)
		for {
			piece, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case received <- piece.GetData():
			case <-ended:
				return
			}
		}
	}()
	pumping.Wait()
	return nil
}

// Accept implements net.Listener.
func (r *requests) Accept() (net.Conn, error) {
	select {
	case conn := <-r.conns:
		return conn, nil
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (r *requests) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

// Addr implements net.Listener.
func (r *requests) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

// Network implements net.Addr.
func (pipeAddr) Network() string { return "member" }

func (pipeAddr) String() string { return "member" }
