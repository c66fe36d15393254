package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/state"
)

// A member that has just joined shows what others have; killed before it has a log of
// its own, it has lost nothing. One that had a log and has none has.
func TestOnlyWhoHadALogCanLoseIt(t *testing.T) {
	path := t.TempDir()
	life := func(shown state.Revision) error {
		t.Helper()
		d, err := openDirectory(path, identity{MemberID: "m", NodeID: 1})
		if err != nil {
			return err
		}
		if err := d.raiseMark(shown); err != nil {
			t.Fatal(err)
		}
		return d.close()
	}
	for _, shown := range []state.Revision{20, 25} {
		if err := life(shown); err != nil {
			t.Fatalf("without a log, shown %d: %v", shown, err)
		}
	}
	// Prepared and never written to: killed now, it has no log either.
	if err := os.WriteFile(filepath.Join(path, "open-1"), make([]byte, segmentSize), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, shown := range []state.Revision{27, 28} {
		if err := life(shown); err != nil {
			t.Fatalf("with a segment that was only prepared, shown %d: %v", shown, err)
		}
	}
	other := t.TempDir()
	if err := open(t, other).Close(); err != nil {
		t.Fatal(err)
	}
	segment := filepath.Join(path, filepath.Base(files(t, other, closedSegments)[0]))
	for _, name := range append(files(t, other, "metadata*"), files(t, other, closedSegments)[0]) {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, filepath.Base(name)), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := life(30); err != nil {
		t.Fatalf("with a log: %v", err)
	}
	if err := os.Remove(segment); err != nil {
		t.Fatal(err)
	}
	if err := life(31); err == nil || !strings.Contains(err.Error(), "reached revision 30, and now its log is gone") {
		t.Errorf("after the log was lost: %v", err)
	}
}
