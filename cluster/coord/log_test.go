package coord

import (
	"log/slog"
	"testing"

	"github.com/hashicorp/raft"
)

// A follower whose newest entries a new coordinator replaces can be started again.
func TestALogWhoseEndWasReplacedIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	store := func(d *diskLog, term, from, to uint64) {
		t.Helper()
		for index := from; index <= to; index++ {
			if err := d.wal.StoreLog(&raft.Log{Index: index, Term: term, Data: []byte("entry")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, keep := range map[string]uint64{"some": 5, "all of a segment": 0} {
		t.Run(name, func(t *testing.T) {
			dir := dir + "/" + name
			d, err := openLog(dir, quiet)
			if err != nil {
				t.Fatal(err)
			}
			store(d, 1, 1, 10)
			if err := d.wal.SetUint64([]byte("CurrentTerm"), 2); err != nil {
				t.Fatal(err)
			}
			if err := d.wal.DeleteRange(keep+1, 10); err != nil {
				t.Fatal(err)
			}
			store(d, 2, keep+1, 8)
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
			if d, err = openLog(dir, quiet); err != nil {
				t.Fatal(err)
			}
			var entry raft.Log
			if err := d.wal.GetLog(8, &entry); err != nil || entry.Term != 2 {
				t.Errorf("entry 8: term %d, %v; want 2", entry.Term, err)
			}
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
