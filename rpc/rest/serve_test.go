package rest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster/state"
)

// wrapped serves the given handlers at their patterns, open to everybody.
func wrapped(t *testing.T, cfg Config, routes map[string]route) *Server {
	t.Helper()
	var all []route
	for pattern, r := range routes {
		r.pattern, r.summary = pattern, "under test"
		if r.access == unset {
			r.access = public
		}
		all = append(all, r)
	}
	s, err := serving(cfg, all)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func answering(value any, err error) handler {
	return func(*http.Request) (any, error) { return value, err }
}

func TestErrorsHaveTheStatusOfTheirKind(t *testing.T) {
	routes := map[string]route{"GET /1.0/ours": {handle: answering(nil, errors.New("disk on fire"))}}
	for i, kind := range state.Kinds {
		err := fmt.Errorf("while trying: %w", state.Errorf(kind, "sentence %d", i))
		routes[fmt.Sprintf("PUT /1.0/kind/%d", i)] = route{handle: answering(nil, err)}
	}
	c := serveUnix(t, wrapped(t, bare(), routes))
	for i, status := range []int{400, 403, 404, 409, 409, 412, 503} {
		c.refused(fmt.Sprintf("PUT /1.0/kind/%d", i), "", status, fmt.Sprintf("while trying: sentence %d", i))
	}
	c.refused("GET /1.0/ours", "", 500, "disk on fire")
}

func TestAPanicIs500AndTheServerGoesOn(t *testing.T) {
	c := serveUnix(t, wrapped(t, bare(), map[string]route{
		"GET /1.0/bad":  {handle: func(*http.Request) (any, error) { panic("index out of range") }},
		"GET /1.0/good": {handle: answering("fine", nil)},
	}))
	c.refused("GET /1.0/bad", "", 500, "fault of its own")
	c.must("GET /1.0/good", "", nil)
}

func TestUnknownPathsAndMethods(t *testing.T) {
	c := serveUnix(t, wrapped(t, bare(), map[string]route{
		"GET /1.0/things":           {handle: answering([]string{}, nil)},
		"PUT /1.0/things/{name}":    {handle: answering(nil, nil)},
		"DELETE /1.0/things/{name}": {handle: answering(nil, nil)},
	}))
	c.refused("GET /1.0/nothings", "", 404, "/1.0/nothings")
	c.refused("GET /favicon.ico", "", 404, "/favicon.ico")
	c.refused("POST /1.0/things/x", "", 405, "only PUT, DELETE")
	if got := c.do("PATCH /1.0/things/x", "").http.Header.Get("Allow"); got != "PUT, DELETE" {
		t.Errorf("Allow = %q; want PUT, DELETE", got)
	}
	c.must("GET /1.0/things/", "", nil)
	c.refused("GET /1.0//things", "", 404, "nothing is at")
	c.refused("PUT /1.0/things/../things", "", 404, "nothing is at")
}

func TestInstanceRoutesHaveThreeNames(t *testing.T) {
	c := serveUnix(t, wrapped(t, bare(), map[string]route{
		"GET /1.0/instances/{name}/state": {handle: func(r *http.Request) (any, error) {
			return fmt.Sprint(instancesPrefix(r), " ", r.PathValue("name"), " ", onlyMachines(r)), nil
		}},
		"GET /1.0/instances-of-others": {handle: answering(nil, nil)},
	}))
	for prefix, machines := range map[string]bool{"instances": false, "containers": false, "virtual-machines": true} {
		var got string
		c.must("GET /1.0/"+prefix+"/c1/state", "", &got)
		if want := fmt.Sprintf("/1.0/%s c1 %v", prefix, machines); got != want {
			t.Errorf("as %s: %q; want %q", prefix, got, want)
		}
	}
	c.refused("GET /1.0/containers-of-others", "", 404, "nothing")
}

func TestBodiesThatDoNotFitAreRefusedWithASentence(t *testing.T) {
	type inner struct {
		Limit int `json:"limit"`
	}
	type request struct {
		Name    string                       `json:"name"`
		Config  map[string]string            `json:"config"`
		Devices map[string]map[string]string `json:"devices"`
		List    []string                     `json:"list"`
		Force   bool                         `json:"force"`
		Inner   *inner                       `json:"inner"`
	}
	c := serveUnix(t, wrapped(t, bare(), map[string]route{"PUT /1.0/thing": {handle: func(r *http.Request) (any, error) {
		return decode[request](r)
	}}}))
	for name, row := range map[string]struct{ body, want string }{
		"nothing at all":              {"", "the body is empty, want a JSON object"},
		"only space":                  {" \n", "the body is empty"},
		"no JSON":                     {"name: c1", "the body is not JSON: at byte"},
		"cut off":                     {`{"name": "c1"`, "the body is not JSON"},
		"something after it":          {`{"name": "c1"} {}`, "the body is not JSON: at byte 16"},
		"a list for the object":       {`[]`, "the body is a list, want an object"},
		"a number for an object":      {`{"config": 5}`, `field "config": want an object of strings, got a number`},
		"a number within an object":   {`{"config": {"limits.cpu": 5}}`, `want an object of strings, got a number`},
		"text for a list":             {`{"list": "a"}`, `field "list": want a list of strings, got a string`},
		"text for a boolean":          {`{"force": "yes"}`, `field "force": want true or false, got a string`},
		"a fraction for a number":     {`{"inner": {"limit": 1.5}}`, `field "inner.limit": want a whole number, got the number 1.5`},
		"text for a device":           {`{"devices": {"root": "disk"}}`, `want an object of objects of strings, got a string`},
		"a number for a name":         {`{"name": 5}`, `field "name": want a string, got a number`},
		"more than a body may hold":   {`{"name": "` + strings.Repeat("x", maxBody) + `"}`, "larger than 4 MiB"},
		"an object for a plain field": {`{"name": {}}`, `field "name": want a string, got an object`},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.t = t
			c.refused("PUT /1.0/thing", row.body, 400, row.want)
		})
	}
	c.must("PUT /1.0/thing", `{"name": "c1", "unknown": {"to": "us"}, "config": null}`, nil)
}

