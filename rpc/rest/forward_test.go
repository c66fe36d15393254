package rest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"muster/state"
)

// ownership is a Placement that knows who owns what by kind, project and name.
type ownership struct {
	self   string
	owners map[string]string
}

func (o ownership) Self() string { return o.self }
func (o ownership) Host() (string, error) {
	if host := o.owners["host of "+o.self]; host != "" {
		return host, nil
	}
	return o.self, nil
}

func (o ownership) Others() []string { return []string{"bee", "cat"} }
func (o ownership) Member(name string) bool {
	return name == "ant" || name == "bee" || name == "cat" || name == "eel"
}

func (o ownership) Owner(_ context.Context, thing Thing) (string, error) {
	if owner, ok := o.owners[thing.Kind+" "+thing.Project+"/"+thing.Name]; ok {
		return owner, nil
	}
	return "", state.Errorf(state.ErrNotFound, "%s %q not found", thing.Kind, thing.Name)
}

// wire carries requests to one member over a real connection, with the caller in
// a header as rpc/peer carries it in metadata.
type wire struct {
	t       testing.TB
	members map[string]*Server
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (w wire) Transport(member string, caller Caller) http.RoundTripper {
	to := w.members[member]
	if to == nil {
		return roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") })
	}
	path := filepath.Join(w.t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		w.t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var caller Caller
		if err := json.Unmarshal([]byte(r.Header.Get("Test-Caller")), &caller); err != nil {
			panic(err)
		}
		to.ServePeer(w, r, caller)
	})}
	go func() { _ = server.Serve(listener) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	w.t.Cleanup(func() { transport.CloseIdleConnections(); _ = server.Close() })
	encoded, err := json.Marshal(caller)
	if err != nil {
		w.t.Fatal(err)
	}
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.Header.Set("Test-Caller", string(encoded))
		return transport.RoundTrip(r)
	})
}

// pair returns a client of member ant, with bee behind it.
func pair(t *testing.T, owners map[string]string, routes func(member string) map[string]route) *caller {
	t.Helper()
	members := map[string]*Server{}
	for _, name := range []string{"bee", "ant"} {
		cfg := bare()
		cfg.Placement, cfg.Peers = ownership{name, owners}, wire{t, members}
		members[name] = wrapped(t, cfg, routes(name))
	}
	return serveUnix(t, members["ant"])
}

func TestRequestsGoToTheOwner(t *testing.T) {
	c := pair(t, map[string]string{
		"instance default/here": "ant", "instance default/there": "bee", "instance other/here": "bee", "instance default/lost": "cat",
		"operation default/7": "bee", "operation /7": "bee",
	}, func(member string) map[string]route {
		whoami := func(r *http.Request) (any, error) {
			sent, err := io.ReadAll(r.Body)
			caller := CallerOf(r.Context())
			return []any{member, r.PathValue("name"), string(sent), caller.Trust, caller.Protocol}, err
		}
		return map[string]route{
			"GET /1.0/anywhere":         {handle: whoami},
			"PUT /1.0/instances/{name}": {handle: whoami, on: instanceOwner, access: trusted},
			"GET /1.0/resources":        {handle: whoami, on: toTarget},
			"GET /1.0/members/{name}":   {handle: whoami, on: namedMember},
			"DELETE /1.0/profiles/{name}": {on: policy{thing: func(*http.Request) Thing {
				return Thing{Kind: "instance", Project: "default", Name: "there"}
			}}, handle: answering(nil, state.Errorf(state.ErrConflict, "profile is in use on %s", member))},
		}
	})
	for line, want := range map[string]string{
		"GET /1.0/anywhere":             "ant",
		"PUT /1.0/instances/here":       "ant",
		"PUT /1.0/instances/there":      "bee",
		"PUT /1.0/containers/there":     "bee",
		"GET /1.0/resources":            "ant",
		"GET /1.0/resources?target=ant": "ant",
		"GET /1.0/resources?target=bee": "bee",
		"GET /1.0/members/ant":          "ant",
		"GET /1.0/members/bee":          "bee",
		// Who can't be reached is spoken for by whoever was asked.
		"GET /1.0/members/eel": "ant",
		"GET /1.0/members/cat": "ant",
	} {
		var got []any
		c.must(line, "body", &got)
		if len(got) != 5 || got[0] != want || got[3] != "full" || got[4] != "unix" || (got[2] != "body") {
			t.Errorf("%s: %v; want %s, with the body and the local caller", line, got, want)
		}
	}
	c.refused("DELETE /1.0/profiles/p", "", 409, "profile is in use on bee")
	c.refused("PUT /1.0/instances/none", "", 404, `instance "none" not found`)
	c.refused("PUT /1.0/instances/lost", "", 503, `member "cat": no route to host`)
	c.refused("GET /1.0/resources?target=dog", "", 404, `cluster member "dog" not found`)
	c.refused("GET /1.0/members/dog", "", 404, `cluster member "dog" not found`)
}

