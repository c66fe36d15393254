package rest

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster/cluster"
	"muster/cluster/coord"
	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// start runs an operation that ends when the returned function is called, or
// when it is cancelled.
func (x *realm) start(spec cluster.OperationSpec) (id string, finish func()) {
	x.t.Helper()
	end := make(chan struct{})
	op, err := x.operations.Start(x.t.Context(), spec, func(ctx context.Context, _ *cluster.Operation) error {
		select {
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	x.must(err)
	return op.ID, func() { close(end) }
}

func TestOperations(t *testing.T) {
	x := newRealm(t)
	c := x.local
	id, finish := x.start(cluster.OperationSpec{Description: "Baking bread", Project: "default", Resources: map[string][]string{"instances": {"/1.0/instances/c1"}}})

	var urls map[string][]string
	c.must("GET /1.0/operations", "", &urls)
	if !slices.Equal(urls["running"], []string{"/1.0/operations/" + id}) || len(urls) != 1 {
		t.Errorf("operations %v; want the one, running", urls)
	}
	var objects map[string][]api.Operation
	c.must("GET /1.0/operations?recursion=1", "", &objects)
	if len(objects["running"]) != 1 || objects["running"][0].Description != "Baking bread" {
		t.Errorf("operations %+v; want the one that bakes", objects)
	}
	var op api.Operation
	c.must("GET /1.0/operations/"+id, "", &op)
	if op.ID != id || op.Class != "task" || op.StatusCode != api.Running || op.Status != "Running" || op.Resources["instances"][0] != "/1.0/instances/c1" {
		t.Errorf("operation %+v", op)
	}
	before := time.Now()
	c.must("GET /1.0/operations/"+id+"/wait?timeout=1", "", &op)
	if took := time.Since(before); op.Status != "Running" || took < time.Second || took > 5*time.Second {
		t.Errorf("waiting 1 s: %s after %v; want Running after 1 s", op.Status, took)
	}
	c.must("GET /1.0/operations/"+id+"/wait?timeout=0", "", &op)
	if op.Status != "Running" {
		t.Errorf("waiting 0 s: %s; want Running", op.Status)
	}
	ended := make(chan api.Operation, 1)
	go func() {
		var op api.Operation
		c.must("GET /1.0/operations/"+id+"/wait", "", &op)
		ended <- op
	}()
	finish()
	if op := <-ended; op.Status != "Success" || op.Err != "" {
		t.Errorf("after its end: %+v; want Success", op)
	}
	c.must("GET /1.0/operations", "", &urls)
	if !slices.Equal(urls["success"], []string{"/1.0/operations/" + id}) {
		t.Errorf("operations %v; want the one, success", urls)
	}
}

func TestCancellingOperations(t *testing.T) {
	x := newRealm(t)
	c := x.local
	id, _ := x.start(cluster.OperationSpec{Description: "Baking bread", MayCancel: true})
	got := c.must("DELETE /1.0/operations/"+id, "", nil)
	if got.status != http.StatusAccepted || got.Operation != "/1.0/operations/"+id {
		t.Errorf("cancel: %d, operation %q; want 202 and the cancelled one", got.status, got.Operation)
	}
	var op api.Operation
	c.must("GET "+got.Operation+"/wait", "", &op)
	if op.Status != "Cancelled" || op.StatusCode != api.Cancelled {
		t.Errorf("after cancelling: %s %d; want Cancelled", op.Status, op.StatusCode)
	}
	c.refused("DELETE /1.0/operations/"+id, "", 409, "")
	stubborn, finish := x.start(cluster.OperationSpec{Description: "Boiling"})
	defer finish()
	c.refused("DELETE /1.0/operations/"+stubborn, "", 400, "cancel")
}

func TestOperationsRefuse(t *testing.T) {
	x := newRealm(t)
	id, finish := x.start(cluster.OperationSpec{Description: "Baking"})
	defer finish()
	none := "/1.0/operations/00000000-0000-4000-8000-000000000000"
	for line, row := range map[string]struct {
		status int
		words  string
	}{
		"GET " + none:                                       {404, "not found"},
		"DELETE " + none:                                    {404, "not found"},
		"GET " + none + "/wait":                             {404, "not found"},
		"GET " + none + "/websocket?secret=x":               {404, "not found"},
		"GET /1.0/operations/" + id + "/wait?timeout=soon":  {400, "whole number of seconds"},
		"GET /1.0/operations/" + id + "/websocket?secret=x": {409, ""},
		"GET /1.0/operations?recursion=-1":                  {400, "recursion"},
		"POST /1.0/operations":                              {405, "GET"},
	} {
		x.local.refused(line, "", row.status, row.words)
	}
}

func TestWebsocketsOfOperations(t *testing.T) {
	x := newRealm(t)
	said := make(chan string, 1)
	op, err := x.operations.Start(t.Context(), cluster.OperationSpec{
		Class: coord.ClassWebsocket, Description: "Talking", Sockets: []string{"0"}, OptionalSockets: []string{"control"},
	}, func(ctx context.Context, op *cluster.Operation) error {
		sockets, err := op.Sockets(ctx)
		if err != nil {
			return err
		}
		_, message, err := sockets["0"].ReadMessage()
		said <- string(message)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	fds, _ := op.Metadata["fds"].(map[string]string)
	if fds == nil {
		fds = map[string]string{}
		for name, secret := range op.Metadata["fds"].(map[string]any) {
			fds[name] = secret.(string)
		}
	}
	stranger := x.remote(nil)
	url := "/1.0/operations/" + op.ID + "/websocket?secret="
	if _, refusal := stranger.websocket(url+"wrong", nil); !strings.Contains(refusal, "secret") {
		t.Errorf("with a wrong secret: %q; want a refusal that says so", refusal)
	}
	stranger.refused("GET "+url+fds["0"], "", 400, "ask for an upgrade") // gives the claim back
	conn, refusal := stranger.websocket(url+fds["0"], nil)
	if refusal != "" {
		t.Fatalf("with the secret: %s", refusal)
	}
	if _, refusal := stranger.websocket(url+fds["0"], nil); refusal == "" {
		t.Error("the same socket could be connected twice")
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got := <-said; got != "hello" {
		t.Errorf("the operation heard %q; want hello", got)
	}
	if _, _, err := conn.ReadMessage(); err == nil {
		t.Error("the websocket outlives its operation")
	}
}

func TestStrangersWaitWithTheSecretOnly(t *testing.T) {
	x := newRealm(t)
	op, err := x.operations.Start(t.Context(), cluster.OperationSpec{
		Class: coord.ClassToken, Description: "Image download token", MayCancel: true, Metadata: map[string]any{"secret": "5ec4e7"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger := x.remote(nil)
	stranger.refused("GET /1.0/operations/"+op.ID+"/wait?timeout=0", "", 403, "needs its secret")
	stranger.refused("GET /1.0/operations/"+op.ID+"/wait?timeout=0&secret=5ec4e8", "", 403, "needs its secret")
	stranger.must("GET /1.0/operations/"+op.ID+"/wait?timeout=0&secret=5ec4e7", "", nil)
	stranger.refused("GET /1.0/operations/"+op.ID, "", 403, "not trusted")
}

func TestRestrictedClientsSeeTheirOperations(t *testing.T) {
	x := newRealm(t)
	_, err := x.store.Apply(t.Context(), store.CreateProject{Project: state.Project{Name: "other"}})
	x.must(err)
	mine, finishMine := x.start(cluster.OperationSpec{Description: "Mine", Project: "other"})
	defer finishMine()
	yours, finishYours := x.start(cluster.OperationSpec{Description: "Yours", Project: "default"})
	defer finishYours()
	whole, finishWhole := x.start(cluster.OperationSpec{Description: "Everybody's"})
	defer finishWhole()
	client := x.trust(state.Certificate{Name: "tenant", Restricted: true, Projects: []string{"other"}})
	for _, query := range []string{"?project=other", "?all-projects=true"} {
		var urls map[string][]string
		client.must("GET /1.0/operations"+query, "", &urls)
		if !slices.Equal(urls["running"], []string{"/1.0/operations/" + mine}) {
			t.Errorf("%s: %v; want its own alone", query, urls)
		}
	}
	client.must("GET /1.0/operations/"+mine+"?project=other", "", nil)
	for _, id := range []string{yours, whole} {
		client.refused("GET /1.0/operations/"+id+"?project=other", "", 404, "not found")
		client.refused("DELETE /1.0/operations/"+id+"?project=other", "", 404, "not found")
		client.refused("GET /1.0/operations/"+id+"/wait?project=other", "", 403, "needs its secret")
	}
}
