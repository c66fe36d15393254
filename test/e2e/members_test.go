package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"muster/test/lab"
)

// trio is a cluster of three, each in a network of its own.
func trio(t *testing.T) []*lab.Member {
	t.Helper()
	return members(t, 3)
}

// members is a cluster of so many, each in a network of its own, with a pool and a
// network that every one of them has.
func members(t *testing.T, count int) []*lab.Member {
	t.Helper()
	members := lab.ClusterOf(t, count, lab.Options{Network: lab.NewNetwork(t)})
	var online []string
	for i := range members {
		online = append(online, fmt.Sprintf("m%d Online", i+1))
	}
	for _, m := range members {
		status(t, m, online...)
	}
	eventually(t, func() string {
		var pools, networks []struct{ Name, Status string }
		for path, list := range map[string]*[]struct{ Name, Status string }{"/1.0/storage-pools?recursion=1": &pools, "/1.0/networks?recursion=1&filter=managed eq true": &networks} {
			if err := members[0].Get(t.Context(), strings.ReplaceAll(path, " ", "%20"), list); err != nil {
				return err.Error()
			}
		}
		for _, one := range append(pools, networks...) {
			if one.Status != "Created" {
				return one.Name + " is " + one.Status
			}
		}
		return ""
	})
	return members
}

// Of any number of members that make the same at once one does.
func TestOneNameIsTakenOnce(t *testing.T) {
	members := trio(t)
	for round := range 10 {
		name := fmt.Sprintf("n%d", round)
		codes := make([]int, len(members))
		var creating sync.WaitGroup
		for i, m := range members {
			creating.Go(func() {
				answer, err := m.Request(context.WithoutCancel(t.Context()), http.MethodPost, "/1.0/instances", map[string]any{"name": name, "source": map[string]any{"type": "none"}}, nil)
				if err != nil {
					t.Error(err)
				}
				codes[i] = answer.Code
				if answer.Code != http.StatusAccepted && answer.Code != http.StatusConflict {
					t.Errorf("through m%d: %d %s", i+1, answer.Code, answer.Error)
				}
			})
		}
		creating.Wait()
		slices.Sort(codes)
		if diff := cmp.Diff([]int{http.StatusAccepted, http.StatusConflict, http.StatusConflict}, codes); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

// Many instances that are made through all members at once are spread evenly, and no
// member takes more than it has room for.
func TestManyInstancesAtOnce(t *testing.T) {
	members := trio(t)
	const many = 200
	var creating sync.WaitGroup
	for i := range many {
		creating.Go(func() {
			body := map[string]any{"name": fmt.Sprintf("x%d", i), "source": map[string]any{"type": "none"}}
			if _, err := members[i%3].Do(context.WithoutCancel(t.Context()), http.MethodPost, "/1.0/instances", body); err != nil {
				t.Error(err)
			}
		})
	}
	creating.Wait()
	var shown []struct{ Location string }
	if err := members[0].Get(t.Context(), "/1.0/instances?recursion=1", &shown); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, inst := range shown {
		count[inst.Location]++
	}
	t.Logf("spread: %v", count)
	for name, n := range count {
		if n < many/3-many/30 || n > many/3+many/30+1 {
			t.Errorf("%s has %d of %d instances; want a third within a tenth", name, n, many)
		}
	}
	if len(shown) != many {
		t.Errorf("%d instances exist; want %d", len(shown), many)
	}

	// What is left of a member's room is given away once, however many ask at once.
	var resources struct {
		Memory struct{ Total int64 }
	}
	if err := members[0].Get(t.Context(), "/1.0/resources", &resources); err != nil {
		t.Fatal(err)
	}
	big := fmt.Sprint(resources.Memory.Total * 6 / 10) // two fit into one and a half
	var mu sync.Mutex
	made := 0
	for i := range 12 {
		creating.Go(func() {
			body := map[string]any{"name": fmt.Sprintf("big%d", i), "source": map[string]any{"type": "none"}, "config": map[string]string{"limits.memory": big}}
			_, err := members[i%3].Do(context.WithoutCancel(t.Context()), http.MethodPost, "/1.0/instances?target=m2", body)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case !strings.Contains(err.Error(), "409") || !strings.Contains(err.Error(), "short of memory"):
				t.Errorf("an instance too many: %v", err)
			}
		})
	}
	creating.Wait()
	if made > 2 || made == 0 {
		t.Errorf("%d instances of 60 %% of the memory were made on one member; want at most 2", made)
	}
}

// Who waits for something that a member does learns that the member is gone.
func TestTheOwnerDies(t *testing.T) {
	members := trio(t)
	first, second, third := members[0], members[1], members[2]
	first.Busybox()
	first.Run("lxc", "launch", "local:busybox", "local:c1", "--target", "m1")
	answer, err := second.Request(t.Context(), http.MethodPost, "/1.0/instances/c1/exec", map[string]any{"command": []string{"sleep", "600"}, "record-output": true}, nil)
	if err != nil || answer.Code != http.StatusAccepted {
		t.Fatalf("exec: %d %q, %v", answer.Code, answer.Error, err)
	}
	var op struct{ ID, Location, Status, Err string }
	if err := json.Unmarshal(answer.Metadata, &op); err != nil {
		t.Fatal(err)
	}
	if op.Location != "m1" {
		t.Errorf("the operation is on %q; want m1", op.Location)
	}
	cli := third.Command("lxc", "exec", "local:c1", "--", "sleep", "600")
	if err := cli.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cli.Wait() }()
	type waited struct {
		status, err string
		took        time.Duration
		failed      error
	}
	waits := make(chan waited, 2)
	var killed time.Time
	var mu sync.Mutex
	for _, m := range []*lab.Member{second, third} {
		go func() {
			var shown struct{ Status, Err string }
			err := m.Get(context.WithoutCancel(t.Context()), "/1.0/operations/"+op.ID+"/wait", &shown)
			mu.Lock()
			defer mu.Unlock()
			waits <- waited{shown.Status, shown.Err, time.Since(killed), err}
		}()
	}
	time.Sleep(500 * time.Millisecond)
	mu.Lock()
	first.Kill()
	killed = time.Now()
	mu.Unlock()
	for range 2 {
		select {
		case w := <-waits:
			if w.failed != nil || (w.status != "Failure" || !strings.Contains(w.err, "offline")) {
				t.Errorf("the waiter got %q %q", w.status, w.err)
			}
			t.Logf("a waiter knew after %v: %q %q %v", w.took, w.status, w.err, w.failed)
		case <-time.After(20 * time.Second):
			t.Fatal("a waiter hangs")
		}
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("lxc exec ended well though its member died")
		}
	case <-time.After(20 * time.Second):
		t.Error("lxc exec hangs")
		_ = cli.Process.Kill()
		<-ended //nolint:errcheck // it was killed
	}
	eventually(t, func() string {
		if err := second.Get(t.Context(), "/1.0/operations/"+op.ID, &op); err != nil {
			return err.Error()
		}
		if op.Status != "Failure" {
			return "the operation is " + op.Status
		}
		return ""
	})
	first.Up()
	eventually(t, func() string {
		if out := second.Run("lxc", "list", "local:c1", "--format=csv", "-c", "s"); out != "RUNNING\n" {
			return "the instance is " + out
		}
		return ""
	})
}

