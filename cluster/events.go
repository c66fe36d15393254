package cluster

import "time"

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
	Project string
	encoded []byte
}

// JSON returns the event as clients read it. It is encoded once for all
// listeners: do not change the result.
func (e *Event) JSON() []byte { return e.encoded }

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