func TestATruncatedBodyIsRefused(t *testing.T) {
	s := wrapped(t, bare(), map[string]route{"PUT /1.0/thing": {handle: func(r *http.Request) (any, error) {
		return decode[map[string]any](r)
	}}})
	c := serveUnix(t, s)
	conn, err := c.dialer.NetDialContext(t.Context(), "unix", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /1.0/thing HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"a\": 1}")
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "before its announced length") {
		t.Errorf("a body that ends early: %d %s; want 400", answer.StatusCode, body)
	}
}

func TestRequestsHaveADeadline(t *testing.T) {
	cfg := bare()
	cfg.RequestTimeout = 50 * time.Millisecond
	wait := func(r *http.Request) (any, error) {
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		case <-time.After(200 * time.Millisecond):
			return "done", nil
		}
	}
	c := serveUnix(t, wrapped(t, cfg, map[string]route{
		"GET /1.0/slow":   {handle: wait},
		"GET /1.0/stream": {handle: wait, streams: true},
		"PUT /1.0/body":   {handle: func(r *http.Request) (any, error) { return decode[map[string]any](r) }},
	}))
	c.refused("GET /1.0/slow", "", 503, "took too long")
	c.must("GET /1.0/stream", "", nil)

	conn, err := c.dialer.NetDialContext(t.Context(), "unix", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /1.0/body HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("a client that stops in the middle of its body: %v; want an answer", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("a client that stops in the middle of its body: %d; want 400", answer.StatusCode)
	}
}

func TestWebsockets(t *testing.T) {
	refused := make(chan struct{}, 8)
	hello := func(_ context.Context, conn *websocket.Conn) error {
		return conn.WriteMessage(websocket.TextMessage, []byte("hello"))
	}
	s := wrapped(t, bare(), map[string]route{"GET /1.0/socket": {streams: true, handle: func(*http.Request) (any, error) {
		return upgraded(hello).orElse(func() { refused <- struct{}{} }), nil
	}}})
	local, remote := serveUnix(t, s), serveTLS(t, s)(nil)

	for name, c := range map[string]*caller{"over the local socket": local, "over TLS": remote} {
		t.Run(name, func(t *testing.T) {
			conn, refusal := c.websocket("/1.0/socket", nil)
			if refusal != "" {
				t.Fatal(refusal)
			}
			if _, message, err := conn.ReadMessage(); err != nil || string(message) != "hello" {
				t.Errorf("read %q, %v; want hello", message, err)
			}
		})
	}
	local.refused("GET /1.0/socket", "", 400, "ask for an upgrade over HTTP/1.1")
	remote.refused("GET /1.0/socket", "", 400, "ask for an upgrade over HTTP/1.1") // HTTP/2
	for range 2 {
		<-refused
	}
	t.Run("a strange page is refused", func(t *testing.T) {
		_, refusal := remote.websocket("/1.0/socket", http.Header{"Origin": {"https://evil.example"}})
		if !strings.Contains(refusal, "evil.example") {
			t.Errorf("refusal = %q; want one that names the page", refusal)
		}
		<-refused
	})
	t.Run("ws4py gets its first frame a moment after the 101", func(t *testing.T) {
		before := time.Now()
		conn, refusal := local.websocket("/1.0/socket", http.Header{"Origin": {"ws+unix://localhost"}})
		if refusal != "" {
			t.Fatal(refusal)
		}
		if _, _, err := conn.ReadMessage(); err != nil || time.Since(before) < firstFrame {
			t.Errorf("first frame after %v, %v; want at least %v", time.Since(before), err, firstFrame)
		}
	})
}

