package cluster

import (
	"context"
	"encoding/json"
	"log/slog"
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

// Event is one event as clients see it.
type Event struct {
	Type      string
	Timestamp time.Time
	// Location is the name of the member it comes from.
	Location string
	// Project is empty for an event of the whole server.
	Project  string
	metadata any
}

// JSON returns the event as clients read it. It is encoded once for all
// listeners: do not change the result.
func (e *Event) JSON() []byte { return json.RawMessage("{}") }

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
	// Location is the name of this member; nil means "none".
	Location func() string
	// MaxBehind is how many events a listener may fall behind before it is
	// closed. Zero means 16384.
	MaxBehind int
}

// Events passes events to whoever listens.
type Events struct{ cfg EventsConfig }

// NewEvents returns a hub without listeners.
func NewEvents(cfg EventsConfig) *Events { return &Events{cfg: cfg} }

// Follow makes operation events from the changes of a replica, until the result
// is called. View turns an operation into what clients see.
func (e *Events) Follow(replica *coord.Replica, view func(coord.Operation) OperationInfo) (stop func()) {
	return func() {}
}

// Lifecycle sends a lifecycle event. It never blocks.
func (e *Events) Lifecycle(at time.Time, project string, event Lifecycle) {}

// LogHandler returns a handler that passes records to next and, while somebody
// listens to logging events, to them as well, whatever next's level. It never
// blocks on a listener.
func (e *Events) LogHandler(next slog.Handler) slog.Handler { return next }

// Interest is what a listener wants to hear.
type Interest struct {
	// Types are the event types; none means operation and lifecycle and
	// logging.
	Types []string
	// Project limits operation and lifecycle events to those of the project
	// and of the whole server.
	Project string
	// AllProjects lifts that limit.
	AllProjects bool
	// Allowed, when not nil, further limits the events to projects that it
	// accepts; "" stands for the whole server.
	Allowed func(project string) bool
}

// Listener receives events.
type Listener struct{}

// Subscribe returns a listener that gets every event of interest from now on.
// An unknown type is ErrInvalid.
func (e *Events) Subscribe(interest Interest) (*Listener, error) {
	return nil, state.Errorf(state.ErrUnavailable, "being built")
}

// Next waits for the next event. It fails when ctx ends, when the listener or
// the hub was closed, and with ErrUnavailable when the listener fell too far
// behind: events are lost only together with the listener.
func (l *Listener) Next(ctx context.Context) (*Event, error) {
	return nil, state.Errorf(state.ErrUnavailable, "being built")
}

// Close ends the listener. It may be called twice.
func (l *Listener) Close() {}

// Close ends every listener; events sent later go nowhere.
func (e *Events) Close() {}
