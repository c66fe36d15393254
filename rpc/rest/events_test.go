package rest

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// nextEvent reads the next event that matches.
func nextEvent(t *testing.T, conn *websocket.Conn, match func(api.Event) bool) api.Event {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil {
			t.Fatalf("waiting for an event: %v", err)
		}
		var event api.Event
		if err := json.Unmarshal(message, &event); err != nil || kind != websocket.TextMessage {
			t.Fatalf("frame %d %q: %v; want an event as text", kind, message, err)
		}
		if match(event) {
			return event
		}
	}
}

func listen(t *testing.T, c *caller, query string) *websocket.Conn {
	t.Helper()
	conn, refusal := c.websocket("/1.0/events"+query, nil)
	if refusal != "" {
		t.Fatalf("events%s: %s", query, refusal)
	}
	return conn
}

func TestEvents(t *testing.T) {
	x := newRealm(t)
	conn := listen(t, x.local, "")
	x.local.must("POST /1.0/profiles", `{"name": "web"}`, nil)
	var life api.EventLifecycle
	event := nextEvent(t, conn, func(e api.Event) bool { return e.Type == "lifecycle" })
	if err := json.Unmarshal(event.Metadata, &life); err != nil {
		t.Fatal(err)
	}
	if life.Action != "profile-created" || life.Source != "/1.0/profiles/web" || event.Project != "default" || event.Location == "" {
		t.Errorf("event %+v with %+v; want profile-created of /1.0/profiles/web in default", event, life)
	}
	if life.Requestor == nil || life.Requestor.Protocol != "unix" || life.Requestor.Username == "" || life.Requestor.Address != "@" {
		t.Errorf("requestor %+v; want the local user", life.Requestor)
	}

	deleted := x.local.must("DELETE /1.0/profiles/web", "", nil)
	var op api.Operation
	nextEvent(t, conn, func(e api.Event) bool {
		if e.Type != "operation" {
			return false
		}
		if err := json.Unmarshal(e.Metadata, &op); err != nil {
			t.Fatal(err)
		}
		return strings.HasSuffix(deleted.Operation, op.ID) && op.StatusCode.Final()
	})
	if op.Status != "Success" {
		t.Errorf("final event of the deletion: %+v; want Success", op)
	}
}

func TestEventsOfOneType(t *testing.T) {
	x := newRealm(t)
	conn := listen(t, x.local, "?type=logging")
	x.local.must("POST /1.0/profiles", `{"name": "web"}`, nil)
	slog.New(x.events.LogHandler(slog.DiscardHandler)).Warn("the cat is out", "bag", 7)
	event := nextEvent(t, conn, func(api.Event) bool { return true })
	var line api.EventLogging
	if err := json.Unmarshal(event.Metadata, &line); err != nil {
		t.Fatal(err)
	}
	if event.Type != "logging" || line.Message != "the cat is out" || line.Level != "warning" && line.Level != "warn" || line.Context["bag"] != "7" {
		t.Errorf("event %+v with %+v; want the cat, first", event, line)
	}
	if _, refusal := x.local.websocket("/1.0/events?type=weather", nil); !strings.Contains(refusal, "weather") {
		t.Errorf("an unknown type: %q; want a refusal that names it", refusal)
	}
}

func TestEventsOfOneProject(t *testing.T) {
	x := newRealm(t)
	_, err := x.store.Apply(t.Context(), store.CreateProject{Project: state.Project{Name: "other"}})
	x.must(err)
	tenant := x.trust(state.Certificate{Name: "tenant", Restricted: true, Projects: []string{"other"}})
	for name, conn := range map[string]*websocket.Conn{
		"asking for the project":           listen(t, x.local, "?type=lifecycle&project=other"),
		"restricted to it, asking for all": listen(t, tenant, "?type=lifecycle&all-projects=true"),
		"restricted to it, naming it":      listen(t, tenant, "?project=other"),
	} {
		x.local.must("POST /1.0/profiles", `{"name": "a`+strings.ReplaceAll(name[len(name)-3:], " ", "")+`"}`, nil)
		x.local.must("POST /1.0/profiles?project=other", `{"name": "b`+strings.ReplaceAll(name[len(name)-3:], " ", "")+`"}`, nil)
		event := nextEvent(t, conn, func(e api.Event) bool {
			return e.Type == "lifecycle" && strings.Contains(string(e.Metadata), "profile-created")
		})
		if event.Project != "other" {
			t.Errorf("%s: first event %+v; want one of project other", name, event)
		}
	}
	conn := listen(t, x.local, "?type=lifecycle&all-projects=true")
	x.local.must("POST /1.0/profiles?project=other", `{"name": "c"}`, nil)
	nextEvent(t, conn, func(e api.Event) bool { return e.Project == "other" })
	if _, refusal := tenant.websocket("/1.0/events", nil); !strings.Contains(refusal, "may not use project") {
		t.Errorf("a tenant listening to project default: %q; want a refusal", refusal)
	}
}

// A listener must not miss what happens after it is connected, however soon.
func TestAListenerMissesNothingOnceConnected(t *testing.T) {
	x := newRealm(t)
	for range 20 {
		conn := listen(t, x.local, "?type=operation")
		x.local.must("POST /1.0/profiles", `{"name": "web"}`, nil)
		deleted := x.local.must("DELETE /1.0/profiles/web", "", nil)
		nextEvent(t, conn, func(e api.Event) bool {
			var op api.Operation
			if err := json.Unmarshal(e.Metadata, &op); err != nil {
				t.Fatal(err)
			}
			return strings.HasSuffix(deleted.Operation, op.ID) && op.StatusCode.Final()
		})
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
