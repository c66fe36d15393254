package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"muster/cluster"
	"muster/cluster/coord"
	"muster/state"
)

// desk is a runner of operations on a real log, with a hub of events.
type desk struct {
	*cluster.Operations
	log    *coord.Node
	events *cluster.Events
}

func openDesk(t *testing.T) *desk {
	t.Helper()
	return openDeskIn(t, t.TempDir())
}

func openDeskIn(t *testing.T, dir string) *desk {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	log, err := coord.Open(t.Context(), coord.Config{Dir: dir, ID: "id-of-ant", Bootstrap: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	events := cluster.NewEvents(cluster.EventsConfig{Location: func() string { return "ant" }})
	t.Cleanup(events.Close)
	operations, err := cluster.NewOperations(cluster.OperationsConfig{
		Coord: log, Member: "id-of-ant", Events: events, Location: func(id string) string { return strings.TrimPrefix(id, "id-of-") },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(events.Follow(log, operations.View, func(id string) string { return strings.TrimPrefix(id, "id-of-") }))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := operations.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return &desk{operations, log, events}
}

func (d *desk) start(t *testing.T, spec cluster.OperationSpec, run func(context.Context, *cluster.Operation) error) cluster.OperationInfo {
	t.Helper()
	info, err := d.Start(t.Context(), spec, run)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func (d *desk) end(t *testing.T, id string) cluster.OperationInfo {
	t.Helper()
	ended, err := d.Wait(t.Context(), id, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if !ended.Final() {
		t.Fatalf("operation %s did not end: %+v", id, ended)
	}
	return ended
}

func TestHowOperationsEnd(t *testing.T) {
	d := openDesk(t)
	for name, tc := range map[string]struct {
		run    func(context.Context, *cluster.Operation) error
		cancel bool
		want   string
	}{
		"success":                            {func(context.Context, *cluster.Operation) error { return nil }, false, "200 Success "},
		"an error is its text":               {func(context.Context, *cluster.Operation) error { return errors.New("disk full") }, false, "400 Failure disk full"},
		"an error without text is a failure": {func(context.Context, *cluster.Operation) error { return errors.New("") }, false, "400 Failure unknown error"},
		"a panic is a failure":               {func(context.Context, *cluster.Operation) error { panic("oops") }, false, "400 Failure internal error: oops"},
		"cancelled": {func(ctx context.Context, _ *cluster.Operation) error {
			<-ctx.Done()
			return fmt.Errorf("copy: %w", ctx.Err())
		}, true, "401 Cancelled the operation was cancelled"},
		"cancelled too late": {func(ctx context.Context, _ *cluster.Operation) error {
			<-ctx.Done()
			return nil
		}, true, "200 Success "},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, endRequest := context.WithCancel(t.Context())
			info, err := d.Start(ctx, cluster.OperationSpec{
				Description: "Testing", Project: "default", MayCancel: tc.cancel, Metadata: map[string]any{"a": "b"},
				Resources: map[string][]string{"instances": {"/1.0/instances/c1"}},
			}, tc.run)
			endRequest() // the operation goes on without its request
			if err != nil {
				t.Fatal(err)
			}
			if info.Status != "Running" || coord.StatusCode(info.StatusCode) != coord.Running || info.Class != "task" || info.Location != "ant" {
				t.Errorf("started as %+v; want a running task at ant", info)
			}
			if tc.cancel {
				if err := d.Cancel(t.Context(), info.ID); err != nil {
					t.Fatal(err)
				}
			}
			ended := d.end(t, info.ID)
			if got := fmt.Sprintf("%d %s %s", ended.StatusCode, ended.Status, ended.Err); got != tc.want {
				t.Errorf("ended as %q; want %q", got, tc.want)
			}
			if ended.Metadata["a"] != "b" || ended.MayCancel || ended.UpdatedAt.Before(ended.CreatedAt) {
				t.Errorf("ended as %+v; want its metadata, and no cancelling", ended)
			}
			if err := d.Cancel(t.Context(), info.ID); !errors.Is(err, state.ErrConflict) {
				t.Errorf("cancelling after the end: %v; want ErrConflict", err)
			}
		})
	}
}

func TestRefusedRequests(t *testing.T) {
	d := openDesk(t)
	nothing := func(context.Context, *cluster.Operation) error { return nil }
	for name, tc := range map[string]struct {
		spec cluster.OperationSpec
		run  func(context.Context, *cluster.Operation) error
	}{
		"a class nobody knows":          {cluster.OperationSpec{Class: "hobby"}, nothing},
		"a task that does nothing":      {cluster.OperationSpec{}, nil},
		"sockets of a task":             {cluster.OperationSpec{Sockets: []string{"0"}}, nothing},
		"a websocket without sockets":   {cluster.OperationSpec{Class: coord.ClassWebsocket}, nothing},
		"two sockets of the same name ": {cluster.OperationSpec{Class: coord.ClassWebsocket, Sockets: []string{"0"}, OptionalSockets: []string{"0"}}, nothing},
	} {
		if _, err := d.Start(t.Context(), tc.spec, tc.run); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%s: %v; want ErrInvalid", name, err)
		}
	}
	if n := len(d.List("", true)); n != 0 {
		t.Errorf("%d operations were registered", n)
	}
	if _, err := d.Get("x"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("Get: %v; want ErrNotFound", err)
	}
	if _, err := d.Wait(t.Context(), "x", -1); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("Wait: %v; want ErrNotFound", err)
	}
	if err := d.Cancel(t.Context(), "x"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("Cancel: %v; want ErrNotFound", err)
	}
	stop := make(chan struct{})
	info := d.start(t, cluster.OperationSpec{}, func(context.Context, *cluster.Operation) error { <-stop; return nil })
	if err := d.Cancel(t.Context(), info.ID); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("cancelling what may not be cancelled: %v; want ErrInvalid", err)
	}
	if err := d.Finish(t.Context(), info.ID); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("finishing a task from outside: %v; want ErrInvalid", err)
	}
	if still, err := d.Wait(t.Context(), info.ID, 10*time.Millisecond); err != nil || still.Final() {
		t.Errorf("a short wait: %+v, %v; want it Running and no error", still, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Wait(gone, info.ID, -1); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("a wait given up: %v; want ErrUnavailable", err)
	}
	close(stop)
	d.end(t, info.ID)
}

func TestListsShowTheProjectAndTheServer(t *testing.T) {
	d := openDesk(t)
	nothing := func(context.Context, *cluster.Operation) error { return nil }
	for _, project := range []string{"default", "blue", ""} {
		info := d.start(t, cluster.OperationSpec{Description: "in " + project, Project: project}, nothing)
		d.end(t, info.ID) // finished ones are listed as well
	}
	list := func(project string, all bool) (found []string) {
		for _, op := range d.List(project, all) {
			found = append(found, op.Description)
		}
		return found
	}
	for _, tc := range []struct {
		got, want []string
	}{
		{list("", false), []string{"in default", "in "}},
		{list("blue", false), []string{"in blue", "in "}},
		{list("none", false), []string{"in "}},
		{list("", true), []string{"in default", "in blue", "in "}},
	} {
		if diff := cmp.Diff(tc.want, tc.got); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}
	}
}