func TestServeEndsWithItsStreams(t *testing.T) {
	started := make(chan struct{}, 2)
	s := wrapped(t, bare(), map[string]route{
		"GET /1.0/socket": {streams: true, handle: func(*http.Request) (any, error) {
			return upgraded(func(_ context.Context, conn *websocket.Conn) error {
				started <- struct{}{}
				_, _, err := conn.ReadMessage() // until it is cut
				return err
			}), nil
		}},
		"GET /1.0/wait": {streams: true, handle: func(r *http.Request) (any, error) {
			started <- struct{}{}
			<-r.Context().Done()
			return nil, state.Errorf(state.ErrUnavailable, "the daemon is going away")
		}},
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	c := newCaller(t, "http://"+listener.Addr().String(), &http.Transport{}, &websocket.Dialer{})
	conn, refusal := c.websocket("/1.0/socket", nil)
	if refusal != "" {
		t.Fatal(refusal)
	}
	waited := make(chan int, 1)
	go func() { waited <- c.do("GET /1.0/wait", "").status }()
	<-started
	<-started
	before := time.Now()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v; want nil", err)
	}
	if took := time.Since(before); took > grace/2 {
		t.Errorf("Serve took %v to end; streams should not make it wait", took)
	}
	if status := <-waited; status != 503 {
		t.Errorf("a waiting request got %d; want 503", status)
	}
	if _, _, err := conn.ReadMessage(); err == nil {
		t.Error("the websocket is still open")
	}
}

func TestRoutesThatSayTooLittleAreRefused(t *testing.T) {
	handle := answering(nil, nil)
	for name, r := range map[string]route{
		"no access":  {pattern: "GET /x", summary: "s", handle: handle},
		"no handler": {pattern: "GET /x", summary: "s", access: public},
		"no summary": {pattern: "GET /x", handle: handle, access: public},
		"no method":  {pattern: "/x", summary: "s", handle: handle, access: public},
	} {
		if _, err := serving(bare(), []route{r}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestETagsAreReadWithAndWithoutQuotes(t *testing.T) {
	for given, want := range map[string]state.Revision{`"1f"`: 31, "1f": 31, "": 0, "*": 0, ` "1f" `: 31} {
		r := &http.Request{Header: http.Header{"If-Match": {given}}}
		if got, err := expected(r); err != nil || got != want {
			t.Errorf("expected(%q) = %d, %v; want %d", given, got, err, want)
		}
	}
	for _, given := range []string{`"0"`, "fingerprint", `W/"1f"`} {
		r := &http.Request{Header: http.Header{"If-Match": {given}}}
		if _, err := expected(r); !errors.Is(err, state.ErrStale) {
			t.Errorf("expected(%q) = %v; want ErrStale, since it can match nothing", given, err)
		}
	}
	if got := etag(31); got != `"1f"` {
		t.Errorf("etag(31) = %s", got)
	}
}

// A member that was started just now takes changes when it has come to order, and shows what
// it knows before.
func TestChangesWaitUntilTheMemberIsInOrder(t *testing.T) {
	cfg := bare()
	inOrder := make(chan struct{})
	cfg.InOrder, cfg.RequestTimeout = inOrder, 300*time.Millisecond
	changed := make(chan struct{}, 1)
	routes := map[string]route{
		"GET /1.0/thing":       {handle: answering("seen", nil)},
		"POST /internal/thing": {handle: answering("told", nil)},
		"PUT /1.0/thing":       {handle: func(*http.Request) (any, error) { changed <- struct{}{}; return "changed", nil }},
		"POST /1.0/stream":     {handle: answering("streamed", nil), streams: true},
	}
	c := serveUnix(t, wrapped(t, cfg, routes))
	c.must("GET /1.0/thing", "", nil)
	c.must("POST /internal/thing", "", nil)
	c.refused("PUT /1.0/thing", "", 503, "has not come to order yet")
	c.refused("POST /1.0/stream", "", 503, "has not come to order yet")
	select {
	case <-changed:
		t.Error("a change was made before the member was in order")
	default:
	}
	close(inOrder)
	c.must("PUT /1.0/thing", "", nil)
	c.must("POST /1.0/stream", "", nil)
}
