package coord

import (
	"encoding/json"
	"time"

	"muster/state"
)

// Verdict is what the cluster has decided about a member.
type Verdict string

// The verdicts.
const (
	Online    Verdict = "online"
	Offline   Verdict = "offline"
	Evacuated Verdict = "evacuated"
)

// Member is a member as the coordination plane knows it.
type Member struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Address string   `json:"address,omitempty"`
	Roles   []string `json:"roles,omitempty"`
	// Pending says that the roles are decided and not carried out yet.
	Pending bool    `json:"pending,omitempty"`
	Verdict Verdict `json:"verdict"`
	// Epoch grows with each verdict, so that a late message about an earlier
	// one can be told apart.
	Epoch uint64 `json:"epoch"`
	// Since is when the verdict was given.
	Since time.Time `json:"since"`
}

// Coordinator is the member that runs the control loops, and since which term.
type Coordinator struct {
	Member string `json:"member"`
	Term   uint64 `json:"term"`
}

// Lease is a right that one member holds as long as it renews it.
type Lease struct {
	Name   string `json:"name"`
	Holder string `json:"holder"`
	// Token is the index of the entry that gave the lease: a fencing token.
	Token uint64 `json:"token"`
	// Renewed is the index of the newest renewal. Expiry names it, so that a
	// renewal that came in between wins.
	Renewed uint64 `json:"renewed"`
	// TTL is how long the coordinator waits for a renewal, by its own clock.
	TTL time.Duration `json:"ttl"`
}

// Lock is a cluster-wide exclusion that lasts until it is released or its
// holder is declared offline.
type Lock struct {
	Name   string `json:"name"`
	Holder string `json:"holder"`
	Reason string `json:"reason,omitempty"`
	// Token is the index of the entry that gave the lock: a fencing token.
	Token uint64 `json:"token"`
}

// Class is the kind of an operation (LXD REST API, "Background operation").
type Class string

// The classes of operation.
const (
	ClassTask      Class = "task"
	ClassWebsocket Class = "websocket"
	ClassToken     Class = "token"
)

// StatusCode is the state of an operation (LXD REST API, "List of current
// status codes").
type StatusCode int

// The status codes an operation can have.
const (
	Running   StatusCode = 103
	Success   StatusCode = 200
	Failure   StatusCode = 400
	Cancelled StatusCode = 401
)

// String returns the word clients know the status by.
func (s StatusCode) String() string {
	switch s {
	case Running:
		return "Running"
	case Success:
		return "Success"
	case Failure:
		return "Failure"
	case Cancelled:
		return "Cancelled"
	}
	return "Unknown"
}

// Final reports whether the status will not change any more.
func (s StatusCode) Final() bool { return s >= Success }

// News is something that happened on a member and changed nothing that is recorded: a file
// was read, a command began.
type News struct {
	At time.Time `json:"at"`
	// Member is the ID of the member on which it happened.
	Member string `json:"member"`
	// Project is empty for the whole server.
	Project string `json:"project,omitempty"`
	// Action is the lifecycle event's, Source the URL of what it happened to.
	Action    string           `json:"action"`
	Source    string           `json:"source"`
	Name      string           `json:"name,omitempty"`
	Context   map[string]any   `json:"context,omitempty"`
	Requestor *state.Requestor `json:"requestor,omitempty"`
}

// Operation is a background operation as every member knows it. Values given
// out by this package share their maps and slices: do not change them.
type Operation struct {
	ID          string `json:"id"`
	Class       Class  `json:"class"`
	Description string `json:"description,omitempty"`
	// Member is the ID of the member that carries the operation out.
	Member string `json:"member"`
	// Boot names the life of the member's daemon in which the operation was started.
	Boot string `json:"boot,omitempty"`
	// Project is empty for an operation of the whole server.
	Project   string              `json:"project,omitempty"`
	Resources map[string][]string `json:"resources,omitempty"`
	Status    StatusCode          `json:"status"`
	// Err is the failure as users read it.
	Err       string    `json:"err,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	MayCancel bool      `json:"may_cancel,omitempty"`
	// Metadata is a JSON object that clients see. It holds no secret of a
	// websocket.
	Metadata json.RawMessage `json:"metadata,omitempty"`
	// Requestor is who began the operation; nil means a member by itself, or an older
	// release. What lets others in on its behalf ends with its certificate.
	Requestor *state.Requestor `json:"requestor,omitempty"`
	// Input is what repeating the operation needs, as JSON.
	Input json.RawMessage `json:"input,omitempty"`
	// Started is the index of the entry that started the operation, Revision
	// that of the entry that last changed it.
	Started  uint64 `json:"started"`
	Revision uint64 `json:"revision"`
}
