package rest

import (
	"context"
	"crypto/subtle"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"muster/cluster"
	"muster/rpc/rest/api"
	"muster/state"
)

// OperationStore is the registry of operations; *cluster.Operations is one.
type OperationStore interface {
	Start(ctx context.Context, spec cluster.OperationSpec, run func(context.Context, *cluster.Operation) error) (cluster.OperationInfo, error)
	Get(id string) (cluster.OperationInfo, error)
	List(project string, allProjects bool) []cluster.OperationInfo
	Wait(ctx context.Context, id string, timeout time.Duration) (cluster.OperationInfo, error)
	Cancel(ctx context.Context, id string) error
	Claim(id, secret string) (*cluster.SocketClaim, error)
}

// operations serves /1.0/operations.
type operations struct{ store OperationStore }

func (x operations) routes() []route {
	return []route{
		{
			pattern: "GET /1.0/operations", access: trusted, registry: true, handle: x.list,
			summary: "List operations by status", returns: map[string][]api.Operation{},
			description: "An object of lists, keyed by the status in lower case.",
			query: []parameter{
				projectParameter, recursionParameter,
				{"all-projects", "boolean", "List the operations of all projects."},
			},
		},
		{
			pattern: "GET /1.0/operations/{id}", access: trusted, on: operationTeller, registry: true, handle: x.get,
			announces: []string{"operation_description"},
			summary:   "Show an operation", returns: api.Operation{},
		},
		{
			pattern: "DELETE /1.0/operations/{id}", access: trusted, on: operationOwner, registry: true, handle: x.cancel,
			summary: "Cancel an operation", async: true, returns: api.Operation{},
			description: "The answer's operation is the cancelled one.",
		},
		{
			pattern: "GET /1.0/operations/{id}/wait", access: public, registry: true, streams: true, handle: x.wait,
			summary: "Wait until an operation has ended", returns: api.Operation{},
			description: "Untrusted callers need the secret of a token operation.",
			query: []parameter{
				{"timeout", "integer", "Seconds to wait; -1 or nothing means without limit. The operation is returned as it then is."},
				secretParameter,
			},
		},
		{
			pattern: "GET /1.0/operations/{id}/websocket", access: public, on: operationOwner, registry: true, streams: true, handle: x.websocket,
			summary: "Connect to a websocket of an operation",
			description: "With a client certificate it must be the one that began the operation, or an unrestricted one. " +
				"The secrets die with the certificate that began it.",
			status: http.StatusSwitchingProtocols,
			query:  []parameter{secretParameter},
		},
	}
}

func (x operations) list(r *http.Request) (any, error) {
	level, err := recursion(r)
	if err != nil {
		return nil, err
	}
	caller, byStatus := CallerOf(r.Context()), map[string][]any{}
	for _, op := range x.store.List(projectName(r), allProjects(r)) {
		if !mayLook(caller, op) {
			continue
		}
		status := strings.ToLower(op.Status)
		if level == 0 {
			byStatus[status] = append(byStatus[status], path("operations", op.ID))
		} else {
			byStatus[status] = append(byStatus[status], showOperation(op))
		}
	}
	return byStatus, nil
}

func (x operations) get(r *http.Request) (any, error) {
	op, err := x.find(r)
	return showOperation(op), err
}

func (x operations) cancel(r *http.Request) (any, error) {
	op, err := x.find(r)
	if err != nil {
		return nil, err
	}
	if err := x.store.Cancel(r.Context(), op.ID); err != nil {
		return nil, err
	}
	if cancelled, err := x.store.Get(op.ID); err == nil {
		op = cancelled
	}
	return started(op), nil
}