func TestTokensLiveUntilTheyAreUsedOrCancelled(t *testing.T) {
	dir := t.TempDir()
	var used, kept string
	t.Run("before a restart", func(t *testing.T) {
		d := openDeskIn(t, dir)
		token := cluster.OperationSpec{Class: coord.ClassToken, Description: "Executing token", MayCancel: true, Metadata: map[string]any{"secret": "s3cr3t"}}
		used, kept = d.start(t, token, nil).ID, d.start(t, token, nil).ID
		if err := d.Finish(t.Context(), used); err != nil {
			t.Error(err)
		}
		if got := d.end(t, used); got.Status != "Success" {
			t.Errorf("a used token is %s", got.Status)
		}
		if d.Running() != 0 {
			t.Errorf("%d operations run; tokens do not count", d.Running())
		}
	})
	d := openDeskIn(t, dir)
	got, err := d.Get(kept)
	if err != nil || got.Status != "Running" || got.Metadata["secret"] != "s3cr3t" {
		t.Fatalf("after a restart the token is %+v, %v", got, err)
	}
	if err := d.Cancel(t.Context(), kept); err != nil {
		t.Error(err)
	}
	if got := d.end(t, kept); got.Status != "Cancelled" {
		t.Errorf("a cancelled token is %s", got.Status)
	}
	if err := d.Finish(t.Context(), kept); !errors.Is(err, state.ErrConflict) {
		t.Errorf("using a cancelled token: %v; want ErrConflict", err)
	}
}

