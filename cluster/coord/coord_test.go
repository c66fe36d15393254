package coord_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"muster/cluster/coord"
)

func open(t testing.TB, dir string) *coord.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n, err := coord.Open(ctx, coord.Config{Dir: dir, ID: "ant", Bootstrap: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func task(id string) coord.StartOperation {
	return coord.StartOperation{Operation: coord.Operation{
		ID: id, Class: coord.ClassTask, Description: "Starting instance", Member: "ant", Project: "default",
		Resources: map[string][]string{"instances": {"/1.0/instances/c1"}}, CreatedAt: time.Now(), UpdatedAt: time.Now(),
	}}
}

func BenchmarkPropose(b *testing.B) {
	for _, workers := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d at once", workers), func(b *testing.B) {
			n := open(b, b.TempDir())
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					for i := w; i < b.N; i += workers {
						id := fmt.Sprint(w, "-", i)
						if _, err := n.Propose(b.Context(), task(id)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	b.Run("first start", func(b *testing.B) {
		for range b.N {
			dir := b.TempDir()
			b.StartTimer()
			n, err := coord.Open(b.Context(), coord.Config{Dir: dir, ID: "ant", Bootstrap: true})
			b.StopTimer()
			if err != nil {
				b.Fatal(err)
			}
			n.Close()
		}
	})
	b.Run("restart", func(b *testing.B) {
		dir := b.TempDir()
		for range b.N {
			b.StartTimer()
			n, err := coord.Open(b.Context(), coord.Config{Dir: dir, ID: "ant", Bootstrap: true})
			b.StopTimer()
			if err != nil {
				b.Fatal(err)
			}
			n.Close()
		}
	})
}