func (x operations) wait(r *http.Request) (any, error) {
	timeout, err := seconds(r.URL.Query().Get("timeout"))
	if err != nil {
		return nil, err
	}
	op, err := x.store.Get(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if caller := CallerOf(r.Context()); !mayLook(caller, op) && !knowsSecret(r, op) {
		return nil, state.Errorf(state.ErrForbidden, "not authorized: waiting for operation %s needs its secret", op.ID)
	}
	op, err = x.store.Wait(r.Context(), op.ID, timeout)
	return showOperation(op), err
}

func (x operations) websocket(r *http.Request) (any, error) {
	op, err := x.store.Get(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if !mayAttach(CallerOf(r.Context()), op) {
		return nil, state.Errorf(state.ErrForbidden, "not authorized: operation %s was begun with another client certificate", op.ID)
	}
	claim, err := x.store.Claim(r.PathValue("id"), r.URL.Query().Get("secret"))
	if err != nil {
		return nil, err
	}
	return upgraded(func(_ context.Context, conn *websocket.Conn) error {
		claim.Attach(conn)
		<-claim.Done()
		return nil
	}).orElse(claim.Release), nil
}

// find returns the operation that the path names, if the caller may see it.
func (x operations) find(r *http.Request) (cluster.OperationInfo, error) {
	op, err := x.store.Get(r.PathValue("id"))
	if err == nil && !mayLook(CallerOf(r.Context()), op) {
		return cluster.OperationInfo{}, state.Errorf(state.ErrNotFound, "operation %q not found", r.PathValue("id"))
	}
	return op, err
}

// mayLook reports whether the caller may see the operation: a restricted one
// only those of its projects.
func mayLook(caller Caller, op cluster.OperationInfo) bool {
	return caller.Trust == Full || (op.Project != "" && caller.Sees(op.Project))
}

// mayAttach reports whether the caller may connect a websocket of the operation, given its
// secret: whoever began it, and unrestricted clients. Who shows no certificate at all may
// too, because stock clients don't on their websockets (pylxd's execute over https); Claim
// refuses the secrets of clients that are not trusted any more.
func mayAttach(caller Caller, op cluster.OperationInfo) bool {
	switch {
	case caller.Trust == Full:
		return true
	case caller.Certificate == nil:
		return caller.Trust == Untrusted
	}
	return caller.Name != "" && caller.Name == op.Requestor.Fingerprint()
}

// knowsSecret reports whether the request carries the secret that the operation
// was handed out with.
func knowsSecret(r *http.Request, op cluster.OperationInfo) bool {
	secret, _ := op.Metadata["secret"].(string)
	given := r.URL.Query().Get("secret")
	return secret != "" && subtle.ConstantTimeCompare([]byte(secret), []byte(given)) == 1
}

// seconds reads a timeout; negative or empty means none.
func seconds(text string) (time.Duration, error) {
	if text == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, state.Errorf(state.ErrInvalid, "timeout is %q, want a whole number of seconds", text)
	}
	if n < 0 {
		return -1, nil
	}
	return time.Duration(n) * time.Second, nil
}

// started answers 202 with the operation.
func started(op cluster.OperationInfo) answer { return accepted(op.ID, showOperation(op)) }

// done answers 202 for work that the documents call a background operation and
// that is over already: the operation only tells so. Should it not be possible
// to register one, the work is done all the same, and the answer is 200.
func done(r *http.Request, operations OperationStore, description, kind, url string) (any, error) {
	if operations == nil {
		return nil, nil
	}
	op, err := operations.Start(r.Context(), cluster.OperationSpec{
		Description: description, Project: projectName(r), Resources: map[string][]string{kind: {url}},
	}, func(context.Context, *cluster.Operation) error { return nil })
	if err != nil {
		return nil, nil //nolint:nilerr // the work itself was done
	}
	return started(op), nil
}

// showOperation turns an operation into what clients see.
func showOperation(op cluster.OperationInfo) api.Operation {
	return api.Operation{
		ID: op.ID, Class: op.Class, Description: op.Description, CreatedAt: op.CreatedAt, UpdatedAt: op.UpdatedAt,
		Status: op.Status, StatusCode: api.StatusCode(op.StatusCode), Resources: orEmpty(op.Resources),
		Metadata: op.Metadata, MayCancel: op.MayCancel, Err: op.Err, Location: op.Location,
	}
}
