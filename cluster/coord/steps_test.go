package coord_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/cluster/coord"
	"muster/test/lab"
)

// snapshotAndMore proposes operations, takes a snapshot in their midst, and ends in order. It
// writes to stdout the ID of each one that is acknowledged.
func snapshotAndMore(dir string) {
	ctx := context.Background()
	n, err := coord.Open(ctx, config(dir))
	if err != nil {
		fmt.Println("error", err)
		return
	}
	for i := range 8 {
		id := fmt.Sprintf("%d-%d", os.Getpid(), i)
		if _, err := n.Propose(ctx, start(id)); err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Println("s", id)
		if i == 3 {
			if err := n.TakeSnapshot(); err != nil {
				fmt.Println("error", err)
			}
		}
	}
	if err := n.Close(); err != nil {
		fmt.Println("error", err)
	}
}

// A member that is killed at any step of its coordination log's life (a start, entries, a snapshot
// with what it replaces removed, a stop), also with a power cut that takes what was not flushed,
// starts again with all that was acknowledged. In the normal run some of the steps, drawn at
// random; all with MUSTER_CHAOS_STEPS=0.
func TestAKillAtAnyStepOfASnapshot(t *testing.T) {
	lab.NeedsRoot(t)
	lab.NeedsWatching(t)
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("repeat with -seed %d", *seed)
	top := t.TempDir()
	base := filepath.Join(top, "base")
	n := open(t, filepath.Join(base, "raft"))
	for i := range 600 { // more than stay behind a snapshot
		propose(t, n, start(fmt.Sprintf("before-%d", i)))
	}
	if err := n.TakeSnapshot(); err != nil { // so that one is replaced, and then one removed
		t.Fatal(err)
	}
	for i := range 600 {
		propose(t, n, finish(fmt.Sprintf("before-%d", i), coord.Success, ""))
	}
	if err := n.TakeSnapshot(); err != nil {
		t.Fatal(err)
	}
	shut(t, n)
	dir := filepath.Join(top, "work")
	live := func(call lab.Call) (watch *lab.Watch, acknowledged []string) {
		t.Helper()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
			t.Fatal(err)
		}
		watch, out, err := lab.WatchProgram(t, dir, call, []string{"MUSTER_TEST_COORD_SNAPSHOT=" + filepath.Join(dir, "raft")}, os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if id, is := strings.CutPrefix(lines.Text(), "s "); is {
				acknowledged = append(acknowledged, id)
			} else if strings.HasPrefix(lines.Text(), "error") {
				t.Errorf("%s: %s", call, lines.Text())
			}
		}
		return watch, acknowledged
	}
	watch, acknowledged := live(lab.Call{})
	counts := watch.Counts()
	if len(acknowledged) != 8 {
		t.Fatalf("undisturbed, %d operations were acknowledged; want 8", len(acknowledged))
	}
	var all []lab.Call
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		for nth := range counts[name] {
			all = append(all, lab.Call{Name: name, Nth: nth + 1})
		}
	}
	if os.Getenv("MUSTER_CHAOS_STEPS") != "0" {
		rand.New(rand.NewSource(*seed)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:min(len(all), 25)]
	}
	hits, cuts := map[string]int{}, map[string]int{}
	for _, call := range all {
		watch, acknowledged := live(call)
		killed := watch.Killed()
		if killed == "" {
			continue
		}
		hits[call.Name]++
		if lose := call.Nth % 3; lose > 0 {
			lost, err := watch.LosePower(lose == 1)
			if err != nil {
				t.Fatal(err)
			}
			if lost > 0 {
				cuts[call.Name]++
			}
			killed = fmt.Sprintf("%s, %d writes lost", killed, lost)
		}
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			n, err := coord.Open(ctx, config(filepath.Join(dir, "raft")))
			cancel()
			if err != nil {
				t.Fatalf("killed at %s: %v", killed, err)
			}
			for _, id := range acknowledged {
				if _, known := n.Operation(id); !known {
					t.Errorf("killed at %s: operation %s was acknowledged and is gone", killed, id)
				}
			}
			propose(t, n, start("after"))
			if err := n.TakeSnapshot(); err != nil {
				t.Errorf("killed at %s: a snapshot after it: %v", killed, err)
			}
			shut(t, n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%s: %d calls, killed at %d, %d times with a power cut", name, counts[name], hits[name], cuts[name])
	}
}
