package api

import (
	"encoding/json"
	"time"
)

// The types of event.
const (
	EventTypeOperation = "operation"
	EventTypeLogging   = "logging"
	EventTypeLifecycle = "lifecycle"
)

// Event is one message on the events websocket.
type Event struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	// Metadata is an Operation, an EventLogging or an EventLifecycle.
	Metadata json.RawMessage `json:"metadata"`
	// Location is the member that the event is about.
	Location string `json:"location,omitempty"`
	Project  string `json:"project,omitempty"`
}

// EventLogging is a line of a member's log.
type EventLogging struct {
	Message string            `json:"message"`
	Level   string            `json:"level"`
	Context map[string]string `json:"context"`
}

// EventLifecycle says what happened to which thing.
type EventLifecycle struct {
	// Action is a kind of thing and what happened to it, "instance-created".
	Action string `json:"action"`
	// Source is the thing's URL.
	Source    string                   `json:"source"`
	Context   map[string]any           `json:"context,omitempty"`
	Requestor *EventLifecycleRequestor `json:"requestor,omitempty"`
}

// EventLifecycleRequestor is who asked for it.
type EventLifecycleRequestor struct {
	// Username is a user's name or a certificate's fingerprint.
	Username string `json:"username"`
	// Protocol is "unix", "tls" or "cluster".
	Protocol string `json:"protocol"`
	// Address is where the request came from, "@" for the unix socket.
	Address string `json:"address"`
}
