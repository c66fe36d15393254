package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"muster/rpc/rest"
	"muster/state"
)

// lobby answers on the local socket in place of a member that can't serve: one that
// waits for the others, or that was removed. It says why, to everybody, lets musterd
// shutdown stop what runs here and end the daemon, and musterd cluster list-database see
// who votes.
type lobby struct {
	server http.Server
	work   sync.WaitGroup
	why    atomic.Value // an error, wrapped in because
}

type because struct{ error }

// whoWaits is what a lobby answers for.
type whoWaits struct {
	// shutDown is called when somebody asks for a shutdown, and says whether the daemon ends.
	shutDown func(ctx context.Context, stopInstances bool) error
	// database says who votes, as rest.Daemon does; nil when that is nobody's business any
	// more.
	database func(ctx context.Context) (rest.InternalDatabase, error)
}

// openLobby begins to answer.
func openLobby(local net.Listener, why error, who whoWaits) (*lobby, error) {
	l := &lobby{}
	l.say(why)
	lending := &lent{Listener: local}
	if err := lending.open(); err != nil {
		return nil, err
	}
	l.server = http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := l.answer(r, who)
		if err != nil {
			rest.Refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "sync", "status": "Success", "status_code": 200, "metadata": answer})
	})}
	l.work.Go(func() { _ = l.server.Serve(lending) }) // it ends with close
	return l, nil
}

func (l *lobby) answer(r *http.Request, who whoWaits) (any, error) {
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/internal/shutdown":
		var ask rest.InternalShutdown
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&ask); err != nil {
			return nil, state.Errorf(state.ErrInvalid, "the body is no JSON: %w", err)
		}
		return nil, who.shutDown(r.Context(), !ask.KeepInstances)
	case r.Method == http.MethodGet && r.URL.Path == "/internal/database" && who.database != nil:
		return who.database(r.Context())
	}
	return nil, l.why.Load().(because).error
}

// say changes what callers are told.
func (l *lobby) say(why error) { l.why.Store(because{why}) }

// close ends the answering, after what is being answered.
func (l *lobby) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = l.server.Shutdown(ctx)
	_ = l.server.Close()
	l.work.Wait()
}

// errRemoved is why a member that was removed from its cluster does not start.
var errRemoved = state.Errorf(state.ErrForbidden, "this member was removed from its cluster, whose other members refuse it: stop the daemon and run \"musterd cluster forget --yes\" to make it a server of its own again")

// errEnded says that the daemon was told to end before it had begun.
var errEnded = errors.New("the daemon was told to end")

// mourn stays on the local socket of a member that was removed, so that whoever asks
// hears why it is gone, until the daemon is to end.
func mourn(ctx context.Context, dir string, local net.Listener, log *slog.Logger) error {
	ended := make(chan struct{})
	var once sync.Once
	l, err := openLobby(local, errRemoved, whoWaits{shutDown: func(ctx context.Context, stopInstances bool) error {
		if stopInstances {
			if _, err := haltHere(ctx, dir, log); err != nil {
				return err
			}
		}
		once.Do(func() { close(ended) })
		return nil
	}})
	if err != nil {
		return err
	}
	defer l.close(ctx)
	select {
	case <-ctx.Done():
	case <-ended:
	}
	return nil
}
