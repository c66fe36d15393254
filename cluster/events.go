package cluster

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster/cluster/coord"
	"muster/state"
)

// The types of event (LXD REST API, /1.0/events).
const (
	EventOperation = "operation"
	EventLifecycle = "lifecycle"
	EventLogging   = "logging"
)

var eventTypes = []string{EventOperation, EventLifecycle, EventLogging}

// Event is one event as clients see it. It is immutable.
type Event struct {
	Type      string
	Timestamp time.Time
	// Location is the name of the member it comes from.
	Location string
	// Project is empty for an event of the whole server.
	Project string
	// Revision is that of the change which a lifecycle event tells of; zero for others.
	Revision state.Revision
	metadata any
	encoded  sync.Once
	json     []byte
}

// JSON returns the event as clients read it. It is encoded once for all
// listeners: do not change the result.
func (e *Event) JSON() []byte {
	e.encoded.Do(func() {
		shown := struct {
			Type      string    `json:"type"`
			Timestamp time.Time `json:"timestamp"`
			Metadata  any       `json:"metadata"`
			Location  string    `json:"location,omitempty"`
			Project   string    `json:"project,omitempty"`
			Revision  int64     `json:"revision,omitempty"`
		}{e.Type, e.Timestamp, e.metadata, e.Location, e.Project, int64(e.Revision)}
		encoded, err := json.Marshal(shown)
		if err != nil {
			// Somebody gave an event what JSON cannot say. The event
			// itself must not be lost over that.
			shown.Metadata = map[string]string{"error": err.Error()}
			encoded, _ = json.Marshal(shown)
		}
		e.json = encoded
	})
	return e.json
}

// Requestor is who caused a lifecycle event.
type Requestor struct {
	Username string `json:"username"`
	// Protocol is "tls", "unix" or "".
	Protocol string `json:"protocol"`
	// Address is host:port, or "@" for the local socket.
	Address string `json:"address"`
}

// Lifecycle is the metadata of a lifecycle event.
type Lifecycle struct {
	// Action is LXD's word, "instance-started".
	Action string `json:"action"`
	// Source is the URL of what it happened to.
	Source    string         `json:"source"`
	Context   map[string]any `json:"context,omitempty"`
	Requestor *Requestor     `json:"requestor,omitempty"`
	Name      string         `json:"name,omitempty"`
	Project   string         `json:"project,omitempty"`
}

// EventsConfig is what NewEvents needs.
type EventsConfig struct {
	// Location is the name of this member; nil means "none", which is what a
	// server outside a cluster says.
	Location func() string
	// MaxBehind is how many events a listener may fall behind before it is
	// closed. Zero means 16384.
	MaxBehind int
}

// Events passes events to whoever listens. Sending never blocks: each listener
// has its own queue, and one that falls too far behind is closed, so that its
// client sees a dropped connection and never a gap. Its methods may be called
// from any goroutine.
type Events struct {
	cfg EventsConfig

	mu sync.Mutex
	// listeners hear every event in the order in which it was sent. Guarded
	// by mu.
	listeners map[*Listener]struct{}
	closed    bool // guarded by mu

	// hearsLogs counts the listeners to logging events.
	hearsLogs atomic.Int32
}

// NewEvents returns a hub without listeners.
func NewEvents(cfg EventsConfig) *Events {
	if cfg.Location == nil {
		cfg.Location = func() string { return "none" }
	}
	if cfg.MaxBehind == 0 {
		cfg.MaxBehind = 16384
	}
	return &Events{cfg: cfg, listeners: map[*Listener]struct{}{}}
}

// Follow makes an operation event of each change that source reports, and a lifecycle
// event of each piece of news, until the result is called. View turns an operation into
// what clients see (Operations.View), location a member's ID into its name; a *coord.Node and a *coord.Replica are sources.
func (e *Events) Follow(source interface {
	SubscribeOperations(f func(coord.Operation)) (cancel func())
	SubscribeNews(f func(coord.News)) (cancel func())
}, view func(coord.Operation) OperationInfo, location func(memberID string) string,
) (stop func()) {
	stopOperations := source.SubscribeOperations(func(op coord.Operation) { e.operation(view(op)) })
	stopNews := source.SubscribeNews(func(news coord.News) {
		e.send(&Event{
			Type: EventLifecycle, Timestamp: news.At, Location: location(news.Member), Project: news.Project,
			metadata: Lifecycle{
				Action: news.Action, Source: news.Source, Context: news.Context, Name: news.Name, Project: news.Project,
				Requestor: requestorOf(news.Requestor),
			},
		})
	})
	return func() {
		stopOperations()
		stopNews()
	}
}

// requestorOf shows who asked, or nil.
func requestorOf(r *state.Requestor) *Requestor {
	if r == nil {
		return nil
	}
	return &Requestor{Username: r.Username, Protocol: r.Protocol, Address: r.Address}
}

func (e *Events) operation(op OperationInfo) {
	e.send(&Event{Type: EventOperation, Timestamp: op.UpdatedAt, Location: op.Location, Project: op.Project, metadata: op})
}

// Lifecycle sends a lifecycle event of the change with that revision, which the named
// member made; empty means this one. It never blocks.
func (e *Events) Lifecycle(at time.Time, location, project string, revision state.Revision, event Lifecycle) {
	e.send(e.lifecycle(at, location, project, revision, event))
}

