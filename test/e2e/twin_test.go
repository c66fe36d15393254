package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// twinOf makes a member out of a copy of another's directory, at an address of its own. It is
// not started.
func twinOf(t *testing.T, m *lab.Member) *lab.Member {
	t.Helper()
	twin := lab.Start(t, lab.Options{NoInit: true})
	twin.Abandon()
	entries, err := os.ReadDir(twin.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(twin.Dir, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("cp", "-a", m.Dir+"/.", twin.Dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	twin.Run("musterd", "cluster", "set-address", twin.Address())
	return twin
}

// endsWith waits until the daemon has ended by itself, with these words.
func endsWith(t *testing.T, m *lab.Member, words string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !m.Ended(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the daemon goes on; want it to end: … %s …\n%s", words, m.Log())
		}
	}
	if log := lastLine(m.Log()); !strings.Contains(log, words) {
		t.Errorf("the daemon ended with %q; want: … %s …", log, words)
	}
}

// A directory that was copied is one member all the same: of two daemons the one that was
// started last goes on, and who has an older state of the directory is refused.
func TestACopiedDirectoryIsNoSecondMember(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 3, lab.Options{NoInit: true})
	first, third := members[0], members[2]
	write := func(m *lab.Member, name string) {
		t.Helper()
		if _, err := m.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": name}); err != nil {
			t.Errorf("write %s: %v", name, err)
		}
	}
	settled := func() {
		t.Helper()
		if _, err := first.Settled(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
	}
	// The member was started again since the copy was made.
	third.Kill()
	outdated := twinOf(t, third)
	third.Up()
	settled()
	outdated.Launched()
	endsWith(t, outdated, "must not take part any more")
	write(third, "a")
	settled()

	// The copy is started while the member runs.
	third.Pause()
	twin := twinOf(t, third)
	third.Resume()
	settled()
	twin.Up()
	endsWith(t, third, "this one stops")
	write(twin, "b")
	settled()
	third.Launched()
	endsWith(t, third, "must not take part any more")
	third.Abandon()

	// The copy is the member, and can be started again like one.
	twin.Restart()
	settled()
	write(twin, "c")
	var profiles []string
	if err := first.Get(t.Context(), "/1.0/profiles", &profiles); err != nil || len(profiles) != 4 {
		t.Errorf("profiles %v (%v); want the default one and three more", profiles, err)
	}
	twin.Abandon()
	first.Run("muster", "cluster", "remove", "m3", "--force", "--yes")
}
