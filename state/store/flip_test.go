package store

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var seed = flag.Int64("seed", 0, "seed of the random choices; 0 takes a new one and prints it")

// Whatever byte of the database's files is another one, the store opens as it was, or refuses
// by a sentence: libraft, which would end the process or forget in silence, does not meet it.
func TestAFlippedByteIsNeverACrash(t *testing.T) {
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("repeat with -seed %d", *seed)
	random := rand.New(rand.NewSource(*seed))
	whole := t.TempDir()
	s := open(t, whole)
	populate(t, s)
	for n := range 300 { // enough for a snapshot
		must(t, s, SetSettings{Cluster: map[string]string{"n": fmt.Sprint(n)}})
	}
	want := s.View().Revision()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	paths := files(t, whole, "*")
	refused := 0
	for round := range 60 {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(round))
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(paths[random.Intn(len(paths))])
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if len(content) == 0 {
			continue
		}
		at := random.Intn(len(content))
		if random.Intn(2) == 0 {
			at = random.Intn(min(len(content), 64)) // heads are small
		}
		content[at] ^= byte(1 + random.Intn(255))
		put(t, dir, name, content)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		again, err := Open(ctx, Config{Dir: dir, Member: self})
		cancel()
		what := fmt.Sprintf("round %d: byte %d of %s", round, at, name)
		if err != nil {
			refused++
			if !strings.Contains(err.Error(), "damaged or incomplete") && !strings.Contains(err.Error(), "belongs to member") {
				t.Errorf("%s: %v; want a sentence that says what is damaged", what, err)
			}
			continue
		}
		if got := again.View().Revision(); got != want {
			t.Errorf("%s: revision %d; want %d", what, got, want)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	}
	t.Logf("%d refused", refused)
}
