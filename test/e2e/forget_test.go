package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// A database that is not there, because its file system was not mounted, is missed: the
// daemon does not begin an empty one beside the instances and images of the one before.
func TestAMissingDatabaseIsNoNewOne(t *testing.T) {
	t.Parallel()
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	if err := m.Launch(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	refuses := func(words string) {
		t.Helper()
		m.Launched()
		for deadline := time.Now().Add(time.Minute); !m.Ended(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the daemon started without its database; want: … %s …", words)
			}
		}
		if log := lastLine(m.Log()); !strings.Contains(log, words) || !strings.Contains(log, "--forget-database") {
			t.Errorf("the daemon ended with %q; want: … %s … --forget-database", log, words)
		}
	}
	forget := func(more ...string) string {
		out, err := m.Command("musterd", append([]string{"init", "--forget-database"}, more...)...).CombinedOutput()
		if err != nil {
			return err.Error() + ": " + string(out)
		}
		return string(out)
	}
	if said := forget(); !strings.Contains(said, "nothing is missing") {
		t.Errorf("to forget what is there: %q; want: nothing is missing", said)
	}
	aside := t.TempDir()
	move := func(log string, from, to string) {
		t.Helper()
		if err := os.Rename(filepath.Join(from, log), filepath.Join(to, log)); err != nil {
			t.Fatal(err)
		}
	}
	for _, log := range []string{"database", "raft"} {
		for _, mountPoint := range []bool{false, true} {
			move(log, m.Dir, aside)
			if mountPoint {
				if err := os.Mkdir(filepath.Join(m.Dir, log), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			refuses("was in use, and now it is gone")
			if err := os.RemoveAll(filepath.Join(m.Dir, log)); err != nil {
				t.Fatal(err)
			}
			move(log, aside, m.Dir)
		}
	}
	// A former release left no mark.
	move("database.used", m.Dir, aside)
	move("database", m.Dir, aside)
	refuses("has no database, but there is")
	move("database", aside, m.Dir)

	// Nothing was taken for a leftover: it is all as before.
	m.Up()
	var instance struct {
		Status string `json:"status"`
	}
	if err := m.Get(t.Context(), "/1.0/instances/c1", &instance); err != nil || instance.Status != "Running" {
		t.Errorf("c1 is %q (%v); want Running", instance.Status, err)
	}
	if said := forget(); !strings.Contains(said, "must be stopped first") {
		t.Errorf("to forget under a daemon: %q; want: must be stopped first", said)
	}
	// Who means it begins anew.
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	move("database", m.Dir, aside)
	if said := forget(); !strings.Contains(said, "c1") || !strings.Contains(said, "--stop-instances") {
		t.Errorf("to forget a container that runs: %q; want it named", said)
	}
	if said := forget("--stop-instances"); !strings.Contains(said, "Stopped c1\n") || !strings.Contains(said, "Given up: "+filepath.Join(m.Dir, "database")+".") {
		t.Errorf("to forget what is gone: %q; want: Given up: …", said)
	}
	m.Up()
	var profiles []string
	if err := m.Get(t.Context(), "/1.0/storage-pools", &profiles); err != nil || len(profiles) != 0 {
		t.Errorf("the new database knows of pools %v (%v); want none", profiles, err)
	}
	m.Restart()
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
