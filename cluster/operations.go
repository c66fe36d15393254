package cluster

import (
	"context"
	"log/slog"
	"time"

	"muster/cluster/coord"
)

// OperationInfo is a background operation as clients see it (LXD REST API,
// "Background operation"); the JSON names are the API's.
type OperationInfo struct {
	ID          string              `json:"id"`
	Class       string              `json:"class"`
	Description string              `json:"description"`
	CreatedAt   time.Time           `json:"created_at"`
	UpdatedAt   time.Time           `json:"updated_at"`
	Status      string              `json:"status"`
	StatusCode  int                 `json:"status_code"`
	Resources   map[string][]string `json:"resources"`
	Metadata    map[string]any      `json:"metadata"`
	MayCancel   bool                `json:"may_cancel"`
	Err         string              `json:"err"`
	// Location is the name of the member that carries the operation out.
	Location string `json:"location"`

	// Project and Member are for the caller's own use; the API does not show
	// them here.
	Project string `json:"-"`
	Member  string `json:"-"`
}

// Final reports whether the operation has ended.
func (o OperationInfo) Final() bool { return coord.StatusCode(o.StatusCode).Final() }

// OperationSpec describes an operation to start.
type OperationSpec struct {
	// Class is coord.ClassTask when empty.
	Class       coord.Class
	Description string
	// Project is empty for an operation of the whole server.
	Project string
	// Resources are the URLs of what the operation works on, by their kind.
	Resources map[string][]string
	// MayCancel lets clients cancel; the run function's context then ends.
	MayCancel bool
	// Metadata is what clients see from the beginning. It is written to the
	// log, so it survives a restart and must hold no websocket secret.
	Metadata map[string]any
	// Input is what repeating the operation would need; it is kept as JSON.
	Input any
	// Sockets names the websockets that clients are to connect (for exec "0",
	// "1", "2"), OptionalSockets those that may come late or never
	// ("control"). For coord.ClassWebsocket only.
	Sockets         []string
	OptionalSockets []string
	// ConnectTimeout is how long Operation.Sockets waits; zero means 5 s.
	ConnectTimeout time.Duration
}

// Socket is a connected websocket; *websocket.Conn of gorilla is one.
type Socket interface {
	ReadMessage() (kind int, data []byte, err error)
	WriteMessage(kind int, data []byte) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	Close() error
}

// The kinds of websocket message (RFC 6455, opcodes).
const (
	SocketText   = 1
	SocketBinary = 2
)

// registry is what the runner needs of the coordination plane.
type registry interface {
	Propose(ctx context.Context, entry coord.Entry) (uint64, error)
	Operations() []coord.Operation
	Operation(id string) (coord.Operation, bool)
	WaitOperation(ctx context.Context, id string) (coord.Operation, error)
}

// OperationsConfig is what NewOperations needs.
type OperationsConfig struct {
	// Coord is the coordination plane; a *coord.Node is one. Required.
	Coord registry
	// Member is this member's ID. Required.
	Member string
	// Location turns a member's ID into the name clients know; nil means
	// "none", which is what a server outside a cluster says.
	Location func(memberID string) string
	// Events receives progress; nil drops it.
	Events *Events
	Log    *slog.Logger
}
