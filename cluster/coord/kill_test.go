package coord_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/cluster/coord"
)

// proposeUntilKilled writes to stdout the ID of each operation once it is
// acknowledged, "s ID" for started and "f ID" for finished.
func proposeUntilKilled(dir string) {
	ctx := context.Background()
	n, err := coord.Open(ctx, config(dir))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				if _, err := n.Propose(ctx, start(id)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				fmt.Printf("s %s\n", id)
				if _, err := n.Propose(ctx, finish(id, coord.Success, "")); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				fmt.Printf("f %s\n", id)
			}
		})
	}
	group.Wait()
}

func TestKillLosesNothingThatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]string{}
	for round := range 8 {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), "MUSTER_TEST_COORD_DIR="+dir)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			what, id, whole := strings.Cut(lines.Text(), " ")
			if !whole {
				t.Fatalf("read %q", lines.Text())
			}
			acknowledged[id] = what
			if n == 50+round*37 {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // it was killed

		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		n, err := coord.Open(ctx, config(dir))
		cancel()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for id, what := range acknowledged {
			op, known := n.Operation(id)
			switch {
			case !known:
				t.Errorf("round %d: operation %s was acknowledged and is gone", round, id)
			case what == "f" && op.Status != coord.Success:
				t.Errorf("round %d: operation %s is %s %s; its success was acknowledged", round, id, op.Status, op.Err)
			case !op.Status.Final():
				t.Errorf("round %d: operation %s still runs after its daemon was killed", round, id)
			}
		}
		if t.Failed() {
			t.Fatalf("of %d acknowledged", len(acknowledged))
		}
		shut(t, n)
	}
	if len(acknowledged) < 200 {
		t.Errorf("only %d operations were acknowledged: the test proves little", len(acknowledged))
	}
}