// hear collects the operation events until the listener is closed.
func hear(t *testing.T, d *desk) (stop func() []cluster.OperationInfo) {
	t.Helper()
	l, err := d.events.Subscribe(cluster.Interest{Types: []string{cluster.EventOperation}, AllProjects: true})
	if err != nil {
		t.Fatal(err)
	}
	var heard []cluster.OperationInfo
	var group sync.WaitGroup
	group.Go(func() {
		for {
			event, err := l.Next(t.Context())
			if err != nil {
				return
			}
			var shown struct {
				Type, Location, Project string
				Metadata                cluster.OperationInfo
			}
			if err := json.Unmarshal(event.JSON(), &shown); err != nil || shown.Type != "operation" || shown.Location != "ant" {
				t.Errorf("event %s: %v", event.JSON(), err)
			}
			heard = append(heard, shown.Metadata)
		}
	})
	return func() []cluster.OperationInfo {
		l.Close()
		group.Wait()
		return heard
	}
}

// The stock client waits for the event that an operation has ended: each must
// come, once, after the start, and nothing after it.
func TestEveryEndIsHeard(t *testing.T) {
	d := openDesk(t)
	stop := hear(t, d)
	var group sync.WaitGroup
	const workers, each = 8, 25
	for range workers {
		group.Go(func() {
			for range each {
				info, err := d.Start(t.Context(), cluster.OperationSpec{}, func(_ context.Context, op *cluster.Operation) error {
					op.UpdateMetadata(map[string]any{"return": 0})
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				if ended, err := d.Wait(t.Context(), info.ID, -1); err != nil || ended.Metadata["return"] != 0.0 {
					t.Errorf("%+v, %v", ended, err)
				}
			}
		})
	}
	group.Wait()
	seen := map[string][]string{}
	for _, op := range stop() {
		seen[op.ID] = append(seen[op.ID], op.Status)
	}
	if len(seen) != workers*each {
		t.Errorf("heard of %d operations; want %d", len(seen), workers*each)
	}
	for id, statuses := range seen {
		if !slices.Equal(slices.Compact(statuses), []string{"Running", "Success"}) {
			t.Errorf("heard of %s: %v", id, statuses)
		}
	}
}

func TestProgressIsSeenAtOnceAndHeardNowAndThen(t *testing.T) {
	d := openDesk(t)
	stop := hear(t, d)
	step := make(chan int)
	info := d.start(t, cluster.OperationSpec{Metadata: map[string]any{"kept": "yes", "gone": "soon"}}, func(_ context.Context, op *cluster.Operation) error {
		for n := range step {
			op.UpdateMetadata(map[string]any{"progress": n, "gone": nil})
		}
		return nil
	})
	begun := time.Now()
	n := 0
	for ; time.Since(begun) < 1300*time.Millisecond; n++ {
		step <- n
		step <- n // the first has been laid over when the second is taken
		now, err := d.Get(info.ID)
		if err != nil || now.Metadata["progress"] != n || now.Metadata["kept"] != "yes" || now.Metadata["gone"] != nil {
			t.Fatalf("after %d: %+v, %v", n, now.Metadata, err)
		}
		time.Sleep(5 * time.Millisecond) // the pace of the work
	}
	applied := d.log.Applied()
	close(step)
	if ended := d.end(t, info.ID); ended.Metadata["progress"] != float64(n-1) || ended.Metadata["kept"] != "yes" {
		t.Errorf("ended with %v; want the last progress %d", ended.Metadata, n-1)
	}
	if grown := d.log.Applied() - applied; grown != 1 {
		t.Errorf("the end took %d entries; want one", grown)
	}
	heard := stop()
	if len(heard) < 4 || len(heard) > 7 {
		t.Errorf("heard %d events of %d steps in 1.3 s; want about two a second, the start and the end", len(heard), n)
	}
	if first, last := heard[0], heard[len(heard)-1]; first.Status != "Running" || first.Metadata["progress"] != nil || last.Status != "Success" {
		t.Errorf("heard first %+v, last %+v", first, last)
	}
}

// connect serves the claims of a desk over real websockets, as REST does.
func connect(t *testing.T, d *desk) func(id, secret string) (*websocket.Conn, error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claim, err := d.Claim(r.URL.Query().Get("id"), r.URL.Query().Get("secret"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			claim.Release()
			return
		}
		claim.Attach(conn)
		<-claim.Done()
	}))
	t.Cleanup(server.Close)
	return func(id, secret string) (*websocket.Conn, error) {
		conn, answer, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(server.URL, "http")+"?id="+id+"&secret="+secret, nil)
		if answer != nil && answer.Body != nil {
			answer.Body.Close()
		}
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return conn, err
	}
}

