package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/cluster"
	"muster/state"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func listen(t *testing.T, hub *cluster.Events, interest cluster.Interest) *cluster.Listener {
	t.Helper()
	l, err := hub.Subscribe(interest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// sources returns what is queued for a listener, once the hub is closed.
func sources(t *testing.T, l *cluster.Listener) []string {
	t.Helper()
	var found []string
	for {
		event, err := l.Next(t.Context())
		if err != nil {
			if !errors.Is(err, state.ErrUnavailable) {
				t.Errorf("the end: %v; want ErrUnavailable", err)
			}
			return found
		}
		var shown struct {
			Metadata struct{ Source, Message string }
		}
		if err := json.Unmarshal(event.JSON(), &shown); err != nil {
			t.Fatal(err)
		}
		found = append(found, shown.Metadata.Source+shown.Metadata.Message)
	}
}

func TestListenersHearWhatTheyAskedFor(t *testing.T) {
	hub := cluster.NewEvents(cluster.EventsConfig{})
	logger := slog.New(hub.LogHandler(slog.DiscardHandler))
	interests := map[string]struct {
		interest cluster.Interest
		want     []string
	}{
		"one project and the server": {cluster.Interest{Types: []string{"lifecycle"}, Project: "blue"}, []string{"b", "server"}},
		"no project is the default":  {cluster.Interest{Types: []string{"lifecycle"}}, []string{"d", "server"}},
		"all projects":               {cluster.Interest{Types: []string{"lifecycle"}, AllProjects: true}, []string{"d", "b", "server"}},
		"all that one may see": {cluster.Interest{
			Types: []string{"lifecycle"}, AllProjects: true, Allowed: func(p string) bool { return p == "blue" },
		}, []string{"b"}},
		"logging has no project": {cluster.Interest{Types: []string{"logging"}, Project: "blue"}, []string{"hello"}},
		"everything":             {cluster.Interest{AllProjects: true}, []string{"d", "b", "server", "hello"}},
		"operations alone":       {cluster.Interest{Types: []string{"operation"}}, nil},
	}
	listeners := map[string]*cluster.Listener{}
	for name, tc := range interests {
		listeners[name] = listen(t, hub, tc.interest)
	}
	hub.Lifecycle(noon, "", "default", 0, cluster.Lifecycle{Action: "instance-started", Source: "d"})
	hub.Lifecycle(noon, "", "blue", 0, cluster.Lifecycle{Action: "instance-started", Source: "b"})
	hub.Lifecycle(noon, "", "", 0, cluster.Lifecycle{Action: "certificate-created", Source: "server"})
	logger.Debug("hello")
	hub.Close()
	hub.Lifecycle(noon, "", "", 0, cluster.Lifecycle{Source: "too late"})
	for name, tc := range interests {
		if diff := cmp.Diff(tc.want, sources(t, listeners[name])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := hub.Subscribe(cluster.Interest{}); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("listening to a closed hub: %v; want ErrUnavailable", err)
	}
	if _, err := hub.Subscribe(cluster.Interest{Types: []string{"gossip"}}); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("listening to gossip: %v; want ErrInvalid", err)
	}
}

func TestEventsLookLikeLXDs(t *testing.T) {
	hub := cluster.NewEvents(cluster.EventsConfig{Location: func() string { return "ant" }})
	l := listen(t, hub, cluster.Interest{})
	hub.Lifecycle(noon, "", "default", 0, cluster.Lifecycle{
		Action: "instance-started", Source: "/1.0/instances/c1", Context: map[string]any{"x": 1},
		Requestor: &cluster.Requestor{Username: "abc", Protocol: "tls", Address: "10.0.0.1:5"},
	})
	slog.New(hub.LogHandler(slog.DiscardHandler)).With("instance", "c1").WithGroup("net").Warn("slow", "after", time.Second, slog.Group("peer", "name", "bee"))
	hub.Lifecycle(noon, "", "", 0, cluster.Lifecycle{Context: map[string]any{"cannot": func() {}}})
	for _, want := range []string{
		`{"type":"lifecycle","timestamp":"2026-11-21T12:00:00Z","metadata":{"action":"instance-started","source":"/1.0/instances/c1","context":{"x":1},"requestor":{"username":"abc","protocol":"tls","address":"10.0.0.1:5"}},"location":"ant","project":"default"}`,
		`{"type":"logging","timestamp":"*","metadata":{"message":"slow","level":"warning","context":{"instance":"c1","net.after":"1s","net.peer.name":"bee"}},"location":"ant"}`,
		`{"type":"lifecycle","timestamp":"2026-11-21T12:00:00Z","metadata":{"error":"json: unsupported type: func()"},"location":"ant"}`,
	} {
		event, err := l.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := string(event.JSON())
		if event.Type == cluster.EventLogging {
			got = strings.Replace(got, event.Timestamp.Format(time.RFC3339Nano), "*", 1)
		}
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

func TestASlowListenerLosesItselfAndNothingElse(t *testing.T) {
	hub := cluster.NewEvents(cluster.EventsConfig{MaxBehind: 100})
	slow, quick := listen(t, hub, cluster.Interest{}), listen(t, hub, cluster.Interest{})
	for n := range 250 {
		hub.Lifecycle(noon, "", "", 0, cluster.Lifecycle{Source: fmt.Sprint(n)})
		event, err := quick.Next(t.Context())
		if err != nil || !strings.Contains(string(event.JSON()), fmt.Sprintf(`"source":"%d"`, n)) {
			t.Fatalf("event %d: %v", n, err)
		}
	}
	event, err := slow.Next(t.Context())
	if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "100 events behind") {
		t.Errorf("the slow one got %v, %v; want to be told that it is behind", event, err)
	}
	slow.Close()
	slow.Close()
	if _, err := slow.Next(t.Context()); err == nil {
		t.Error("a closed listener hears")
	}
}

func TestListenersHearTheSameOrder(t *testing.T) {
	hub := cluster.NewEvents(cluster.EventsConfig{})
	one, two := listen(t, hub, cluster.Interest{}), listen(t, hub, cluster.Interest{})
	var senders, hearers sync.WaitGroup
	for w := range 8 {
		senders.Go(func() {
			for n := range 100 {
				hub.Lifecycle(noon, "", "", 0, cluster.Lifecycle{Source: fmt.Sprint(w, " ", n)})
			}
		})
	}
	heard := make([][]string, 2)
	for i, l := range []*cluster.Listener{one, two} {
		hearers.Go(func() { heard[i] = sources(t, l) })
	}
	senders.Wait()
	hub.Close() // what is queued is still heard
	hearers.Wait()
	if len(heard[0]) != 800 || !slices.Equal(heard[0], heard[1]) {
		t.Errorf("one heard %d events, the other %d; want 800 in the same order", len(heard[0]), len(heard[1]))
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	hub := cluster.NewEvents(cluster.EventsConfig{})
	l := listen(t, hub, cluster.Interest{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v; want the deadline", err)
	}
}

func TestDebugMessagesGoToListenersOnly(t *testing.T) {
	hub := cluster.NewEvents(cluster.EventsConfig{})
	var file bytes.Buffer
	logger := slog.New(hub.LogHandler(slog.NewTextHandler(&file, &slog.HandlerOptions{Level: slog.LevelInfo}))).With("a", 1)
	if logger.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug is on though nobody listens")
	}
	l := listen(t, hub, cluster.Interest{Types: []string{cluster.EventLogging}})
	logger.Debug("for listeners")
	logger.Info("for both")
	l.Close()
	if logger.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug stays on after the listener has gone")
	}
	logger.Debug("for nobody")
	if got := file.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `msg="for both" a=1`) {
		t.Errorf("the log has %q", got)
	}
	var heard []string
	for range 2 {
		event, err := l.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		heard = append(heard, string(event.JSON()))
	}
	if !strings.Contains(heard[0], "for listeners") || !strings.Contains(heard[1], "for both") {
		t.Errorf("heard %v", heard)
	}
}

func BenchmarkLifecycle(b *testing.B) {
	hub := cluster.NewEvents(cluster.EventsConfig{MaxBehind: 1 << 30})
	for range 10 {
		if _, err := hub.Subscribe(cluster.Interest{}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		hub.Lifecycle(noon, "", "", 0, cluster.Lifecycle{Source: "/1.0/instances/c1"})
	}
}
