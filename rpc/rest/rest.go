// Package rest serves the LXD REST API: one route table, wrappers that apply to
// every route what every route needs (who is asking, which member answers,
// envelope, deadlines, logging), and one file per resource whose handlers
// decode, call once, and encode.
//
// It never acts on a container, the store or another member itself: reads come
// from the View, changes are calls into cluster through the small interfaces
// declared beside each resource, and forwarding is the route table's affair.
package rest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"muster/state"
	"muster/state/store"
)

// Config is what a Server is made of. View and Log are required. A resource
// whose store is nil is not served: its paths answer 404, and the extensions
// that it would announce are not announced.
type Config struct {
	Log *slog.Logger
	// View returns the newest View.
	View func() *store.View
	// State is the log that View follows, Registry the one that the registry of operations
	// is in.
	State, Registry Log
	// Host is what GET /1.0 tells of this member.
	Host Host
	// InOrder is closed when this member has come to order after its start; until then
	// what would change something on it waits. Nil: it is.
	InOrder <-chan struct{}
	// Placement says which member owns a thing; nil means that this member
	// owns everything.
	Placement Placement
	// Peers reaches other members; nil when there are none to reach.
	Peers Peers
	// Group is the numeric id of the group whose members may use the local
	// socket besides root; zero means no group.
	Group int
	// SharedExtensions returns those of this member's API extensions that all others
	// serve too: no client is to count on more. The fresh ones are those that the release
	// before does not serve. Nil means all of them.
	SharedExtensions func(own, fresh []string) []string
	// RequestTimeout bounds requests that neither stream nor wait; zero means
	// one minute.
	RequestTimeout time.Duration

	Settings     SettingStore
	Events       EventSource
	Operations   OperationStore
	Certificates CertificateStore
	Profiles     ProfileStore
	Projects     ProjectStore
	Instances    InstanceStore
	Snapshots    SnapshotStore
	Execs        ExecStore
	Files        FileStore
	Images       ImageStore
	Groups       GroupStore
	// News may be nil.
	News NewsTeller
	// Resume is nil where events can't be resumed.
	Resume    EventResumer
	Transfers TransferStore
	Networks  NetworkStore
	Pools     PoolStore
	// Members needs Daemon too.
	Members MemberStore
	// Daemon answers the daemon's own subcommands, on the local socket only.
	Daemon Daemon
}

// Server answers the REST API. It is safe for concurrent use.
type Server struct {
	cfg Config
	log *slog.Logger
	mux *http.ServeMux
	// aliases are the routes of one image alias, by method; see aliasName.
	aliases map[string]http.Handler
	// extensions are what this member's routes announce.
	extensions []string
	cross      *http.CrossOriginProtection
}

// New checks cfg and builds the route table. It starts nothing.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil || cfg.View == nil {
		return nil, state.Errorf(state.ErrInvalid, "rest: Config.Log and Config.View are required")
	}
	if cfg.RequestTimeout == 0 {
		cfg.RequestTimeout = time.Minute
	}
	if cfg.Host.StorageDrivers != nil {
		cfg.Host.StorageDrivers = remembered(cfg.Host.StorageDrivers)
	}
	return serving(cfg, table(cfg))
}

// serving returns a server of the given routes.
func serving(cfg Config, routes []route) (*Server, error) {
	s := &Server{cfg: cfg, log: cfg.Log, mux: http.NewServeMux(), aliases: map[string]http.Handler{}, extensions: announced(routes), cross: http.NewCrossOriginProtection()}
	for _, r := range routes {
		if err := r.check(); err != nil {
			return nil, err
		}
		if r.path() == aliasPrefix+"{name...}" {
			s.aliases[r.method()] = s.serve(r)
			continue
		}
		for _, pattern := range r.patterns() {
			s.mux.Handle(pattern, s.serve(r))
		}
	}
	return s, nil
}

// Extensions are the API extensions that this member serves by itself.
func (s *Server) Extensions() []string { return s.extensions }

// grace is how long requests that are being answered may take to end once Serve
// has been told to stop.
const grace = 3 * time.Second

// Serve answers requests from listener until ctx ends, then closes the listener,
// lets requests that are being answered finish for a moment, cuts what is left
// and returns when all handlers have. The connections are *net.UnixConn, known
// by their peer's credentials, or *tls.Conn that negotiated h2 or http/1.1 and
// asked for a client certificate without requiring one.
//
// Websockets need HTTP/1.1: the clients that open them offer nothing else.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	conns := &connections{open: map[net.Conn]*connection{}}
	// Requests outlive ctx by the grace; those that stream watch it themselves.
	base, cancel := context.WithCancel(context.WithValue(context.WithoutCancel(ctx), servingKey{}, ctx))
	defer cancel()
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 15 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    256 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       conns.add,
		ConnState:         conns.changed,
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		wait, cancelWait := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancelWait()
		conns.closeUpgraded()
		_ = server.Shutdown(wait)
	})
	err := server.Serve(listener)
	if !stop() {
		<-ended
	}
	cancel()
	_ = server.Close()
	conns.closeAll()
	conns.handlers.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// servingKey finds Serve's own context in a request's.
type servingKey struct{}