func secretsOf(t *testing.T, info cluster.OperationInfo) map[string]string {
	t.Helper()
	secrets, whole := info.Metadata["fds"].(map[string]string)
	if !whole {
		t.Fatalf("metadata %v; want fds", info.Metadata)
	}
	return secrets
}

func TestWebsocketsReachTheOperation(t *testing.T) {
	d := openDesk(t)
	dial := connect(t, d)
	stop := hear(t, d)
	spec := cluster.OperationSpec{Class: coord.ClassWebsocket, Sockets: []string{"0", "1"}, OptionalSockets: []string{"control"}}
	// Copies what comes on 0 to 1, and ends it as exec does.
	info := d.start(t, spec, func(ctx context.Context, op *cluster.Operation) error {
		sockets, err := op.Sockets(ctx)
		if err != nil {
			return err
		}
		for {
			kind, data, err := sockets["0"].ReadMessage()
			if err != nil {
				return err
			}
			if kind == cluster.SocketText && len(data) == 0 {
				return sockets["1"].WriteMessage(cluster.SocketText, nil)
			}
			if err := sockets["1"].WriteMessage(kind, data); err != nil {
				return err
			}
		}
	})
	secrets := secretsOf(t, info)
	if len(secrets) != 3 || len(secrets["0"]) != 64 || secrets["0"] == secrets["1"] {
		t.Errorf("secrets %v; want three of 64 characters", secrets)
	}
	if _, err := d.Claim(info.ID, "wrong"); !errors.Is(err, state.ErrForbidden) {
		t.Errorf("a wrong secret: %v; want ErrForbidden", err)
	}
	if _, err := d.Claim(info.ID, ""); !errors.Is(err, state.ErrForbidden) {
		t.Errorf("no secret: %v; want ErrForbidden", err)
	}
	if _, err := d.Claim("x", secrets["0"]); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("another operation: %v; want ErrNotFound", err)
	}
	released, err := d.Claim(info.ID, secrets["0"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Claim(info.ID, secrets["0"]); !errors.Is(err, state.ErrConflict) {
		t.Errorf("a socket claimed twice: %v; want ErrConflict", err)
	}
	released.Release()

	in, err := dial(info.ID, secrets["0"])
	if err != nil {
		t.Fatal(err)
	}
	out, err := dial(info.ID, secrets["1"])
	if err != nil {
		t.Fatal(err)
	}
	var sent, got int
	go func() {
		for range 200 {
			_ = in.WriteMessage(websocket.BinaryMessage, make([]byte, 10_000))
		}
		_ = in.WriteMessage(websocket.TextMessage, nil)
		// What comes after the end, unread, must not cost the output.
		for range 20 {
			_ = in.WriteMessage(websocket.BinaryMessage, make([]byte, 10_000))
		}
	}()
	sent = 200 * 10_000
	ended := false
	for {
		kind, data, err := out.ReadMessage()
		if err != nil {
			if !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
				t.Errorf("the stream broke: %v", err)
			}
			break
		}
		got += len(data)
		ended = kind == websocket.TextMessage && len(data) == 0
	}
	if got != sent || !ended {
		t.Errorf("received %d bytes, ended by an empty text: %v; want %d", got, ended, sent)
	}
	if final := d.end(t, info.ID); final.Status != "Success" || final.Metadata["fds"] != nil {
		t.Errorf("ended as %+v; want Success without secrets", final)
	}
	if _, err := d.Claim(info.ID, secrets["control"]); !errors.Is(err, state.ErrConflict) {
		t.Errorf("a socket of an operation that has ended: %v; want ErrConflict", err)
	}
	for _, event := range stop() {
		if event.Metadata["fds"] != nil {
			t.Errorf("an event tells the secrets: %v", event.Metadata)
		}
	}
	registered, _ := d.log.Operation(info.ID)
	if strings.Contains(string(registered.Metadata), secrets["0"]) {
		t.Error("the log holds a secret")
	}
}

