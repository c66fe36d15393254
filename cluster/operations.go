package cluster

import (
	"context"
	"log/slog"
	"time"

	"muster/cluster/coord"
	"muster/state"
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

// Operations runs this member's background operations and answers for those of
// every member.
type Operations struct{ cfg OperationsConfig }

// NewOperations returns a runner of operations.
func NewOperations(cfg OperationsConfig) (*Operations, error) {
	return &Operations{cfg: cfg}, nil
}

// Operation is a running operation in the hands of its run function.
type Operation struct{}

// Start registers an operation and runs it. It returns once the operation is
// registered, Running; run goes on in a goroutine of its own. Run's context
// keeps ctx's values but ends only when the operation is cancelled or the
// daemon shuts down. What run returns decides the final status: nil is Success;
// an error is Failure with its text, or Cancelled when the operation was
// cancelled. A panic is Failure. A nil run is allowed for coord.ClassToken: such
// an operation is Running until Finish or Cancel.
func (o *Operations) Start(ctx context.Context, spec OperationSpec, run func(ctx context.Context, op *Operation) error) (OperationInfo, error) {
	return OperationInfo{}, state.Errorf(state.ErrUnavailable, "being built")
}

// ID returns the operation's UUID.
func (op *Operation) ID() string { return "" }

// UpdateMetadata lays values over the operation's metadata. Clients that read
// the operation see it at once; listeners to events get it at most twice a
// second. The last values become part of the finished operation.
func (op *Operation) UpdateMetadata(values map[string]any) {}

// Sockets waits until a client has connected every one of spec.Sockets and
// returns them by name. When that takes longer than spec.ConnectTimeout from
// the start, the error says so. The runner closes the sockets after run ends.
func (op *Operation) Sockets(ctx context.Context) (map[string]Socket, error) {
	return nil, state.Errorf(state.ErrUnavailable, "being built")
}

// Socket waits, without a limit of its own, until a client has connected the
// named socket.
func (op *Operation) Socket(ctx context.Context, name string) (Socket, error) {
	return nil, state.Errorf(state.ErrUnavailable, "being built")
}

// SocketClaim is the right to connect one socket of an operation.
type SocketClaim struct {
	// Name is the socket's name ("0", "control").
	Name string
}

// Claim checks the secret of a websocket before the connection is upgraded.
// Each socket can be claimed once: attach a connection or release the claim.
// A wrong secret is ErrForbidden; an operation that is unknown, or not run by
// this member, is ErrNotFound; one that has ended or is no websocket operation
// is ErrConflict.
func (o *Operations) Claim(id, secret string) (*SocketClaim, error) {
	return nil, state.Errorf(state.ErrUnavailable, "being built")
}

// Attach hands the connected websocket to the operation, which from now on owns
// and closes it.
func (c *SocketClaim) Attach(socket Socket) {}

// Done is closed when the operation has ended and its sockets are closed.
func (c *SocketClaim) Done() <-chan struct{} { return nil }

// Release gives the claim back after the upgrade failed.
func (c *SocketClaim) Release() {}

// Get returns an operation of any member. An unknown one is ErrNotFound.
func (o *Operations) Get(id string) (OperationInfo, error) {
	return OperationInfo{}, state.Errorf(state.ErrUnavailable, "being built")
}

// List returns the operations of a project with those of the whole server, in
// the order they were started; all of them with allProjects.
func (o *Operations) List(project string, allProjects bool) []OperationInfo { return nil }

// Wait waits until the operation has ended, for timeout at most (negative:
// without limit), and returns it as it then is; a timeout is no error.
func (o *Operations) Wait(ctx context.Context, id string, timeout time.Duration) (OperationInfo, error) {
	return OperationInfo{}, state.Errorf(state.ErrUnavailable, "being built")
}

// Cancel asks an operation to end; it ends as Cancelled soon after. An
// operation that has ended is ErrConflict, one that may not be cancelled is
// ErrInvalid.
func (o *Operations) Cancel(ctx context.Context, id string) error {
	return state.Errorf(state.ErrUnavailable, "being built")
}

// Finish ends a token operation as used up.
func (o *Operations) Finish(ctx context.Context, id string) error {
	return state.Errorf(state.ErrUnavailable, "being built")
}

// Running returns how many operations run on this member now, tokens not
// counted.
func (o *Operations) Running() int { return 0 }

// Close refuses new operations, lets running ones end until ctx does, then
// cancels what is left and waits for it. It may be called twice.
func (o *Operations) Close(ctx context.Context) error { return nil }
