// Package chaos kills a real daemon with SIGKILL at random moments while it works,
// and looks for anything half-made, leaked or disturbed.
package chaos

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/test/lab"
)

var seed = flag.Int64("seed", 0, "seed of the random choices; 0 takes a new one and prints it")

// rounds is how often the daemon is killed: a few in CI, more by
// MUSTER_CHAOS_ROUNDS (make chaos takes 50).
func rounds(t *testing.T) int {
	t.Helper()
	value := os.Getenv("MUSTER_CHAOS_ROUNDS")
	if value == "" {
		return 6
	}
	count, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("MUSTER_CHAOS_ROUNDS=%q: want a number", value)
	}
	return count
}

type instance struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	State  struct {
		Pid int `json:"pid"`
	} `json:"state"`
	Snapshots []struct {
		Name string `json:"name"`
	} `json:"snapshots"`
}

func instances(ctx context.Context, t *testing.T, m *lab.Member) map[string]instance {
	t.Helper()
	var list []instance
	if err := m.Get(ctx, "/1.0/instances?recursion=2", &list); err != nil {
		t.Fatal(err)
	}
	found := map[string]instance{}
	for _, inst := range list {
		found[inst.Name] = inst
	}
	return found
}

func TestKillingTheDaemonDisturbsAndLeaksNothing(t *testing.T) {
	lab.NeedsRoot(t)
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("repeat with -seed %d", *seed)
	random := rand.New(rand.NewSource(*seed))
	m := lab.Start(t, lab.Options{Args: []string{"--verbose"}})
	m.Busybox()
	ctx := t.Context()

	// Bystanders run all the time: their init must stay the same process.
	bystanders := map[string]int{}
	for i := range 3 {
		name := fmt.Sprintf("bystander%d", i)
		if err := m.Launch(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	for name, inst := range instances(ctx, t, m) {
		bystanders[name] = inst.State.Pid
	}

	var acknowledged acks
	for round := range rounds(t) {
		work, stop := context.WithCancel(ctx)
		var workers sync.WaitGroup
		for worker := range 3 {
			workers.Go(func() { load(work, m, round, worker, &acknowledged) })
		}
		time.Sleep(time.Duration(50+random.Intn(700)) * time.Millisecond)
		m.Kill()
		stop()
		workers.Wait()
		m.Up()
		check(ctx, t, m, bystanders, &acknowledged)
		if t.Failed() {
			t.Fatalf("round %d failed", round)
		}
	}
}

// acks remembers what the daemon said was done.
type acks struct {
	mu sync.Mutex
	// created and deleted are instances by name; the later word counts.
	exists map[string]bool
	// unsure are those whose last request was cut off.
	unsure map[string]bool
}

func (a *acks) note(name string, exists bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.exists == nil {
		a.exists, a.unsure = map[string]bool{}, map[string]bool{}
	}
	a.unsure[name] = err != nil
	if err == nil {
		a.exists[name] = exists
	}
}

// load creates, starts, snapshots and deletes until it is told to stop or the
// daemon is gone.
func load(ctx context.Context, m *lab.Member, round, worker int, acknowledged *acks) {
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("r%dw%di%d", round, worker, i)
		path := "/1.0/instances/" + name
		_, err := m.Do(ctx, http.MethodPost, "/1.0/instances", map[string]any{
			"name": name, "source": map[string]string{"type": "image", "alias": "busybox"},
		})
		acknowledged.note(name, true, err)
		if err != nil {
			return
		}
		steps := []func() error{
			func() error {
				_, err := m.Do(ctx, http.MethodPut, path+"/state", map[string]any{"action": "start"})
				return err
			},
			func() error {
				_, err := m.Do(ctx, http.MethodPost, path+"/snapshots", map[string]any{"name": "s0"})
				return err
			},
			func() error {
				_, err := m.Do(ctx, http.MethodPut, path+"/state", map[string]any{"action": "stop", "force": true})
				return err
			},
			func() error {
				// The old name may be taken for gone, or still be there, when this is cut off.
				_, err := m.Do(ctx, http.MethodPost, path, map[string]any{"name": name + "new"})
				acknowledged.note(name, false, err)
				acknowledged.note(name+"new", true, err)
				path += "new"
				name += "new"
				return err
			},
		}
		for _, step := range steps {
			if step() != nil {
				return
			}
		}
		_, err = m.Do(ctx, http.MethodDelete, path, nil)
		acknowledged.note(name, false, err)
		if err != nil {
			return
		}
	}
}

// check holds the daemon to its promises after a restart.
func check(ctx context.Context, t *testing.T, m *lab.Member, bystanders map[string]int, acknowledged *acks) {
	t.Helper()
	found := instances(ctx, t, m)
	for name, pid := range bystanders {
		if got := found[name]; got.State.Pid != pid || got.Status != "Running" {
			t.Errorf("%s: process %d, %s; want %d, Running", name, got.State.Pid, got.Status, pid)
		}
	}
	acknowledged.mu.Lock()
	for name, exists := range acknowledged.exists {
		if _, there := found[name]; there != exists && !acknowledged.unsure[name] {
			t.Errorf("%s: there is %v; acknowledged was %v", name, there, exists)
		}
	}
	acknowledged.mu.Unlock()
	// What is recorded works: it can be started, stopped and deleted.
	for name, inst := range found {
		if _, bystander := bystanders[name]; bystander {
			continue
		}
		path := "/1.0/instances/" + name
		if inst.Status == "Stopped" {
			// The daemon itself may be starting it: it ran when the daemon died.
			_, err := m.Do(ctx, http.MethodPut, path+"/state", map[string]any{"action": "start"})
			var now instance
			if get := m.Get(ctx, path, &now); get != nil || now.Status != "Running" {
				t.Errorf("start %s after the crash: %v; it is %s, %v", name, err, now.Status, get)
			}
		}
		if _, err := m.Do(ctx, http.MethodPut, path+"/state", map[string]any{"action": "stop", "force": true}); err != nil {
			t.Errorf("stop %s after the crash: %v", name, err)
		}
		if _, err := m.Do(ctx, http.MethodDelete, path, nil); err != nil {
			t.Errorf("delete %s after the crash: %v", name, err)
		}
		acknowledged.note(name, false, nil)
	}
	// Only the bystanders are left on the host.
	if left := instances(ctx, t, m); len(left) != len(bystanders) {
		t.Errorf("%d instances are left; want %d", len(left), len(bystanders))
	}
	// So are their addresses, and no others.
	for _, kept := range m.Addresses() {
		if strings.HasPrefix(kept, "reservation ") && !strings.Contains(kept, "/bystander") {
			t.Errorf("the address of an instance that is gone is kept: %s", kept)
		}
	}
	for _, left := range lab.Leftovers(m.Dir) {
		if !expectedLeft(left, bystanders) {
			t.Errorf("left behind: %s", left)
		}
	}
	var rows struct {
		Rows [][]any `json:"rows"`
	}
	answer, err := m.Do(ctx, http.MethodPost, "/internal/sql", map[string]any{"query": "SELECT kind, name FROM intents"})
	if err == nil {
		err = json.Unmarshal(answer.Metadata, &rows)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(rows.Rows) > 0 {
		t.Errorf("intents are still open: %v", rows.Rows)
	}
}

// expectedLeft reports whether a mount or process belongs to the daemon, to its
// networks, or to a bystander.
func expectedLeft(left string, bystanders map[string]int) bool {
	for name := range bystanders {
		if strings.Contains(left, name) {
			return true
		}
	}
	for _, own := range []string{"dnsmasq", "musterd", "storage-pools/default ", "storage-pools/default/mounts ", "/images/"} {
		if strings.Contains(left, own) {
			return true
		}
	}
	return false
}
