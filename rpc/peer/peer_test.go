package peer_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"muster/cluster/coord"
	"muster/cluster/pki"
	"muster/rpc/mux"
	"muster/rpc/peer"
	"muster/rpc/rest"
	"muster/state"
	"muster/state/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake answers as a member's planes would, with what the test says.
type fake struct {
	mu      sync.Mutex
	applied []store.Envelope
	err     error
	batches []store.Batch
	handler func(http.ResponseWriter, *http.Request, rest.Caller)
}

func (f *fake) ApplyEnvelope(_ context.Context, envelope store.Envelope) (store.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = append(f.applied, envelope)
	return store.Result{Revision: 7}, f.err
}

func (f *fake) LeaderRevision(ctx context.Context, vouched string) (state.Revision, error) {
	if vouched == "silence" {
		<-ctx.Done()
	}
	return 42, f.err
}

func (f *fake) KnownLeader(context.Context) (string, error) { return "cat", f.err }

func (f *fake) Watch(ctx context.Context, _ state.Revision, schema int64, send func(store.Batch) error) error {
	for _, batch := range f.batches {
		if batch.Snapshot {
			batch.Schema = schema
		}
		if err := send(batch); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f *fake) ProposeEncoded(_ context.Context, data []byte) (uint64, error) {
	return uint64(len(data)), f.err
}

func (f *fake) LeaderIndex(_ context.Context, vouched string) (uint64, error) {
	return uint64(len(vouched)), f.err
}

func (f *fake) KnownCoordinator() string { return "dog" }

func (f *fake) Relay(ctx context.Context, since uint64, send func(coord.Batch) error) error {
	for _, batch := range []coord.Batch{
		{Snapshot: []byte(`{"applied":3}`), Leader: "cat"}, {Entries: []coord.LogEntry{{Index: since, Data: []byte("e")}, {Index: since + 2}}, Leader: "dog"}, {},
	} {
		if err := send(batch); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (f *fake) Parts(context.Context) (state.Parts, error) {
	return state.Parts{
		Coord: state.PartUsed, Database: state.PartFresh, CoordVoters: []string{"ant", "bee"}, DatabaseVoters: []string{"ant"},
	}, f.err
}

func (f *fake) Left(_ context.Context, log state.Log, member string) (bool, error) {
	return log == state.LogDatabase && member == "dog", f.err
}

// What a worker follows, and what members tell each other of their parts.
func TestTheLogIsFollowedAndPartsAreTold(t *testing.T) {
	far := &fake{}
	ant, end := pair(t, far)
	var got []coord.Batch
	enough := errors.New("enough")
	err := ant.Follow(t.Context(), "bee", 5, func(batch coord.Batch) error {
		if got = append(got, batch); len(got) == 3 {
			return enough
		}
		return nil
	})
	want := []coord.Batch{
		{Snapshot: []byte(`{"applied":3}`), Leader: "cat"}, {Entries: []coord.LogEntry{{Index: 5, Data: []byte("e")}, {Index: 7}}, Leader: "dog"}, {},
	}
	if diff := cmp.Diff(want, got); diff != "" || !errors.Is(err, enough) {
		t.Errorf("followed (%v):\n%s", err, diff)
	}
	held, err := ant.Parts(t.Context(), "bee")
	told := state.Parts{
		Coord: state.PartUsed, Database: state.PartFresh, CoordVoters: []string{"ant", "bee"}, DatabaseVoters: []string{"ant"},
	}
	if diff := cmp.Diff(told, held); diff != "" || err != nil {
		t.Errorf("parts (%v):\n%s", err, diff)
	}
	for log, want := range map[state.Log]bool{state.LogCoord: false, state.LogDatabase: true} {
		if left, err := ant.Left(t.Context(), "bee", log, "dog"); err != nil || left != want {
			t.Errorf("left %s: %v, %v; want %v", log, left, err, want)
		}
	}
	far.err = state.Errorf(state.ErrUnavailable, "it does not lead")
	if left, err := ant.Left(t.Context(), "bee", state.LogCoord, "dog"); left || !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("left where nobody leads: %v, %v", left, err)
	}
	end()
}

func (f *fake) ServePeer(w http.ResponseWriter, r *http.Request, caller rest.Caller) {
	f.handler(w, r, caller)
}

// pair starts member bee, which answers with far, and returns ant's Peers and a way
// to end bee.
func pair(t *testing.T, far *fake) (ant *peer.Peers, end func()) {
	t.Helper()
	ant, _, end = both(t, far)
	return ant, end
}

// both is pair with bee's own Peers.
func both(t *testing.T, far *fake) (ant, bee *peer.Peers, end func()) {
	t.Helper()
	identities := map[string]*pki.Identity{}
	for _, id := range []string{"ant", "bee"} {
		dir := t.TempDir()
		if id == "bee" {
			request, key, err := pki.MakeRequest()
			must(t, err)
			signed, err := identities["ant"].SignMember(request, id, time.Now())
			must(t, err)
			must(t, pki.Adopt(dir, identities["ant"].Shared(), signed, key))
		}
		identity, err := pki.Open(dir, pki.Options{MemberID: id})
		must(t, err)
		identities[id] = identity
	}
	muxes := map[string]*mux.Mux{}
	for id, identity := range identities {
		m, err := mux.New(mux.Config{Identity: identity})
		must(t, err)
		must(t, m.SetAddress(t.Context(), "127.0.0.1:0"))
		muxes[id] = m
		t.Cleanup(func() { _ = m.Close() })
	}
	address := muxes["bee"].Address()
	cfg := peer.Config{
		MemberOf: mux.MemberOf,
		Dial: func(ctx context.Context, id string) (net.Conn, error) {
			return muxes["ant"].Dial(ctx, id, address, mux.GRPC)
		},
		Resolve: func(name string) (string, error) {
			if name != "Bee" {
				return "", state.Errorf(state.ErrNotFound, "cluster member %q not found", name)
			}
			return "bee", nil
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	bee = peer.New(cfg)
	serving.Go(func() {
		if err := peer.Serve(ctx, cfg, muxes["bee"].Listener(mux.GRPC), peer.Local{Store: far, Coord: far, Control: far, Handler: far, Peers: bee}); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	end = func() { cancel(); serving.Wait() }
	t.Cleanup(end)
	ant = peer.New(cfg)
	t.Cleanup(func() { must(t, ant.Close()) })
	t.Cleanup(func() { must(t, bee.Close()) })
	return ant, bee, end
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCommandsGoThereAndOutcomesComeBack(t *testing.T) {
	far := &fake{}
	ant, end := pair(t, far)
	sent := store.Envelope{
		ID: "1", Term: 3, Requestor: &store.Requestor{Username: "u", Protocol: "unix", Address: "@", Member: "ant"}, Name: "set-settings", Command: []byte(`{"a":1}`),
	}
	result, err := ant.Apply(t.Context(), "bee", sent)
	if err != nil || result.Revision != 7 {
		t.Errorf("Apply = %+v, %v; want revision 7", result, err)
	}
	if diff := cmp.Diff([]store.Envelope{sent}, far.applied); diff != "" {
		t.Errorf("what arrived differs:\n%s", diff)
	}
	if revision, err := ant.Revision(t.Context(), "bee", "ant"); err != nil || revision != 42 {
		t.Errorf("Revision = %d, %v; want 42", revision, err)
	}
	if leader, err := ant.Leader(t.Context(), "bee"); err != nil || leader != "cat" {
		t.Errorf("Leader = %q, %v; want cat", leader, err)
	}
	if index, err := ant.Index(t.Context(), "bee", "ant"); err != nil || index != 3 {
		t.Errorf("Index = %d, %v; want 3", index, err)
	}
	if coordinator, err := ant.CoordinatorOf(t.Context(), "bee"); err != nil || coordinator != "dog" {
		t.Errorf("CoordinatorOf = %q, %v; want dog", coordinator, err)
	}
	if index, err := ant.Forward(t.Context(), "bee", []byte("abc")); err != nil || index != 3 {
		t.Errorf("Forward = %d, %v; want 3", index, err)
	}
	for _, kind := range state.Kinds {
		far.mu.Lock()
		far.err = state.Errorf(kind, "for reason %v", kind)
		far.mu.Unlock()
		if _, err := ant.Apply(t.Context(), "bee", sent); !errors.Is(err, kind) || !strings.Contains(err.Error(), "for reason") {
			t.Errorf("an error of kind %v arrives as %v", kind, err)
		}
	}
	far.err = coord.ErrNotApplied
	if _, err := ant.Forward(t.Context(), "bee", nil); !coord.NotApplied(err) {
		t.Errorf("an entry that was not applied: %v; want NotApplied", err)
	}
	end()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := ant.Apply(ctx, "bee", sent); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("Apply on a member that is gone: %v; want ErrUnavailable", err)
	}
}

func TestChangesStream(t *testing.T) {
	at := time.Date(2026, 11, 21, 1, 2, 3, 4000, time.UTC)
	want := []store.Batch{
		{Snapshot: true, Revision: 5, Schema: 3, Records: []store.Record{{Revision: 2, Kind: store.KindProject, After: []byte(`{"Name":"default"}`), At: at}}},
		{Revision: 6, Records: []store.Record{{
			Revision: 6, Index: 1, Kind: store.KindMember, Before: []byte(`{}`), After: []byte(`{"a":2}`), Action: "x",
			Context: map[string]any{"old_name": "y"}, Requestor: &store.Requestor{Username: "root"}, At: at,
		}}},
	}
	ant, end := pair(t, &fake{batches: want})
	var got []store.Batch
	stop := errors.New("enough")
	err := ant.Watch(t.Context(), "bee", 1, 3, func(batch store.Batch) error {
		if got = append(got, batch); len(got) == len(want) {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		t.Errorf("Watch: %v; want what send returned", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what arrived differs:\n%s", diff)
	}
	// The end of the member ends the stream.
	ended := make(chan error, 1)
	first := make(chan struct{})
	go func() {
		var once sync.Once
		ended <- ant.Watch(t.Context(), "bee", 1, 3, func(store.Batch) error { once.Do(func() { close(first) }); return nil })
	}()
	<-first
	end()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("Watch ended without an error")
		}
	case <-time.After(10 * time.Second):
		t.Error("Watch goes on though the member is gone")
	}
}

// front is a server that forwards everything to Bee.
func front(t *testing.T, ant *peer.Peers) string {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	must(t, err)
	caller := rest.Caller{Trust: rest.Restricted, Protocol: "tls", Name: "abc", Projects: []string{"p"}, Certificate: []byte{1, 0, 255}}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: &httputil.ReverseProxy{
		Transport:     ant.Transport("Bee", caller),
		FlushInterval: -1,
		Rewrite:       func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = "http", "bee" },
	}}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	return listener.Addr().String()
}

func clientOf(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
}

func dialerOf(socket string) *websocket.Dialer {
	return &websocket.Dialer{NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
}

func TestRequestsAreAnsweredThere(t *testing.T) {
	gone := make(chan struct{})
	far := &fake{handler: func(w http.ResponseWriter, r *http.Request, caller rest.Caller) {
		switch r.URL.Path {
		case "/who":
			_, _ = fmt.Fprintf(w, "%s %s %v %v", caller.Trust, caller.Name, caller.Projects, caller.Certificate)
		case "/sum":
			sum := sha256.New()
			_, _ = io.Copy(sum, r.Body)
			w.Header().Set("Sum", fmt.Sprintf("%x", sum.Sum(nil)))
			w.WriteHeader(http.StatusTeapot)
		case "/stream":
			for i := range 3 {
				_, _ = fmt.Fprintf(w, "%d\n", i)
				_ = http.NewResponseController(w).Flush()
			}
			<-r.Context().Done()
			close(gone)
		case "/echo":
			conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer conn.Close()
			for {
				kind, data, err := conn.ReadMessage()
				if err != nil {
					return
				}
				_ = conn.WriteMessage(kind, data)
			}
		}
	}}
	ant, _ := pair(t, far)
	socket := front(t, ant)
	client := clientOf(socket)

	answer, err := client.Get("http://x/who")
	must(t, err)
	body, err := io.ReadAll(answer.Body)
	must(t, errors.Join(err, answer.Body.Close()))
	if got, want := string(body), "restricted abc [p] [1 0 255]"; got != want {
		t.Errorf("the caller arrives as %q; want %q", got, want)
	}

	large := make([]byte, 9<<20+1)
	_, _ = rand.Read(large)
	answer, err = client.Post("http://x/sum", "application/octet-stream", bytes.NewReader(large))
	must(t, err)
	_ = answer.Body.Close()
	if want := fmt.Sprintf("%x", sha256.Sum256(large)); answer.StatusCode != http.StatusTeapot || answer.Header.Get("Sum") != want {
		t.Errorf("a large body: status %d, sum %s; want 418, %s", answer.StatusCode, answer.Header.Get("Sum"), want)
	}

	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/stream", nil)
	must(t, err)
	answer, err = client.Do(request)
	must(t, err)
	got := make([]byte, 6)
	if _, err := io.ReadFull(answer.Body, got); err != nil || string(got) != "0\n1\n2\n" {
		t.Errorf("a stream begins with %q, %v; want three lines while it goes on", got, err)
	}
	cancel()
	_ = answer.Body.Close()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the member does not hear that the caller has gone")
	}

	dialer := dialerOf(socket)
	conn, response, err := dialer.DialContext(t.Context(), "ws://x/echo", nil)
	must(t, err)
	_ = response.Body.Close()
	defer conn.Close()
	for i := range 100 {
		sent := bytes.Repeat([]byte{byte(i)}, 1000*i)
		must(t, conn.WriteMessage(websocket.BinaryMessage, sent))
		_, received, err := conn.ReadMessage()
		if err != nil || !bytes.Equal(sent, received) {
			t.Fatalf("message %d over a websocket: %d bytes, %v; want %d", i, len(received), err, len(sent))
		}
	}
}

func TestAMemberThatNobodyKnows(t *testing.T) {
	ant, _ := pair(t, &fake{})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
	must(t, err)
	answer, err := ant.Transport("Cat", rest.Caller{Trust: rest.Full}).RoundTrip(request)
	if err == nil {
		_ = answer.Body.Close()
	}
	if !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a request to an unknown member: %v; want ErrNotFound", err)
	}
}

// Who closes a websocket as soon as everything is written loses nothing of it, although
// the other end has not read it yet.
func TestWhatWasSentBeforeTheEndArrives(t *testing.T) {
	const messages, size = 40, 4096
	arrived := make(chan int, 1)
	far := &fake{handler: func(w http.ResponseWriter, r *http.Request, _ rest.Caller) {
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		time.Sleep(5 * time.Millisecond) // it is not in a hurry
		total := 0
		for {
			_, data, err := conn.ReadMessage()
			if err != nil {
				arrived <- total
				return
			}
			total += len(data)
		}
	}}
	ant, _ := pair(t, far)
	socket := front(t, ant)
	dialer := dialerOf(socket)
	for range 10 {
		conn, response, err := dialer.DialContext(t.Context(), "ws://x/", nil)
		must(t, err)
		_ = response.Body.Close()
		for range messages {
			must(t, conn.WriteMessage(websocket.BinaryMessage, make([]byte, size)))
		}
		must(t, conn.Close())
		if got := <-arrived; got != messages*size {
			t.Fatalf("%d bytes arrived; want %d", got, messages*size)
		}
	}
}

// What a member says last arrives although the client talks on and reads slowly.
func TestLastWordsArrive(t *testing.T) {
	const messages, size = 60, 8192
	far := &fake{handler: func(w http.ResponseWriter, r *http.Request, _ rest.Caller) {
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for range messages {
			if conn.WriteMessage(websocket.BinaryMessage, make([]byte, size)) != nil {
				return
			}
		}
	}}
	ant, _ := pair(t, far)
	socket := front(t, ant)
	dialer := dialerOf(socket)
	for range 5 {
		conn, response, err := dialer.DialContext(t.Context(), "ws://x/", nil)
		must(t, err)
		_ = response.Body.Close()
		got := 0
		for {
			_, data, err := conn.ReadMessage()
			got += len(data)
			if err != nil {
				break
			}
			_ = conn.WriteMessage(websocket.TextMessage, []byte("still here"))
			time.Sleep(2 * time.Millisecond)
		}
		_ = conn.Close()
		if got != messages*size {
			t.Fatalf("%d bytes arrived; want %d", got, messages*size)
		}
	}
}

// A question to a member that is declared offline ends at once.
func TestHangUpOfCalls(t *testing.T) {
	ant, _ := pair(t, &fake{})
	ended := make(chan error, 1)
	go func() {
		_, err := ant.Revision(t.Context(), "bee", "silence")
		ended <- err
	}()
	deadline := time.After(30 * time.Second)
	for again := time.NewTicker(10 * time.Millisecond); ; {
		select {
		case err := <-ended:
			if !errors.Is(err, state.ErrUnavailable) {
				t.Errorf("a question to a member that was given up: %v; want ErrUnavailable", err)
			}
			return
		case <-again.C:
			ant.HangUp("bee") // it may not be under way yet
		case <-deadline:
			t.Fatal("a question to a member that was given up goes on")
		}
	}
}

// What a member that is declared offline asks for ends at once, too: nobody hears the
// answer.
func TestHangUpOfWhatIsCarriedHere(t *testing.T) {
	ended := make(chan struct{})
	far := &fake{handler: func(w http.ResponseWriter, r *http.Request, _ rest.Caller) {
		_, _ = io.WriteString(w, "one")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(ended)
	}}
	ant, bee, _ := both(t, far)
	answer, err := clientOf(front(t, ant)).Get("http://x/")
	must(t, err)
	defer answer.Body.Close()
	_, err = io.ReadFull(answer.Body, make([]byte, 3))
	must(t, err)
	bee.HangUpFrom("cat")
	bee.HangUpFrom("ant")
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("the request of a member that was given up goes on")
	}
}

// What is under way to a member that is declared offline ends at once.
func TestHangUp(t *testing.T) {
	far := &fake{handler: func(w http.ResponseWriter, r *http.Request, _ rest.Caller) {
		_, _ = io.WriteString(w, "one")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}}
	ant, _ := pair(t, far)
	answer, err := clientOf(front(t, ant)).Get("http://x/")
	must(t, err)
	defer answer.Body.Close()
	_, err = io.ReadFull(answer.Body, make([]byte, 3))
	must(t, err)
	ant.HangUp("cat")
	ant.HangUp("bee")
	if rest, err := io.ReadAll(answer.Body); err == nil {
		t.Errorf("after the member was given up the answer went on with %q and ended well", rest)
	}
}
