package rest

import (
	"context"
	"io"
	"net/http"

	"muster/cluster"
	"muster/state"
)

// TransferStore sends root file systems to other members and receives them;
// *cluster.Cluster is one.
type TransferStore interface {
	// SendInstance writes what the member with the inventory lacks.
	SendInstance(ctx context.Context, project, name string, spec cluster.SendSpec, inventory io.Reader, w io.Writer) error
	// ReceiveInstance gets an instance that is moving here; with last it is whole then.
	ReceiveInstance(ctx context.Context, project, name string, last bool) error
	// DropArrival removes what has arrived of an instance that does not come.
	DropArrival(ctx context.Context, project, name string) error
}

var _ TransferStore = (*cluster.Cluster)(nil)

// transfers serves the members of the cluster, and nobody else.
type transfers struct{ store TransferStore }

func (x transfers) routes() []route {
	project := []parameter{projectParameter}
	return []route{
		{
			pattern: "POST /internal/instances/{name}/send", access: admin, handle: x.send, streams: true,
			summary: "Send another member what it lacks of an instance", body: rawBody{}, returns: rawBody{},
			query: append([]parameter{{"snapshot", "string", "A snapshot to send along, the oldest first; may be repeated."}, {"hold", "boolean", "Keep the instance from changing."}}, project...),
		},
		{
			pattern: "POST /internal/instances/{name}/receive", access: admin, handle: x.receive, streams: true,
			summary: "Let a member get an instance that is moving there", body: internalReceive{}, query: project,
		},
		{
			pattern: "DELETE /internal/instances/{name}/arrival", access: admin, handle: x.drop,
			summary: "Tell a member that an instance does not come", query: project,
		},
	}
}

// internalReceive is the body of a request to receive.
type internalReceive struct {
	// Last says that the instance does not change any more.
	Last bool `json:"last"`
}

// fromMember refuses whoever is none.
func fromMember(r *http.Request) error {
	if !forwarded(r.Context()) {
		return state.Errorf(state.ErrForbidden, "not authorized: this is for the members of the cluster")
	}
	return nil
}

func (x transfers) send(r *http.Request) (any, error) {
	if err := fromMember(r); err != nil {
		return nil, err
	}
	return sending(func(w io.Writer) error {
		query := r.URL.Query()
		spec := cluster.SendSpec{Snapshots: query["snapshot"], Hold: query.Get("hold") == "1"}
		return x.store.SendInstance(r.Context(), projectName(r), r.PathValue("name"), spec, r.Body, w)
	}), nil
}

// sending answers with what it writes. An error before the first byte is answered as
// one; a later one breaks the answer off.
type sending func(w io.Writer) error

func (s sending) write(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	out := &noting{w: w}
	err := s(out)
	if err != nil && out.written {
		panic(http.ErrAbortHandler) // the only way to let the reader know
	}
	if err != nil {
		w.Header().Del("Content-Type")
	}
	return err
}

// noting notes whether something was written.
type noting struct {
	w       io.Writer
	written bool
}

func (n *noting) Write(p []byte) (int, error) {
	n.written = true
	return n.w.Write(p)
}

func (x transfers) receive(r *http.Request) (any, error) {
	if err := fromMember(r); err != nil {
		return nil, err
	}
	req, err := decode[internalReceive](r)
	if err != nil {
		return nil, err
	}
	return nil, x.store.ReceiveInstance(r.Context(), projectName(r), r.PathValue("name"), req.Last)
}

func (x transfers) drop(r *http.Request) (any, error) {
	if err := fromMember(r); err != nil {
		return nil, err
	}
	return nil, x.store.DropArrival(r.Context(), projectName(r), r.PathValue("name"))
}
