package api

import "time"

// The classes of operation.
const (
	OperationClassTask      = "task"
	OperationClassWebsocket = "websocket"
	OperationClassToken     = "token"
)

// Operation is work that goes on in the background.
type Operation struct {
	// ID is a UUID.
	ID string `json:"id"`
	// Class is "task", "websocket" or "token".
	Class       string     `json:"class"`
	Description string     `json:"description"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
	Status      string     `json:"status"`
	StatusCode  StatusCode `json:"status_code"`
	// Resources maps a kind ("instances", "images" …) to URLs.
	Resources map[string][]string `json:"resources"`
	// Metadata is the operation's own: secrets of websockets, progress,
	// the exit status of a command, a new image's fingerprint.
	Metadata  map[string]any `json:"metadata"`
	MayCancel bool           `json:"may_cancel"`
	// Err says why it failed; empty otherwise.
	Err string `json:"err"`
	// Location is the member that does the work.
	Location string `json:"location"`
}
