package rest

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"muster/cluster"
	"muster/state"
)

// EventSource is where events come from; *cluster.Events is one.
type EventSource interface {
	Subscribe(interest cluster.Interest) (*cluster.Listener, error)
}

// EventResumer gives listeners what they missed; *cluster.Cluster is one.
type EventResumer interface {
	EventsSince(ctx context.Context, interest cluster.Interest, since state.Revision) (*cluster.Listener, error)
}

// events serves /1.0/events.
type events struct {
	source EventSource
	// resume is nil where nothing can be resumed.
	resume EventResumer
}

const (
	// pingEvery is how often a listener is pinged, whatever else it is sent: the answers
	// are all that says that it is still there. They keep the connection of a quiet one
	// alive through NAT, too.
	pingEvery = 20 * time.Second
	// frameTimeout is how long a listener may take to accept one frame.
	frameTimeout = 10 * time.Second
)

func (x events) routes() []route {
	return []route{{
		pattern: "GET /1.0/events", access: trusted, streams: true, handle: x.listen,
		announces: []string{"event_lifecycle", "event_location"},
		summary:   "Listen to events over a websocket", status: http.StatusSwitchingProtocols,
		description: "Each frame is one event. A listener that falls far behind is closed; events are never left out.",
		query: []parameter{
			{"type", "string", "Comma-separated types: operation, lifecycle, logging. All when absent."},
			projectParameter,
			{"all-projects", "boolean", "Listen to the events of all projects."},
			{"since", "integer", "A \"revision\" of a lifecycle event: those after it come first, each once. 412 when they are no longer at hand."},
		},
	}}
}

func (x events) listen(r *http.Request) (any, error) {
	caller := CallerOf(r.Context())
	interest := cluster.Interest{Project: projectName(r), AllProjects: allProjects(r)}
	if types := r.URL.Query().Get("type"); types != "" {
		interest.Types = strings.Split(types, ",")
	}
	if caller.Trust != Full {
		interest.Allowed = caller.Sees
		// The daemon's log speaks of everybody.
		if len(interest.Types) == 0 {
			interest.Types = []string{cluster.EventOperation, cluster.EventLifecycle}
		}
		if slices.Contains(interest.Types, cluster.EventLogging) {
			return nil, state.Errorf(state.ErrForbidden, "not authorized: logging events are for unrestricted clients")
		}
	}
	// Subscribing before the 101 is what lets a client know that it misses
	// nothing from the moment it is connected.
	listener, err := x.subscribe(r, interest)
	if err != nil {
		return nil, err
	}
	return upgraded(func(ctx context.Context, conn *websocket.Conn) error {
		defer listener.Close()
		return send(ctx, conn, listener)
	}).orElse(listener.Close), nil
}

func (x events) subscribe(r *http.Request, interest cluster.Interest) (*cluster.Listener, error) {
	text := r.URL.Query().Get("since")
	if text == "" {
		return x.source.Subscribe(interest)
	}
	since, err := strconv.ParseInt(text, 10, 64)
	if err != nil || since < 0 {
		return nil, state.Errorf(state.ErrInvalid, "since is %q: want the \"revision\" of a lifecycle event", text)
	}
	if x.resume == nil {
		return nil, state.Errorf(state.ErrInvalid, "since: events can't be resumed here")
	}
	return x.resume.EventsSince(r.Context(), interest, state.Revision(since))
}

// send writes events until either side has enough.
func send(ctx context.Context, conn *websocket.Conn, listener *cluster.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	received := make(chan struct{})
	defer func() {
		cancel()
		_ = conn.Close() // ends the reader
		<-received
	}()
	go func() { // owned by this call, which waits for it
		defer close(received)
		defer cancel()
		discard(conn)
	}()
	ping := time.Now().Add(pingEvery)
	for {
		event, err := next(ctx, listener, ping)
		switch {
		case ctx.Err() != nil:
			return nil
		case event == nil && err == nil:
			ping = time.Now().Add(pingEvery)
			err = conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(frameTimeout))
		case err != nil:
			reason := websocket.FormatCloseMessage(websocket.CloseTryAgainLater, err.Error())
			_ = conn.WriteControl(websocket.CloseMessage, reason, time.Now().Add(frameTimeout))
			return err
		default:
			_ = conn.SetWriteDeadline(time.Now().Add(frameTimeout))
			err = conn.WriteMessage(websocket.TextMessage, event.JSON())
		}
		if err != nil {
			return err
		}
	}
}

// next returns the next event, or neither an event nor an error when it is time
// for a ping, however many events there are.
func next(ctx context.Context, listener *cluster.Listener, ping time.Time) (*cluster.Event, error) {
	if !time.Now().Before(ping) {
		return nil, nil
	}
	quiet, cancel := context.WithDeadline(ctx, ping)
	defer cancel()
	event, err := listener.Next(quiet)
	if err != nil && quiet.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	return event, err
}

// discard reads what the client sends, which is only answers to pings, until the
// connection ends or has been silent for three pings.
func discard(conn *websocket.Conn) {
	extend := func(string) error { return conn.SetReadDeadline(time.Now().Add(3 * pingEvery)) }
	_ = extend("")
	conn.SetPongHandler(extend)
	conn.SetReadLimit(4096)
	for {
		if _, _, err := conn.NextReader(); err != nil {
			return
		}
	}
}
