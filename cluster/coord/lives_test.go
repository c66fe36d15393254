package coord

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"muster/state"
)

// The names of a member's lives outlive kills at any moment, and a file that can't be read says
// nothing: it must not keep a member out.
func TestLivesAreRemembered(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "raft")
	reopen := func() *lives {
		t.Helper()
		l, err := openLives(dir)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := reopen()
	if !l.knows("anything") {
		t.Error("a directory without lives knows none; want any")
	}
	note := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	note(l.begin("a"))
	note(l.record("a"))
	// Ten starts that were cut off before the log answered: what it recorded last stays.
	for _, name := range []string{"b", "c", "d", "e", "f", "g", "h", "i", "j", "k"} {
		l = reopen()
		note(l.begin(name))
	}
	l = reopen()
	for name, want := range map[string]bool{"a": true, "k": true, "e": true, "": true, "z": false} {
		if l.knows(name) != want {
			t.Errorf("knows %q: %v; want %v", name, !want, want)
		}
	}
	note(l.record("k"))
	if l = reopen(); l.names[0] != "k" || !l.knows("a") {
		t.Errorf("the lives are %v; want k and then others, a among them", l.names)
	}
	if err := os.Truncate(livesFile(dir), 0); err != nil {
		t.Fatal(err)
	}
	if !reopen().knows("z") {
		t.Error("an empty file keeps a member out")
	}
}

// Of two daemons of one member the one that was started last goes on, and one whose directory
// is older than that is refused.
func TestAMemberLivesOnce(t *testing.T) {
	l := newLan()
	l.open(t, "ant", t.TempDir(), true)
	dir := t.TempDir()
	worker := func() *Node { return l.worker(t, "wasp", dir) }
	first := worker()
	eventually(t, "its life is recorded", func() bool { return first.recorded.Load() })
	before, err := os.ReadFile(livesFile(first.cfg.Dir))
	if err != nil {
		t.Fatal(err)
	}
	// The twin has what is on the disk now.
	second := worker()
	eventually(t, "the twin's life is recorded", func() bool { return second.recorded.Load() })
	if why := <-first.Replaced(); !errors.Is(why, state.ErrForbidden) || !errors.Is(why, errReplaced) {
		t.Errorf("the first ends because %v; want %v", why, errReplaced)
	}
	eventually(t, "the disk says so", func() bool {
		known, err := openLives(second.cfg.Dir)
		return err == nil && slices.Index(known.names, second.boot) == 0
	})
	if err := os.WriteFile(livesFile(first.cfg.Dir), before, 0o600); err != nil {
		t.Fatal(err)
	}
	if why := <-worker().Replaced(); !errors.Is(why, ErrOutdated) {
		t.Errorf("the older state is refused because %v; want %v", why, ErrOutdated)
	}
	select {
	case why := <-second.Replaced():
		t.Errorf("the member itself ends: %v", why)
	default:
	}
}
