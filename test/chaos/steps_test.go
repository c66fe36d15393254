package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// stepsFor is how long the daemon is stopped at calls that are drawn at random; zero is for
// every call, which make chaos asks for.
func stepsFor(t *testing.T) time.Duration {
	t.Helper()
	value := os.Getenv("MUSTER_CHAOS_STEPS")
	if value == "" {
		return 24 * time.Second
	}
	seconds, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("MUSTER_CHAOS_STEPS=%q: want seconds, or 0 for every call", value)
	}
	return time.Duration(seconds) * time.Second
}

// sweep calls try with every call that an undisturbed run does, or with some of them, drawn at
// random; try reports whether the daemon was killed at it, and how many writes the power cut
// took. It prints how many there were.
func sweep(t *testing.T, scenario string, span time.Duration, counts map[string]int, try func(lab.Call) (hit bool, lost int)) {
	t.Helper()
	var all []lab.Call
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		// Runs differ a little.
		for n := range counts[name] + 1 {
			all = append(all, lab.Call{Name: name, Nth: n + 1})
		}
	}
	if span > 0 {
		rand.New(rand.NewSource(*seed)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	hits, cuts, began := map[string]int{}, map[string]int{}, time.Now()
	for _, call := range all {
		if t.Failed() || span > 0 && time.Since(began) > span {
			break
		}
		hit, lost := try(call)
		if hit {
			hits[call.Name]++
		}
		if lost > 0 {
			cuts[call.Name]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%s: %s: %d calls, killed at %d, %d times with a power cut", scenario, name, counts[name], hits[name], cuts[name])
	}
	if len(hits) == 0 {
		t.Errorf("%s: no call was hit", scenario)
	}
}

// writer makes profiles and remembers which were acknowledged.
type writer struct {
	count        int
	acknowledged []string
}

// write makes a profile, and reports whether that was acknowledged.
func (w *writer) write(ctx context.Context, m *lab.Member) bool {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	w.count++
	name := fmt.Sprintf("p%d", w.count)
	if _, err := m.Do(ctx, http.MethodPost, "/1.0/profiles", map[string]any{"name": name}); err != nil {
		return false
	}
	w.acknowledged = append(w.acknowledged, name)
	return true
}

// check reads back what was acknowledged.
func (w *writer) check(t *testing.T, m *lab.Member, when string) {
	t.Helper()
	var found []string
	if err := m.Get(t.Context(), "/1.0/profiles", &found); err != nil {
		t.Errorf("%s: %v", when, err)
		return
	}
	for _, name := range w.acknowledged {
		if !slices.Contains(found, "/1.0/profiles/"+name) {
			t.Errorf("%s: profile %s was acknowledged and is lost", when, name)
		}
	}
}

// wipe empties a member's directory but for the lab's own file.
func wipe(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() == "lab.log" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// A daemon that is killed at any call by which its logs change their files, also with a
// power cut that takes what was not flushed, starts again by itself and has lost nothing that
// was acknowledged. Its life here: a start, writes, a snapshot of the database, a stop.
func TestADaemonStartsAfterAKillAtAnyStep(t *testing.T) {
	lab.NeedsRoot(t)
	lab.NeedsWatching(t)
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("repeat with -seed %d", *seed)
	m := lab.Start(t, lab.Options{NoInit: true})
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	// A little before the database takes its first snapshot.
	m.Up()
	var first writer
	for len(snapshots(t, m)) == 0 {
		if !first.write(t.Context(), m) {
			t.Fatal("a write failed")
		}
	}
	m.Kill()
	for _, tc := range []struct {
		name string
		// before is how many writes come before, writes how many come now.
		before, writes int
	}{
		{"a first start", 0, 3},
		{"a life", first.count - 6, 12},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := filepath.Join(t.TempDir(), "base")
			var written writer
			wipe(t, m.Dir)
			if tc.before > 0 {
				m.Up()
				for range tc.before {
					if !written.write(t.Context(), m) {
						t.Fatal("a write failed")
					}
				}
				m.Kill()
			}
			copyDir(t, m.Dir, base)
			before := written
			live := func(call lab.Call) (watch *lab.Watch, alive bool) {
				wipe(t, m.Dir)
				copyDir(t, base, m.Dir)
				written = writer{count: before.count, acknowledged: slices.Clone(before.acknowledged)}
				watch = m.LaunchedWatched(call)
				alive = !m.AwaitReady()
				for range tc.writes {
					alive = alive && written.write(t.Context(), m)
				}
				_ = m.Stop() // it may be killed now
				return watch, alive
			}
			watch, _ := live(lab.Call{})
			if tc.before > 0 && len(snapshots(t, m)) == 0 {
				t.Error("the database took no snapshot")
			}
			sweep(t, tc.name, stepsFor(t)/2, watch.Counts(), func(call lab.Call) (hit bool, lost int) {
				watch, alive := live(call)
				killed := watch.Killed()
				if killed == "" {
					if !alive {
						t.Errorf("%s: it ended by itself\n%s", call, lastLines(m.Log(), 12))
					}
					return false, 0
				}
				when := "killed at " + killed
				if lose := call.Nth % 3; lose > 0 {
					var err error
					if lost, err = watch.LosePower(lose == 1); err != nil {
						t.Errorf("%s: %v", when, err)
					}
					when = fmt.Sprintf("%s, %d writes lost", when, lost)
				}
				for range 2 {
					m.Launched()
					if m.AwaitReady() {
						t.Fatalf("%s: it does not start again\n%s", when, lastLines(m.Log(), 12))
					}
					written.check(t, m, when)
					if !written.write(t.Context(), m) {
						t.Errorf("%s: it takes no writes", when)
					}
					m.Kill()
				}
				return true, lost
			})
		})
	}
	m.Up()
}

func snapshots(t *testing.T, m *lab.Member) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(m.Dir, "database", "snapshot-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func lastLines(text string, count int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o711); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", "--sparse=always", from+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", from, err, out)
	}
}