func (e *Events) lifecycle(at time.Time, location, project string, revision state.Revision, event Lifecycle) *Event {
	here := e.cfg.Location()
	if location == "" || here == alone {
		location = here
	}
	return &Event{Type: EventLifecycle, Timestamp: at, Location: location, Project: project, Revision: revision, metadata: event}
}

// alone is the location of all that happens on a server that is in no cluster.
const alone = "none"

// send queues the event for every listener that wants it.
func (e *Events) send(event *Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for l := range e.listeners {
		if l.interest.covers(event) && !l.push(event) {
			e.drop(l)
		}
	}
}

// Interest is what a listener wants to hear.
type Interest struct {
	// Types are the event types; none means all of them.
	Types []string
	// Project limits operation and lifecycle events to those of the project
	// and of the whole server; empty means the default project.
	Project string
	// AllProjects lifts that limit.
	AllProjects bool
	// Allowed, when not nil, further limits them to projects that it accepts;
	// "" stands for the whole server. It must return at once.
	Allowed func(project string) bool
}

func (i *Interest) covers(event *Event) bool {
	if !slices.Contains(i.Types, event.Type) {
		return false
	}
	if event.Type == EventLogging {
		return true
	}
	if !i.AllProjects && event.Project != "" && event.Project != i.Project {
		return false
	}
	return i.Allowed == nil || i.Allowed(event.Project)
}

// Listener receives events. One goroutine at a time may wait in Next.
type Listener struct {
	hub      *Events
	interest Interest
	max      int
	// news has room for one: it says that queue or err has changed.
	news chan struct{}

	mu    sync.Mutex
	queue []*Event // guarded by mu
	// replayed is the revision up to which it has the lifecycle events from elsewhere.
	replayed state.Revision // guarded by mu
	err      error          // guarded by mu; set when there will be no more events
}

// Subscribe returns a listener that gets every event of interest from now on.
// An unknown type is ErrInvalid.
func (e *Events) Subscribe(interest Interest) (*Listener, error) {
	if len(interest.Types) == 0 {
		interest.Types = eventTypes
	}
	for _, t := range interest.Types {
		if !slices.Contains(eventTypes, t) {
			return nil, state.Errorf(state.ErrInvalid, "unknown event type %q: use %s", t, strings.Join(eventTypes, ", "))
		}
	}
	if interest.Project == "" {
		interest.Project = state.DefaultProject
	}
	l := &Listener{hub: e, interest: interest, max: e.cfg.MaxBehind, news: make(chan struct{}, 1)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errHubClosed
	}
	e.listeners[l] = struct{}{}
	if l.hearsLogs() {
		e.hearsLogs.Add(1)
	}
	return l, nil
}

var errHubClosed = state.Errorf(state.ErrUnavailable, "the daemon is shutting down")

func (l *Listener) hearsLogs() bool { return slices.Contains(l.interest.Types, EventLogging) }

// drop forgets a listener; the caller holds mu.
func (e *Events) drop(l *Listener) {
	if _, listens := e.listeners[l]; !listens {
		return
	}
	delete(e.listeners, l)
	if l.hearsLogs() {
		e.hearsLogs.Add(-1)
	}
}

// push queues an event. It reports false when the listener has fallen behind
// and is over.
func (l *Listener) push(event *Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	if event.Revision != 0 && event.Revision <= l.replayed {
		return true
	}
	if len(l.queue) >= l.max {
		l.queue = nil
		l.err = state.Errorf(state.ErrUnavailable, "the listener is %d events behind: connect again and ask for what matters", l.max)
		l.tell()
		return false
	}
	l.queue = append(l.queue, event)
	l.tell()
	return true
}

// replay puts older lifecycle events, all there are up to the revision, before what has
// come since the listener was made.
func (l *Listener) replay(older []*Event, upTo state.Revision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, event := range l.queue {
		if event.Revision == 0 || event.Revision > upTo {
			older = append(older, event)
		}
	}
	l.queue, l.replayed = older, upTo
	l.tell()
}

func (l *Listener) tell() {
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// Next waits for the next event. It fails when ctx ends, when the listener or
// the hub was closed, and with ErrUnavailable when the listener fell too far
// behind: events are lost only together with the listener.
func (l *Listener) Next(ctx context.Context) (*Event, error) {
	for {
		l.mu.Lock()
		if len(l.queue) > 0 {
			event := l.queue[0]
			l.queue[0] = nil
			l.queue = l.queue[1:]
			if len(l.queue) == 0 {
				l.queue = nil // or the array behind it would only grow
			}
			l.mu.Unlock()
			return event, nil
		}
		err := l.err
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-l.news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close ends the listener. It may be called twice.
func (l *Listener) Close() {
	l.hub.mu.Lock()
	l.hub.drop(l)
	l.hub.mu.Unlock()
	l.end(state.Errorf(state.ErrUnavailable, "the listener is closed"))
}

func (l *Listener) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	l.tell()
}

// Close ends every listener once it has heard what was sent before; events sent
// later go nowhere.
func (e *Events) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for l := range e.listeners {
		e.drop(l)
		l.end(errHubClosed)
	}
}
