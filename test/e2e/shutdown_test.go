package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/test/lab"
)

// shutDown runs musterd shutdown on the members and wants each to end.
func shutDown(t *testing.T, members ...*lab.Member) {
	t.Helper()
	var ending sync.WaitGroup
	for _, m := range members {
		ending.Go(func() {
			if out, err := m.Command("musterd", "shutdown", "--timeout", "120").CombinedOutput(); err != nil {
				t.Errorf("shutdown: %v\n%s%s", err, out, m.Log())
			}
		})
	}
	ending.Wait()
	for _, m := range members {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if err := m.Exited(ctx); err != nil {
			t.Errorf("the daemon in %s: %v", m.Dir, err)
		}
		cancel()
	}
}

// containers are the processes and mounts of the member's containers on this machine, for
// one whose daemon does not run.
func containers(m *lab.Member) string {
	left := slices.DeleteFunc(lab.Leftovers(m.Dir), func(what string) bool {
		return strings.Contains(what, "dnsmasq") || strings.Contains(what, "musterd")
	})
	return strings.Join(left, "\n")
}

// A whole cluster is shut down, in turn and at once, and is as it was whichever member
// starts first. Stopping what runs needs no majority, also while a member waits for one.
func TestAWholeClusterIsShutDown(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t)})
	first, second, third := members[0], members[1], members[2]
	first.Busybox()
	for i, target := range []string{"m1", "m2", "m3"} {
		for _, suffix := range []string{"a", "b"} {
			first.Muster("launch", "busybox", fmt.Sprintf("c%d%s", i+1, suffix), "--target", target)
		}
	}
	first.Muster("stop", "c3b")
	first.Muster("config", "set", "c2b", "boot.stop.priority=5")
	const want = "c1a Running m1\nc1b Running m1\nc2a Running m2\nc2b Running m2\nc3a Running m3\nc3b Stopped m3\n"
	asBefore := func() {
		t.Helper()
		for _, m := range members {
			eventually(t, func() string {
				var found []struct{ Name, Status, Location string }
				if err := m.Get(t.Context(), "/1.0/instances?recursion=1", &found); err != nil {
					return err.Error()
				}
				var got strings.Builder
				for _, inst := range found {
					fmt.Fprintln(&got, inst.Name, inst.Status, inst.Location)
				}
				if got.String() != want {
					return fmt.Sprintf("the instances are\n%swant\n%s", got.String(), want)
				}
				return ""
			})
			status(t, m, "m1 Online", "m2 Online", "m3 Online")
		}
	}
	nothingRuns := func() {
		t.Helper()
		for _, m := range members {
			if left := containers(m); left != "" {
				t.Errorf("after the shutdown there are still\n%s", left)
			}
		}
	}
	start := func(order ...*lab.Member) {
		t.Helper()
		for _, m := range order {
			m.Launched()
		}
	}
	asBefore()

	t.Run("in turn", func(t *testing.T) {
		for _, m := range members {
			shutDown(t, m)
		}
		nothingRuns()
		start(third, first, second)
		asBefore()
	})
	t.Run("at once", func(t *testing.T) {
		shutDown(t, members...)
		nothingRuns()
		start(second, third, first)
		asBefore()
	})
	t.Run("one that waits for the others", func(t *testing.T) {
		second.Kill()
		third.Kill()
		first.Kill()
		first.Launched()
		eventually(t, func() string {
			answer, err := first.Request(t.Context(), "GET", "/1.0", nil, nil)
			if err != nil || answer.Code != 503 {
				return fmt.Sprintf("a member without the others answers %d, %v; want 503", answer.Code, err)
			}
			return ""
		})
		shutDown(t, first)
		if left := containers(first); left != "" {
			t.Errorf("after the shutdown there are still\n%s", left)
		}
		start(third, second, first)
		asBefore()
	})
}

// What runs on a member that is made a server of its own would be nobody's: forget names it,
// and stops it only when told to.
func TestForgetSaysWhatRuns(t *testing.T) {
	t.Parallel()
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	m.Muster("launch", "busybox", "c1")
	m.Kill()
	mustSay(t, m, true, "", []string{"cluster", "forget", "--yes"}, "(1)", "c1", "--stop-instances")
	if !strings.Contains(containers(m), "c1") {
		t.Error("what was refused has stopped the container")
	}
	mustSay(t, m, false, "", []string{"cluster", "forget", "--yes", "--stop-instances"}, "Stopped c1")
	if left := containers(m); left != "" {
		t.Errorf("after forget there are still\n%s", left)
	}
	mustSay(t, m, false, "", []string{"cluster", "forget", "--yes"})
	m.Up()
	if out := m.Muster("list", "--format", "csv"); out != "" {
		t.Errorf("after forget there are the instances %s", out)
	}
}
