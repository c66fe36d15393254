package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"muster/test/lab"
)

// nextRelease builds the programs as a release that is one step ahead: its database has
// one more step in its schema, its API one more extension.
func nextRelease(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "nextrelease", "-o", dir+"/", "muster/cmd/musterd", "muster/cmd/muster", "muster/cmd/muster-shim")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the next release: %v\n%s", err, out)
	}
	// The shims of containers run from there too, for longer than the test's directory.
	keep, err := os.MkdirTemp("", "muster-next-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(keep) })
	for _, name := range []string{"musterd", "muster", "muster-shim"} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(keep, name)); err != nil {
			t.Fatal(err)
		}
	}
	return keep
}

// release is what a member shows of the release that its cluster is at.
type release struct {
	// schema is the database's, extended whether the next release's extension is announced
	// and described how it left a profile.
	schema    int
	described string
	extended  bool
}

func releaseOf(t *testing.T, m *lab.Member) (shown release, err error) {
	t.Helper()
	var server struct {
		APIExtensions []string `json:"api_extensions"`
	}
	var profile struct{ Description string }
	if err := m.Get(t.Context(), "/1.0", &server); err != nil {
		return shown, err
	}
	if err := m.Get(t.Context(), "/1.0/profiles/default", &profile); err != nil {
		return shown, err
	}
	database, err := m.Command("musterd", "cluster", "list-database").CombinedOutput()
	if err != nil {
		return shown, fmt.Errorf("%w: %s", err, database)
	}
	if _, text, said := strings.Cut(string(database), "with schema "); said {
		_, err = fmt.Sscan(text, &shown.schema)
	}
	shown.described, shown.extended = profile.Description, slices.Contains(server.APIExtensions, "muster_next_release")
	return shown, err
}

// A cluster is upgraded one member after the other. It serves all the time, and is what it
// was until the last member has come: only then does the database take the step that the
// members before could not read, and clients are told what the new release can do.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	lab.NeedsRoot(t)
	next := nextRelease(t)
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 4, lab.Options{Network: network})
	members[0].Busybox()
	online := func() {
		t.Helper()
		for _, m := range members {
			status(t, m, "m1 Online", "m2 Online", "m3 Online", "m4 Online")
		}
	}
	online()
	// m4 is a worker: it has no database of its own.
	members[0].Run("muster", "config", "set", "cluster.max_standby", "0")
	old := members[0].Bin
	if _, err := members[0].Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "p"}); err != nil {
		t.Fatal(err)
	}
	members[0].Run("muster", "launch", "busybox", "c1", "--target", "m2")
	before, err := releaseOf(t, members[0])
	if err != nil || before.extended {
		t.Fatal(before, err)
	}
	upgrade := func(i int, bin string) {
		t.Helper()
		m := members[i]
		writer := writeThrough(t, members[(i+1)%len(members)], "p")
		m.Run("musterd", "shutdown", "--keep-instances")
		if err := m.Exited(t.Context()); err != nil {
			t.Errorf("m%d ended with %v", i+1, err)
		}
		m.Bin = bin
		m.Up()
		online()
		if _, _, failed := writer.stop(); len(failed) > 0 {
			t.Errorf("m%d is upgraded: writes failed: %s", i+1, failed)
		}
		members[0].Run("muster", "exec", "c1", "--", "true")
	}
	for i := range members[1:] {
		upgrade(i+1, next)
		for j, m := range members {
			if shown, err := releaseOf(t, m); err != nil || shown != before {
				t.Errorf("m%d is upgraded: m%d shows %+v, %v; want %+v", i+2, j+1, shown, err, before)
			}
		}
	}
	if log := members[3].Log(); !strings.Contains(log, "keeps its schema") {
		t.Error("m4 does not say whom the schema waits for")
	}
	upgrade(0, next)
	after := release{schema: before.schema + 1, described: "as the next release has it", extended: true}
	for i, m := range members {
		eventually(t, func() string {
			if shown, err := releaseOf(t, m); err != nil || shown != after {
				return fmt.Sprintf("all are upgraded: m%d shows %+v, %v; want %+v", i+1, shown, err, after)
			}
			return ""
		})
	}

	// Whoever is a release behind is not taken in, and its token stays good.
	token := members[1].Token("m5")
	behind := lab.Start(t, lab.Options{Network: network, NoInit: true})
	out, err := behind.Command("musterd", "init", "--token", lab.Encode(token), "--address", behind.Address()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "run a newer release") {
		t.Errorf("a server that is a release behind joins: %v\n%s", err, out)
	}
	if err := behind.Stop(); err != nil {
		t.Error(err)
	}
	behind.Bin = next
	behind.Up()
	behind.Run("musterd", "init", "--token", lab.Encode(token), "--address", behind.Address())
	status(t, members[0], "m1 Online", "m2 Online", "m3 Online", "m4 Online", "m5 Online")
	members[0].Run("muster", "cluster", "remove", "m5", "--yes")

	// A member that goes back says what is wrong and ends; the others go on.
	for _, i := range []int{1, 3} {
		m := members[i]
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
		m.Bin = old
		m.Launched()
		eventually(t, func() string {
			if !m.Ended() {
				return fmt.Sprintf("m%d of the release before goes on", i+1)
			}
			return ""
		})
		if log := m.Log(); !strings.Contains(log, "run a newer release") {
			t.Errorf("m%d does not say why it ended:\n%s", i+1, log)
		}
		m.Bin = next
		m.Up()
		online()
	}
	members[3].Run("muster", "exec", "c1", "--", "true")
}
