package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster/state"
)

// beginningOf makes a closed segment of the first entries that a whole one holds, in
// batches, as the node does when it cuts off the log's end.
func beginningOf(t *testing.T, dir, whole string, entries uint64) (name string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, whole))
	if err != nil {
		t.Fatal(err)
	}
	var first, held uint64
	if _, err := fmt.Sscanf(whole, "%d-", &first); err != nil {
		t.Fatal(err)
	}
	end := segmentHead
	for size := batchAt(content[end:]); size > 0 && held < entries; size = batchAt(content[end:]) {
		held += binary.LittleEndian.Uint64(content[end+8:])
		end += size
	}
	name = fmt.Sprintf("%016d-%016d", first, first+held-1)
	if err := os.WriteFile(filepath.Join(dir, name), content[:end], 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A store that was killed between any two steps of its node starts again by itself, with
// all that was acknowledged. The steps are those of libraft that no test here can be made
// to stop at, written out; test/chaos stops at the others.
func TestWhatKillsLeaveIsMended(t *testing.T) {
	running := t.TempDir()
	s := open(t, running)
	populate(t, s)
	for n := range 300 { // enough for a snapshot
		must(t, s, SetSettings{Cluster: map[string]string{"n": fmt.Sprint(n)}})
	}
	killed := t.TempDir()
	if err := os.CopyFS(killed, os.DirFS(running)); err != nil {
		t.Fatal(err)
	}
	want := s.View().Revision()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	segments := files(t, running, closedSegments)
	first, last := filepath.Base(segments[0]), filepath.Base(segments[len(segments)-1])
	shorten := func(zeros int) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			name := files(t, dir, "open-*")[0]
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			ends := batches(content)
			if err := os.Truncate(name, int64(ends[len(ends)-1]+zeros)); err != nil {
				t.Fatal(err)
			}
		}
	}
	only := func(t *testing.T, dir string, keep ...string) {
		t.Helper()
		for _, path := range files(t, dir, "*") {
			kept := false
			for _, name := range keep {
				kept = kept || filepath.Base(path) == name
			}
			if !kept {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, tc := range map[string]struct {
		from  string
		leave func(t *testing.T, dir string)
		want  state.Revision
	}{
		"a segment was truncated and not renamed":            {killed, shorten(0), want},
		"a segment was truncated, and then its size was not": {killed, shorten(8), want},
		"a first write that never arrived": {killed, func(t *testing.T, dir string) {
			content := make([]byte, segmentSize)
			copy(content[4096:], "the second block of a batch")
			put(t, dir, "open-9", content)
		}, want},
		"a file that has no name yet": {killed, func(t *testing.T, dir string) {
			put(t, dir, "tmp-"+last, []byte("half"))
		}, want},
		"the end was being cut off": {running, func(t *testing.T, dir string) {
			beginningOf(t, dir, last, 3)
		}, want},
		"the end was cut off, but for a later segment": {running, func(t *testing.T, dir string) {
			var a, b uint64
			if _, err := fmt.Sscanf(first, "%d-%d", &a, &b); err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(filepath.Join(dir, first))
			if err != nil {
				t.Fatal(err)
			}
			put(t, dir, fmt.Sprintf("%016d-%016d", 9000+a, 9000+b), content)
			putMetadata(t, dir, metadata{version: 2, term: 2})
		}, want},
		"a snapshot came, and what it replaces was not removed yet": {running, func(t *testing.T, dir string) {
			beginningOf(t, dir, first, 100)
			for _, path := range segments {
				if err := os.Remove(filepath.Join(dir, filepath.Base(path))); err != nil {
					t.Fatal(err)
				}
			}
			put(t, dir, "open-1", make([]byte, segmentSize))
			put(t, dir, markFile, []byte("1\n"))
		}, 0},
		"a snapshot was being removed": {running, func(t *testing.T, dir string) {
			put(t, dir, "snapshot-1-7-12", []byte("an old one"))
		}, want},
		"the first member's first term was written, and no entry": {running, func(t *testing.T, dir string) {
			only(t, dir, identityFile)
			put(t, dir, "metadata1", []byte{0: 1, 8: 1, 16: 1, 31: 0})
		}, 0},
		"the first member's metadata was being written": {running, func(t *testing.T, dir string) {
			only(t, dir, identityFile)
			put(t, dir, "metadata1", nil)
		}, 0},
		"the first member's second metadata was being written": {running, func(t *testing.T, dir string) {
			name := beginningOf(t, dir, first, 1)
			only(t, dir, identityFile, name)
			put(t, dir, "metadata1", []byte{0: 1, 8: 1, 16: 1, 31: 0})
			put(t, dir, "metadata2", nil)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(dir, os.DirFS(tc.from)); err != nil {
				t.Fatal(err)
			}
			tc.leave(t, dir)
			for range 2 {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				s, err := Open(ctx, Config{Dir: dir, Member: self})
				cancel()
				if err != nil {
					t.Fatal(err)
				}
				if got := s.View().Revision(); tc.want != 0 && got != tc.want || got == 0 {
					t.Errorf("revision %d; want %d", got, tc.want)
				}
				must(t, s, SetSettings{Cluster: map[string]string{"n": "after"}})
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if tc.want != 0 {
					tc.want++
				}
			}
			for _, pattern := range []string{"tmp-*", "corrupt-*", "open-*"} {
				if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
					t.Errorf("%v are left", left)
				}
			}
		})
	}
}
