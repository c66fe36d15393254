package coord

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"muster/state"
)

func threeNodes(t *testing.T) (*lan, []*Node) {
	t.Helper()
	l := newLan()
	nodes := []*Node{l.open(t, "ant", t.TempDir(), true), l.open(t, "bee", t.TempDir(), false), l.open(t, "cat", t.TempDir(), false)}
	for _, id := range []string{"bee", "cat"} {
		if err := nodes[0].Assign(t.Context(), map[string]bool{"ant": true, "bee": true, id: true}); err != nil {
			t.Fatal(err)
		}
	}
	return l, nodes
}

// An operation that was acknowledged through one member is seen through every other by a
// read that begins later, and a read leaves nothing in the log.
func TestReadsAreFreshThroughAnyMember(t *testing.T) {
	l, nodes := threeNodes(t)
	nodes = append(nodes, l.worker(t, "dog", t.TempDir()))
	var clients sync.WaitGroup
	for c := range 3 {
		clients.Go(func() {
			for i := range 40 {
				writer, reader := nodes[(i+c)%4], nodes[(i/4+c)%4]
				id := fmt.Sprint(c, "-", i)
				if _, err := writer.Propose(t.Context(), StartOperation{Operation{ID: id, Class: ClassTask, Member: writer.cfg.ID}}); err != nil {
					t.Error(err)
				}
				if err := reader.Fresh(t.Context()); err != nil {
					t.Errorf("read through %s: %v", reader.cfg.ID, err)
				}
				if _, known := reader.Operation(id); !known {
					t.Errorf("%s does not know what %s had started", reader.cfg.ID, writer.cfg.ID)
				}
			}
		})
	}
	clients.Wait()
	before := nodes[0].Applied()
	for range 10 {
		for _, n := range nodes {
			if err := n.Barrier(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if after := nodes[0].Applied(); after != before {
		t.Errorf("reading moved the log from %d to %d", before, after)
	}
}

// A coordinator that the others can't be asked about confirms nothing; who vouches for it
// makes a majority of three, but not if it has no vote.
func TestACoordinatorNeedsAMajority(t *testing.T) {
	l, nodes := threeNodes(t)
	ant := nodes[0]
	eventually(t, "both follow", func() bool {
		return nodes[1].KnownCoordinator() == "ant" && nodes[2].KnownCoordinator() == "ant"
	})
	if _, err := ant.LeaderIndex(t.Context(), ""); err != nil {
		t.Errorf("with both: %v", err)
	}
	l.mu.Lock()
	delete(l.nodes, "bee")
	delete(l.nodes, "cat")
	l.mu.Unlock()
	if index, err := ant.LeaderIndex(t.Context(), ""); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("with nobody to ask: %d, %v; want ErrUnavailable", index, err)
	}
	if _, err := ant.LeaderIndex(t.Context(), "bee"); err != nil {
		t.Errorf("when bee vouches: %v", err)
	}
	if index, err := ant.LeaderIndex(t.Context(), "dog"); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("when a stranger vouches: %d, %v; want ErrUnavailable", index, err)
	}
}

// One that coordinated and was replaced confirms nothing, and its own reads are fresh
// again once it hears of its successor.
func TestAFormerCoordinatorConfirmsNothing(t *testing.T) {
	_, nodes := threeNodes(t)
	ant := nodes[0]
	if err := ant.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another coordinates", func() bool {
		_, bee := nodes[1].Leading()
		_, cat := nodes[2].Leading()
		return bee || cat
	})
	if index, err := ant.LeaderIndex(t.Context(), "bee"); err == nil {
		if _, leads := ant.Leading(); !leads {
			t.Errorf("a former coordinator says %d", index)
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	_, err := nodes[1].Propose(t.Context(), StartOperation{Operation{ID: "later", Class: ClassTask, Member: "bee"}})
	// The coordinator may change once more on a busy machine; who proposes then does not know.
	for errors.Is(err, state.ErrUnavailable) && time.Now().Before(deadline) {
		_, err = nodes[1].Propose(t.Context(), StartOperation{Operation{ID: "later", Class: ClassTask, Member: "bee"}})
	}
	if err != nil && !errors.Is(err, state.ErrExists) {
		t.Fatal(err)
	}
	for ant.Barrier(t.Context()) != nil && time.Now().Before(deadline) {
	}
	if _, known := ant.Operation("later"); !known {
		t.Error("the former coordinator's read misses what was started under the next")
	}
}
