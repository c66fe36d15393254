package coord

import (
	"slices"
	"testing"
	"time"
)

// A coordinator whose proposal stays unanswered closes its log, so that another takes over,
// and opens it again. One that is alone keeps it: nobody else could do better.
func TestACoordinatorThatCommitsNothingGivesUp(t *testing.T) {
	_, nodes := threeNodes(t)
	single := lone(t, t.TempDir(), Config{})
	eventually(t, "it coordinates", func() bool { _, leads := single.Leading(); return leads })
	begun := map[*Node]*seat{}
	for _, n := range append(nodes[:3:3], single) {
		begun[n] = n.seat.Load()
	}
	left := func(n *Node) bool { return n.seat.Load() != begun[n] }
	// Whoever coordinates when the time is up has to give up. Nobody may, in an election.
	for deadline := time.Now().Add(time.Minute); !slices.ContainsFunc(nodes, left); {
		if time.Now().After(deadline) {
			t.Fatal("nobody gives up within a minute")
		}
		for n, s := range begun {
			if !left(n) {
				defer s.giveUpStuck()() // as for a proposal that no answer comes to
			}
		}
		for again := time.Now().Add(2 * leaderWait); time.Now().Before(again) && !slices.ContainsFunc(nodes, left); {
			time.Sleep(2 * time.Millisecond)
		}
	}
	eventually(t, "all logs are open", func() bool {
		return !slices.ContainsFunc(nodes, func(n *Node) bool { return n.seat.Load() == nil || n.Trouble().Message != "" })
	})
	nodes[0].must(t, StartOperation{Operation{ID: "later", Class: ClassTask, Member: "ant"}})
	if left(single) {
		t.Error("one that is alone gave up")
	}
}