// Who waits for something of a member that falls silent hears when it is declared
// offline, and not when the connection to it is found dead.
func TestTheOwnerFallsSilent(t *testing.T) {
	members := trio(t)
	first, third := members[0], members[2]
	first.Busybox()
	first.Run("lxc", "launch", "local:busybox", "local:c1", "--target", "m1")
	cli := third.Command("lxc", "exec", "local:c1", "--", "sleep", "600")
	if err := cli.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cli.Wait() }()
	eventually(t, func() string {
		if out := third.Run("lxc", "exec", "local:c1", "--", "ps"); !strings.Contains(out, "sleep 600") {
			return "the command does not run"
		}
		return ""
	})
	first.Pause()
	began := time.Now()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("lxc exec ended well though its member fell silent")
		}
		t.Logf("lxc exec ended after %v", time.Since(began).Round(time.Millisecond))
	case <-time.After(9 * time.Second):
		t.Error("lxc exec waits for a member that is offline")
		_ = cli.Process.Kill()
		<-ended //nolint:errcheck // it was killed
	}
	first.Resume()
}

// listener hears the events of one member.
type listener struct {
	conn *websocket.Conn
	done chan struct{}
	mu   sync.Mutex
	// heard are the events, each as one line, and newest is the newest revision among
	// them; both are guarded by mu.
	heard  []string
	newest int64
}

// dialSocket connects to a websocket of the member.
func dialSocket(t *testing.T, m *lab.Member, path string) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", m.Socket())
	}}
	conn, answer, err := dialer.DialContext(t.Context(), "ws://muster"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close() // the connection is another matter
	return conn
}

// listen begins to hear what the member tells.
func listen(t *testing.T, m *lab.Member, kinds string) *listener {
	t.Helper()
	conn := dialSocket(t, m, "/1.0/events?all-projects=true&type="+kinds)
	l := &listener{conn: conn, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for {
			var event struct {
				Type, Location string
				Revision       int64
				Metadata       struct{ Action, Source, ID, Status string }
			}
			if err := conn.ReadJSON(&event); err != nil {
				return
			}
			line := event.Type + " " + event.Location + " " + event.Metadata.Action + event.Metadata.ID + " " + event.Metadata.Source + event.Metadata.Status
			l.mu.Lock()
			l.newest = max(l.newest, event.Revision)
			l.heard = append(l.heard, line)
			l.mu.Unlock()
		}
	}()
	return l
}

