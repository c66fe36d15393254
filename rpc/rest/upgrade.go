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
	run func(context.Context, *websocket.Conn) error
}

// upgraded answers by upgrading to a websocket, which run then owns until it
// returns; the connection is closed after. ctx ends when the server closes or
// the client's certificate is removed. A frame that arrives in the same read as
// the 101 wedges ws4py (pylxd), so the first frame waits a moment.
func upgraded(run func(context.Context, *websocket.Conn) error) answer { return upgraded101{run} }

func (a upgraded101) write(w http.ResponseWriter, r *http.Request) error {
	if !websocket.IsWebSocketUpgrade(r) {
		return state.Errorf(state.ErrInvalid, "%s is a websocket: ask for an upgrade over HTTP/1.1", r.URL.Path)
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: 10 * time.Second,
		CheckOrigin:      sameHost,
		Error:            func(http.ResponseWriter, *http.Request, int, error) {},
	}
	conn, err := upgrader.Upgrade(hijacker{w}, r, nil)
	if err != nil {
		return state.Errorf(state.ErrInvalid, "websocket: %w", err)
	}
	defer conn.Close()
	return a.run(r.Context(), conn)
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