func TestWithoutPeersTheOwnerIsNamed(t *testing.T) {
	cfg := bare()
	cfg.Placement = ownership{"ant", map[string]string{"instance default/there": "bee"}}
	c := serveUnix(t, wrapped(t, cfg, map[string]route{"PUT /1.0/instances/{name}": {handle: answering(nil, nil), on: instanceOwner}}))
	c.refused("PUT /1.0/instances/there", "", 503, `member "bee" answers this and cannot be reached`)
}

// A member that hosts nothing passes on what only a host can do, unless it is named.
func TestAWitnessAsksAHost(t *testing.T) {
	body := policy{host: true, place: func(*http.Request, []byte) (string, func(), error) { return "", func() {}, nil }}
	c := pair(t, map[string]string{"host of ant": "bee"}, func(member string) map[string]route {
		return map[string]route{
			"PATCH /1.0/networks/{name}": {handle: answering(member, nil), on: toHost, access: trusted},
			"POST /1.0/images":           {handle: answering(member, nil), on: body, access: trusted},
		}
	})
	for line, want := range map[string]string{
		"PATCH /1.0/networks/n": "bee", "PATCH /1.0/networks/n?target=ant": "ant", "PATCH /1.0/networks/n?target=bee": "bee", "POST /1.0/images": "bee",
	} {
		for _, body := range []string{"an upload", `{"source": {}}`} {
			var got string
			if c.must(line, body, &got); got != want {
				t.Errorf("%s with %s: %q; want %s", line, body, got, want)
			}
		}
	}
}

// Two members that each take the other for the owner must not pass a request
// back and forth.
func TestNothingIsForwardedTwice(t *testing.T) {
	members := map[string]*Server{}
	for self, other := range map[string]string{"ant": "bee", "bee": "ant"} {
		cfg := bare()
		cfg.Placement = ownership{self, map[string]string{"instance default/c1": other}}
		cfg.Peers = wire{t, members}
		members[self] = wrapped(t, cfg, map[string]route{"PUT /1.0/instances/{name}": {on: instanceOwner, handle: answering(self, nil)}})
	}
	var got string
	serveUnix(t, members["ant"]).must("PUT /1.0/instances/c1", "", &got)
	if got != "bee" {
		t.Errorf("answered by %s; want bee", got)
	}
}

func TestListsOfEveryMember(t *testing.T) {
	c := pair(t, nil, func(member string) map[string]route {
		return map[string]route{
			"GET /1.0/leases":  {on: everyMember, handle: answering([]string{"of " + member}, nil)},
			"GET /1.0/missing": {on: everyMember, handle: answering(nil, state.Errorf(state.ErrNotFound, "no network"))},
		}
	})
	var got []string
	c.must("GET /1.0/leases", "", &got) // cat does not answer
	if !slices.Equal(got, []string{"of ant", "of bee"}) {
		t.Errorf("leases %v; want those of ant and bee", got)
	}
	c.refused("GET /1.0/missing", "", 404, "no network")
}

func TestForwardedWebsocketsAndStreams(t *testing.T) {
	arrived, gone := make(chan struct{}), make(chan struct{})
	c := pair(t, map[string]string{"operation default/7": "bee", "operation /7": "bee"}, func(member string) map[string]route {
		return map[string]route{
			"GET /1.0/operations/{id}/websocket": {on: operationOwner, streams: true, handle: func(*http.Request) (any, error) {
				return upgraded(func(_ context.Context, conn *websocket.Conn) error {
					_, message, err := conn.ReadMessage()
					if err != nil {
						return err
					}
					return conn.WriteMessage(websocket.TextMessage, []byte(member+" heard "+string(message)))
				}), nil
			}},
			"GET /1.0/operations/{id}/wait": {on: operationOwner, streams: true, handle: func(r *http.Request) (any, error) {
				close(arrived)
				<-r.Context().Done()
				close(gone)
				return nil, r.Context().Err()
			}},
		}
	})
	conn, refusal := c.websocket("/1.0/operations/7/websocket?secret=x", nil)
	if refusal != "" {
		t.Fatal(refusal)
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, message, err := conn.ReadMessage(); err != nil || string(message) != "bee heard hello" {
		t.Errorf("read %q, %v; want bee heard hello", message, err)
	}

	// A client that goes away ends its request on the other member.
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/1.0/operations/7/wait", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		if answer, err := c.client.Do(request); err == nil {
			answer.Body.Close()
		}
	}()
	<-arrived
	cancel()
	<-left
	<-gone
}