func TestAWebsocketOperationThatNobodyConnectsFails(t *testing.T) {
	d := openDesk(t)
	begun := time.Now()
	info := d.start(t, cluster.OperationSpec{Class: coord.ClassWebsocket, Sockets: []string{"0", "1"}, ConnectTimeout: 100 * time.Millisecond},
		func(ctx context.Context, op *cluster.Operation) error {
			_, err := op.Sockets(ctx)
			return err
		})
	claim, err := d.Claim(info.ID, secretsOf(t, info)["0"]) // claims, and never comes
	if err != nil {
		t.Fatal(err)
	}
	ended := d.end(t, info.ID)
	if ended.Status != "Failure" || !strings.Contains(ended.Err, `nobody connected the websocket "0" within 100ms`) {
		t.Errorf("ended as %s %q", ended.Status, ended.Err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	late := &fakeSocket{}
	claim.Attach(late)
	<-claim.Done()
	if !late.closed {
		t.Error("a socket that came too late stays open")
	}
}

type fakeSocket struct{ closed bool }

func (f *fakeSocket) ReadMessage() (int, []byte, error) { return 0, nil, io.EOF }
func (f *fakeSocket) WriteMessage(int, []byte) error    { return nil }
func (f *fakeSocket) SetReadDeadline(time.Time) error   { return nil }
func (f *fakeSocket) SetWriteDeadline(time.Time) error  { return nil }
func (f *fakeSocket) Close() error                      { f.closed = true; return nil }

func TestCancellingReachesAnOperationThatHangsOnItsClient(t *testing.T) {
	d := openDesk(t)
	dial := connect(t, d)
	info := d.start(t, cluster.OperationSpec{Class: coord.ClassWebsocket, Sockets: []string{"0"}, MayCancel: true},
		func(ctx context.Context, op *cluster.Operation) error {
			sockets, err := op.Sockets(ctx)
			for err == nil { // the client reads nothing
				err = sockets["0"].WriteMessage(cluster.SocketBinary, make([]byte, 1<<20))
			}
			return err
		})
	if _, err := dial(info.ID, secretsOf(t, info)["0"]); err != nil {
		t.Fatal(err)
	}
	if err := d.Cancel(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	if ended := d.end(t, info.ID); ended.Status != "Cancelled" {
		t.Errorf("ended as %s %q; want Cancelled", ended.Status, ended.Err)
	}
}

func TestCloseEndsWhatRuns(t *testing.T) {
	d := openDesk(t)
	task := d.start(t, cluster.OperationSpec{}, func(ctx context.Context, _ *cluster.Operation) error {
		<-ctx.Done()
		return ctx.Err()
	})
	session := d.start(t, cluster.OperationSpec{Class: coord.ClassWebsocket, Sockets: []string{"0"}, ConnectTimeout: time.Hour},
		func(ctx context.Context, op *cluster.Operation) error {
			_, err := op.Sockets(ctx)
			return err
		})
	soon := make(chan struct{})
	patient := d.start(t, cluster.OperationSpec{}, func(context.Context, *cluster.Operation) error { <-soon; return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	go func() {
		_, _ = d.Wait(ctx, session.ID, -1)
		close(soon)
	}()
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{
		task.ID: "Failure the daemon is shutting down", session.ID: "Failure the daemon is shutting down", patient.ID: "Success ",
	} {
		if got, err := d.Get(id); err != nil || got.Status+" "+got.Err != want {
			t.Errorf("%s %s, %v; want %s", got.Status, got.Err, err, want)
		}
	}
	if _, err := d.Start(t.Context(), cluster.OperationSpec{}, func(context.Context, *cluster.Operation) error { return nil }); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("starting after Close: %v; want ErrUnavailable", err)
	}
	if err := d.Close(ctx); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func BenchmarkOperation(b *testing.B) {
	log, err := coord.Open(b.Context(), coord.Config{Dir: b.TempDir(), ID: "ant", Bootstrap: true})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	operations, err := cluster.NewOperations(cluster.OperationsConfig{Coord: log, Member: "ant"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		info, err := operations.Start(b.Context(), cluster.OperationSpec{Description: "Testing"}, func(context.Context, *cluster.Operation) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		if _, err := operations.Wait(b.Context(), info.ID, -1); err != nil {
			b.Fatal(err)
		}
	}
}