// events are those heard so far that have the word in them.
func (l *listener) events(word string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.heard), func(line string) bool { return !strings.Contains(line, word) })
}

func (l *listener) close() {
	_ = l.conn.Close()
	<-l.done
}

// oneOf says what is missing unless there is something.
func oneOf(lines []string, what string) string {
	if len(lines) == 0 {
		return what + " was not told"
	}
	return ""
}

// Every member tells of everything, each once and in one order.
func TestEventsAreTheSameOnEveryMember(t *testing.T) {
	members := trio(t)
	listeners := make([]*listener, len(members))
	for i, m := range members {
		listeners[i] = listen(t, m, "lifecycle")
	}
	operations := make([]*listener, len(members))
	for i, m := range members {
		operations[i] = listen(t, m, "operation")
	}
	var working sync.WaitGroup
	for i, m := range members {
		working.Go(func() {
			for round := range 15 {
				name := fmt.Sprintf("e%d-%d", i, round)
				body := map[string]any{"name": name, "source": map[string]any{"type": "none"}}
				for _, step := range []struct {
					m            *lab.Member
					method, path string
					body         any
				}{
					{m, http.MethodPost, "/1.0/instances", body},
					{members[(i+1)%3], http.MethodPatch, "/1.0/instances/" + name, map[string]any{"config": map[string]string{"user.x": "1"}}},
					{members[(i+2)%3], http.MethodDelete, "/1.0/instances/" + name, nil},
				} {
					if _, err := step.m.Do(context.WithoutCancel(t.Context()), step.method, step.path, step.body); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	working.Wait()
	if _, err := members[0].Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "last"}); err != nil {
		t.Fatal(err)
	}
	for i, l := range listeners {
		eventually(t, func() string {
			if len(l.events("profiles/last")) == 0 {
				return fmt.Sprintf("m%d has not told of the last change", i+1)
			}
			return ""
		})
	}
	strip := func(lines []string) []string {
		var stripped []string
		for _, line := range lines {
			// The location is the teller's.
			fields := strings.SplitN(line, " ", 3)
			stripped = append(stripped, fields[2])
		}
		return stripped
	}
	want := strip(listeners[0].events("instances/e"))
	if len(want) != 3*15*3 {
		t.Errorf("m1 told of %d changes; want three for each of 45 instances", len(want))
	}
	for i, l := range listeners[1:] {
		if diff := cmp.Diff(want, strip(l.events("instances/e"))); diff != "" {
			t.Errorf("m1 and m%d tell differently (-m1 +m%d):\n%s", i+2, i+2, diff)
		}
	}
	// Who lost its connection goes on where it was, on whichever member.
	before := listen(t, members[1], "lifecycle")
	if _, err := members[0].Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "mark"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { return oneOf(before.events("profiles/mark"), "the mark") })
	before.close()
	for _, name := range []string{"missed1", "missed2", "missed3"} {
		if _, err := members[2].Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": name}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() string { return oneOf(listeners[0].events("profiles/missed3"), "the last that was missed") })
	after := listen(t, members[0], fmt.Sprintf("lifecycle&since=%d", before.newest))
	if _, err := members[1].Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "missed4"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { return oneOf(after.events("profiles/missed4"), "what came after") })
	var resumed []string
	for _, line := range strip(after.events("")) {
		resumed = append(resumed, line[strings.LastIndexByte(line, '/')+1:])
	}
	if diff := cmp.Diff([]string{"missed1", "missed2", "missed3", "missed4"}, resumed); diff != "" {
		t.Errorf("resumed events (-want +got):\n%s", diff)
	}
	after.close()
	for since, code := range map[string]int{"x": http.StatusBadRequest, "99999999": http.StatusBadRequest} {
		if answer, err := members[0].Request(t.Context(), http.MethodGet, "/1.0/events?since="+since, nil, http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		}); err != nil || answer.Code != code {
			t.Errorf("since %s: %d, %v; want %d", since, answer.Code, err, code)
		}
	}
	// Ends of operations are told by every member, each once.
	var ends []string
	for i, l := range operations {
		eventually(t, func() string {
			got := l.events("Success")
			if i == 0 {
				ends = strip(got)
			}
			if len(got) < 90 {
				return fmt.Sprintf("m%d told of %d ends", i+1, len(got))
			}
			return ""
		})
		got := strip(l.events("Success"))
		counted := map[string]int{}
		for _, line := range got {
			if counted[line]++; counted[line] > 1 {
				t.Errorf("m%d told twice: %s", i+1, line)
			}
		}
	}
	for _, l := range operations[1:] {
		eventually(t, func() string {
			got := strip(l.events("Success"))
			slices.Sort(got)
			sorted := slices.Sorted(slices.Values(ends))
			return cmp.Diff(sorted, got)
		})
	}
	for _, l := range append(listeners, operations...) {
		l.close()
	}
}
