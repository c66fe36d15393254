// Package peer is what members say to each other: gRPC on the one port, with the
// state plane's commands and changes, the coordination log's entries, and REST
// requests that another member answers.
//
// It never decides who leads, who owns a thing or whether a caller may do
// something: it carries questions and answers, with their errors' kinds.
package peer

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	"muster/cluster/coord"
	peerpb "muster/rpc/peer/proto"
	"muster/rpc/rest"
	"muster/state"
	"muster/state/store"
)

// maxMessage bounds one message. The largest is a snapshot of the state plane in
// one piece: 10,000 instances are about 20 MB.
const maxMessage = 256 << 20

// Config is what Peers needs. All but Log and Resolve is required before Serve.
type Config struct {
	// Dial connects to the member's gRPC protocol.
	Dial func(ctx context.Context, memberID string) (net.Conn, error)
	// Resolve returns the ID of the member of that name; ErrNotFound.
	Resolve func(name string) (memberID string, err error)
	// MemberOf says whose connection it is; connections of nobody are refused.
	MemberOf func(net.Conn) string
	Log      *slog.Logger
}

// Local is what this member answers with.
type Local struct {
	Store   Store
	Coord   Coord
	Control Control
	Handler Handler
	// Peers may be nil; its HangUpFrom ends what a member carries here.
	Peers *Peers
}

// Store is the part of the state plane that peers ask; *store.Store implements it.
type Store interface {
	ApplyEnvelope(ctx context.Context, envelope store.Envelope) (store.Result, error)
	LeaderRevision(ctx context.Context, vouched string) (state.Revision, error)
	KnownLeader(ctx context.Context) (string, error)
	Watch(ctx context.Context, since state.Revision, schema int64, send func(store.Batch) error) error
}

// Coord is the part of the coordination plane that peers ask; *coord.Node
// implements it.
type Coord interface {
	ProposeEncoded(ctx context.Context, data []byte) (uint64, error)
	LeaderIndex(ctx context.Context, vouched string) (uint64, error)
	KnownCoordinator() string
	Relay(ctx context.Context, since uint64, send func(coord.Batch) error) error
}

// Control is what members ask each other about their parts in the logs;
// *cluster.Cluster implements it.
type Control interface {
	Parts(ctx context.Context) (state.Parts, error)
	Left(ctx context.Context, log state.Log, memberID string) (bool, error)
}

// Handler answers REST requests that another member forwards; *rest.Server
// implements it.
type Handler interface {
	ServePeer(w http.ResponseWriter, r *http.Request, caller rest.Caller)
}

// Peers reaches the other members. It implements store.Remote, coord.Forwarder and
// rest.Peers. Its methods may be called from any goroutine.
type Peers struct {
	cfg Config

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn // by member ID; guarded by mu
	closed bool                        // guarded by mu
	// carried counts the goroutines of requests on their way.
	carried  sync.WaitGroup
	carrying carrying
	// carriedHere is what other members carry here, where Serve has it.
	carriedHere carrying
}

// New returns Peers that have no connection yet.
func New(cfg Config) *Peers {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Peers{cfg: cfg, conns: map[string]*grpc.ClientConn{}}
}

// Close ends every connection and waits for what was carried over them.
func (p *Peers) Close() error {
	p.mu.Lock()
	p.closed = true
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // fails only when closed already
	}
	p.carried.Wait()
	return nil
}

// conn returns the connection to a member, which is made when it is first used and
// again when it broke.
func (p *Peers) conn(memberID string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, state.Errorf(state.ErrUnavailable, "the daemon is shutting down")
	}
	if conn := p.conns[memberID]; conn != nil {
		return conn, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+memberID,
		grpc.WithTransportCredentials(onePort{memberOf: p.cfg.MemberOf}),
		grpc.WithContextDialer(p.cfg.Dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			// A member that was killed is back within a second: nobody should wait
			// longer than that to find out.
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		// A peer that vanished without a word is noticed by the pings.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithUnaryInterceptor(p.untilOffline(memberID)),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	)
	if err != nil {
		return nil, err
	}
	p.conns[memberID] = conn
	return conn, nil
}

// untilOffline has HangUp end the calls to a member that are under way. Only a ping goes
// on: it finds out that the member is back.
func (p *Peers) untilOffline(memberID string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, question, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
		if method == peerpb.Coord_Ping_FullMethodName {
			return call(ctx, method, question, answer, conn, options...)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer p.carrying.add(memberID, cancel)()
		return call(ctx, method, question, answer, conn, options...)
	}
}

// Forget closes the connection to a member that is gone.
func (p *Peers) Forget(memberID string) {
	p.mu.Lock()
	conn := p.conns[memberID]
	delete(p.conns, memberID)
	p.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
}

// grace is how long calls of other members may take to end once Serve has been told
// to stop.
const grace = time.Second

// Serve answers other members from listener until ctx ends, and returns when all
// calls have.
func Serve(ctx context.Context, cfg Config, listener net.Listener, local Local) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	server := grpc.NewServer(
		grpc.Creds(onePort{memberOf: cfg.MemberOf}),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WaitForHandlers(true),
	)
	here := &carrying{}
	if local.Peers != nil {
		here = &local.Peers.carriedHere
	}
	requests := newRequests(cfg.Log, local.Handler, here)
	peerpb.RegisterStateServer(server, stateServer{store: local.Store})
	peerpb.RegisterCoordServer(server, coordServer{coord: local.Coord, control: local.Control})
	peerpb.RegisterRequestsServer(server, requests)
	var serving sync.WaitGroup
	serving.Go(requests.serve)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		timer := time.AfterFunc(grace, server.Stop)
		defer timer.Stop()
		requests.close()
		server.GracefulStop()
	})
	err := server.Serve(listener)
	if !stop() {
		<-stopped
		err = nil
	}
	server.Stop()
	requests.close()
	serving.Wait()
	return err
}
