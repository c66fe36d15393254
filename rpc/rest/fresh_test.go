package rest

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/state"
)

// testLog is a log whose leader has got further than this member, until it is asked.
type testLog struct {
	position, newest, asked atomic.Uint64
	silent                  atomic.Bool
}

func (l *testLog) log() Log {
	return Log{
		Fresh: func(context.Context) error {
			l.asked.Add(1)
			if l.silent.Load() {
				return state.Errorf(state.ErrUnavailable, "no leader")
			}
			l.position.Store(l.newest.Load())
			return nil
		},
		Position: l.position.Load,
		Wait: func(ctx context.Context, position uint64) error {
			if position > l.newest.Load() {
				<-ctx.Done()
				return state.Errorf(state.ErrUnavailable, "not here in time")
			}
			l.position.Store(max(l.position.Load(), position))
			return nil
		},
		Stale: func() time.Duration {
			if l.silent.Load() {
				return 7 * time.Second
			}
			return 0
		},
	}
}

// Each request is answered by state that is as new as when it came, unless it asks for
// less; without a leader an answer says how old it may be, and a thing that is not here
// is not said not to exist.
func TestRequestsAreAnsweredByFreshState(t *testing.T) {
	var logs, registry testLog
	cfg := bare()
	cfg.State, cfg.Registry = logs.log(), registry.log()
	thing := func(*http.Request) (any, error) {
		if logs.position.Load() < 5 {
			return nil, state.Errorf(state.ErrNotFound, "thing not found")
		}
		return logs.position.Load(), nil
	}
	c := serveUnix(t, wrapped(t, cfg, map[string]route{
		"GET /1.0/thing":      {handle: thing},
		"PUT /1.0/thing":      {handle: thing},
		"GET /1.0/work":       {handle: answering("w", nil), registry: true},
		"GET /internal/thing": {handle: answering("i", nil)},
		"PUT /1.0/tagged":     {handle: answering(nil, errStale)},
	}))
	logs.newest.Store(4)
	for _, step := range []struct {
		name, line      string
		newest          uint64
		silent          bool
		status          int
		says, stale     string
		asked, registry uint64
	}{
		{name: "what does not exist is asked for once", line: "GET /1.0/thing", newest: 4, status: 404, says: "thing not found", asked: 1},
		{name: "what was made elsewhere", line: "GET /1.0/thing", newest: 5, status: 200, asked: 1},
		{name: "a change", line: "PUT /1.0/thing", newest: 6, status: 200, asked: 1},
		{name: "a reader that takes what there is", line: "GET /1.0/thing?stale=1", newest: 7, status: 200},
		{name: "a change that says so is fresh all the same", line: "PUT /1.0/thing?stale=1", newest: 7, status: 200, asked: 1},
		{name: "operations are in both logs", line: "GET /1.0/work", newest: 7, status: 200, asked: 1, registry: 1},
		{name: "what is between the daemon and its own commands", line: "GET /internal/thing", newest: 7, status: 200},
		{name: "without a leader", line: "GET /1.0/thing", newest: 7, silent: true, status: 200, stale: "7", asked: 1},
		{name: "without a leader, for who takes what there is", line: "GET /1.0/thing?stale=1", silent: true, status: 200, stale: "7"},
		{name: "a change without a leader says nothing of its age", line: "PUT /1.0/thing", silent: true, status: 200, asked: 1},
		{name: "an ETag without a leader", line: "PUT /1.0/tagged", silent: true, status: 503, says: "nobody can say", asked: 1},
		{name: "with a leader again", line: "PUT /1.0/tagged", status: 412, says: "ETag", asked: 1},
	} {
		t.Run(step.name, func(t *testing.T) {
			c := *c
			c.t = t
			logs.newest.Store(max(step.newest, logs.newest.Load()))
			logs.silent.Store(step.silent)
			logs.asked.Store(0)
			registry.asked.Store(0)
			got := c.do(step.line, "{}")
			if got.status != step.status || !strings.Contains(got.Error, step.says) {
				t.Errorf("%s: %d %q; want %d %q", step.line, got.status, got.Error, step.status, step.says)
			}
			if stale := got.http.Header.Get("Muster-Stale"); stale != step.stale {
				t.Errorf("%s: Muster-Stale is %q; want %q", step.line, stale, step.stale)
			}
			if logs.asked.Load() != step.asked || registry.asked.Load() != step.registry {
				t.Errorf("%s: asked %d times, of operations %d; want %d and %d", step.line, logs.asked.Load(), registry.asked.Load(), step.asked, step.registry)
			}
		})
	}
	logs.silent.Store(true)
	logs.position.Store(0)
	c.refused("GET /1.0/thing", "", 503, "thing not found here, and nobody can say whether that is so elsewhere")
	c.refused("GET /1.0/thing?stale=1", "", 404, "thing not found")
}

// A request that is passed on is asked for once, by the member that got it; the other
// answers as far as that one is, and a change is shown where it was asked for before it
// is answered.
func TestAPassedOnRequestAsksOnce(t *testing.T) {
	var ant, bee, beeRegistry testLog
	members := map[string]*Server{}
	for name, log := range map[string]*testLog{"ant": &ant, "bee": &bee} {
		cfg := bare()
		cfg.Placement, cfg.Peers = ownership{name, map[string]string{"instance default/c1": "bee"}}, wire{t, members}
		cfg.State, cfg.RequestTimeout = log.log(), time.Minute
		if name == "bee" {
			cfg.Registry = beeRegistry.log()
		}
		members[name] = wrapped(t, cfg, map[string]route{
			"GET /1.0/instances/{name}": {on: instanceOwner, handle: func(*http.Request) (any, error) { return bee.position.Load(), nil }},
			"PUT /1.0/instances/{name}": {on: instanceOwner, handle: func(*http.Request) (any, error) {
				// It makes revision 9, which has not arrived at ant.
				bee.newest.Store(9)
				bee.position.Store(9)
				ant.newest.Store(9)
				return nil, nil
			}},
		})
	}
	c := serveUnix(t, members["ant"])
	ant.newest.Store(5)
	bee.newest.Store(8)
	var shown uint64
	got := c.must("GET /1.0/instances/c1", "", &shown)
	if shown != 5 || bee.asked.Load() != 0 || ant.asked.Load() != 1 {
		t.Errorf("bee answered as of %d and asked %d times, ant %d; want 5, 0 and 1", shown, bee.asked.Load(), ant.asked.Load())
	}
	if got.http.Header.Get(RevisionHeader) != "" || got.http.Header.Get(staleHeader) != "" {
		t.Errorf("the answer's headers are %v", got.http.Header)
	}
	c.must("PUT /1.0/instances/c1", "{}", nil)
	if ant.position.Load() != 9 || bee.asked.Load() != 0 {
		t.Errorf("a change was answered when ant was at %d; want 9", ant.position.Load())
	}
	ant.silent.Store(true)
	if got := c.must("GET /1.0/instances/c1", "", nil); got.http.Header.Get(staleHeader) != "7" {
		t.Errorf("without a leader the answer that bee made says Muster-Stale: %q; want 7", got.http.Header.Get(staleHeader))
	}
	// bee lags: a read shows what there is and says so, a change is refused.
	ant.silent.Store(false)
	ant.newest.Store(20)
	if got := c.must("GET /1.0/instances/c1", "", nil); got.http.Header.Get(staleHeader) == "" {
		t.Error("bee answers as of 9 what ant asked as of 20, and does not say so")
	}
	c.refused("PUT /1.0/instances/c1", "{}", 503, "not here in time")
}
