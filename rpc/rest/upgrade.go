package rest

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"muster/state"
)

// upgraded101 answers 101 and hands the websocket over.
type upgraded101 struct {
	run     func(context.Context, *websocket.Conn) error
	refused func()
}

// upgraded answers by upgrading to a websocket, which run then owns until it
// returns; the connection is closed after. ctx ends when the server does.
func upgraded(run func(context.Context, *websocket.Conn) error) upgraded101 {
	return upgraded101{run: run}
}

// orElse adds what to do when the upgrade fails, so that run is never called.
func (a upgraded101) orElse(refused func()) upgraded101 {
	a.refused = refused
	return a
}

// firstFrame is how long after the 101 the first frame goes to clients that read
// both at once and choke on it: ws4py, which pylxd uses. It gives itself away by
// sending an Origin, which clients written in Go do not.
const firstFrame = 50 * time.Millisecond

func (a upgraded101) write(w http.ResponseWriter, r *http.Request) error {
	conn, err := upgrade(w, r)
	if err != nil {
		if a.refused != nil {
			a.refused()
		}
		return err
	}
	defer conn.Close()
	if r.Header.Get("Origin") != "" {
		pause := time.NewTimer(firstFrame)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-r.Context().Done():
		}
	}
	return a.run(r.Context(), conn)
}

func upgrade(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	if !websocket.IsWebSocketUpgrade(r) {
		return nil, state.Errorf(state.ErrInvalid, "%s is a websocket: ask for an upgrade over HTTP/1.1", r.URL.Path)
	}
	if !sameHost(r) {
		return nil, state.Errorf(state.ErrForbidden, "not authorized: a page of %q may not open this websocket", r.Header.Get("Origin"))
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: 10 * time.Second,
		CheckOrigin:      func(*http.Request) bool { return true }, // done above
		Error:            func(http.ResponseWriter, *http.Request, int, error) {},
	}
	conn, err := upgrader.Upgrade(hijacker{w}, r, nil)
	if err != nil {
		return nil, state.Errorf(state.ErrInvalid, "websocket: %w", err)
	}
	return conn, nil
}

// sameHost lets in clients that are no browsers, and pages of this very host.
func sameHost(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || CallerOf(r.Context()).Protocol == "unix" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.EqualFold(u.Hostname(), strings.Trim(host, "[]"))
}

// hijacker finds the Hijacker that gorilla wants below our wrappers.
type hijacker struct{ http.ResponseWriter }

// Hijack implements http.Hijacker.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, errors.New("this connection cannot be upgraded; use HTTP/1.1")
	}
	return conn, rw, nil
}
