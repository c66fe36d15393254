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
	segment := filepath.Join(path, "0000000000000001-0000000000000007")
	if err := os.WriteFile(segment, nil, 0o600); err != nil {
		t.Fatal(err)
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
