package stream

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 0, "run the random history with this seed")

// Files, directories and links of few names change into each other at random,
// streams are cut at random and go on after other changes. Whenever one comes
// through, source and target are the same, names of one file included.
func TestRandomHistory(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	r := rand.New(rand.NewPCG(s, 1))
	src, h := bed(t), newHeap(t)
	whole, cuts, sentFiles := 0, 0, int64(0)
	for round := range 400 {
		for range r.IntN(20) {
			mutate(r, src.RootFS)
		}
		data, stats := sent(t, h.inventory(t.Context()), src)
		sentFiles += stats.Files
		if cut := r.IntN(len(data) * 2); cut < len(data) {
			data = data[:cut]
		}
		_, err := Receive(t.Context(), bytes.NewReader(data), h)
		if errors.Is(err, ErrDamaged) {
			cuts++
			continue
		}
		noError(t, err)
		whole++
		if got, want := contents(t, h.source()), contents(t, src); got != want {
			t.Fatalf("round %d:\n%s\nwant\n%s", round, got, want)
		}
	}
	t.Logf("%d streams came through, %d were cut, %d files were sent", whole, cuts, sentFiles)
}

// mutate makes one change below root. What it cannot do it does not.
func mutate(r *rand.Rand, root string) {
	path := func() string {
		p := root
		for range 1 + r.IntN(2) {
			p = filepath.Join(p, fmt.Sprint(r.IntN(4)))
		}
		return p
	}
	// Most of these fail half of the time, and that is as good.
	switch r.IntN(14) {
	case 0, 1, 11:
		_ = os.Mkdir(path(), 0o755)
	case 2, 3, 12:
		_ = os.WriteFile(path(), bytes.Repeat([]byte{byte(r.IntN(3))}, r.IntN(3)*5000), 0o644)
	case 4, 5, 13:
		_ = os.Link(path(), path())
	case 6:
		_ = os.Rename(path(), path())
	case 7:
		if r.IntN(3) == 0 {
			_ = os.RemoveAll(path())
		}
	case 8:
		_ = os.Symlink(fmt.Sprint(r.IntN(3)), path())
	case 9:
		if p := path(); !isLink(p) {
			_ = os.Chmod(p, os.FileMode(0o700+r.IntN(8)))
		}
	case 10:
		if p := path(); !isLink(p) {
			_ = os.Truncate(p, int64(r.IntN(20_000)))
		}
	}
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err != nil || info.Mode()&os.ModeSymlink != 0
}
