package coord_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster/cluster/coord"
	"muster/state"
)

var seed = flag.Int64("seed", 0, "seed of the random choices; 0 takes a new one and prints it")

// Whatever byte of the log's files is another one, the log is opened with all that it held, or
// refused by a sentence: never a crash, and never less.
func TestAFlippedByteIsNeverACrash(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("repeat with -seed %d", *seed)
	random := rand.New(rand.NewSource(*seed))
	whole := t.TempDir()
	n := open(t, whole)
	for i := range 50 {
		propose(t, n, start(fmt.Sprintf("o-%d", i)))
	}
	shut(t, n)
	files, err := filepath.Glob(filepath.Join(whole, "*"))
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for round := range 150 {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(round))
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(files[random.Intn(len(files))])
		if round%2 == 0 {
			name = "wal-meta.db" // it has no checksums
		}
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(content) == 0 {
			continue
		}
		at := random.Intn(min(len(content), 64<<10)) // behind are zeros that nobody reads
		if random.Intn(2) == 0 {
			at &^= 4095 // a page's head
			at += random.Intn(64)
			at = min(at, len(content)-1)
		}
		content[at] ^= byte(1 + random.Intn(255))
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		again, err := coord.Open(ctx, config(dir))
		cancel()
		what := fmt.Sprintf("round %d: byte %d of %s", round, at, name)
		if err != nil {
			refused++
			if !errors.Is(err, state.ErrConflict) {
				t.Errorf("%s: %v; want a conflict that says what is damaged", what, err)
			}
			continue
		}
		if got := len(again.Operations()); got != 50 {
			t.Errorf("%s: %d operations; want 50", what, got)
		}
		shut(t, again)
		_ = os.RemoveAll(dir)
	}
	t.Logf("%d refused", refused)
}
