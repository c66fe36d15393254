package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
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

// Who votes gives its vote to another before shutdown returns: the next may be lost at once.
// The row of one that is gone says that it has no database any more.
func TestAVoteIsHandedOver(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 5, lab.Options{Network: lab.NewNetwork(t)})
	last := members[4]
	// shown is which members vote as m says, and which have the database.
	shown := func(m *lab.Member) (votes []int, database []bool) {
		t.Helper()
		var rows []struct {
			lab.Row
			Database bool
		}
		if err := m.Get(t.Context(), "/1.0/cluster/members?recursion=1", &rows); err != nil {
			t.Fatal(err)
		}
		for i, row := range rows {
			if row.Votes() {
				votes = append(votes, i)
			}
			database = append(database, row.Database)
		}
		return votes, database
	}
	gone := map[int]bool{}
	// The voters that go first are others than the one that is asked, the leaders among them.
	for range 2 {
		votes, _ := shown(last)
		goes := votes[0]
		shutDown(t, members[goes])
		gone[goes] = true
		votes, _ = shown(last)
		if len(votes) != 3 || slices.ContainsFunc(votes, func(i int) bool { return gone[i] }) {
			t.Errorf("after m%d was shut down these vote: %v, of which %v are gone; want three others", goes+1, votes, gone)
		}
		eventually(t, func() string {
			if _, database := shown(last); database[goes] {
				return fmt.Sprintf("m%d is gone and shown as having the database", goes+1)
			}
			return ""
		})
	}
	votes, _ := shown(last)
	for _, one := range votes {
		if members[one] != last {
			members[one].Kill()
			gone[one] = true
			break
		}
	}
	// Two of the three that vote now are there.
	if _, err := last.Do(t.Context(), "POST", "/1.0/profiles", map[string]any{"name": "after"}); err != nil {
		t.Error(err)
	}
	var back []*lab.Member
	for i, m := range members {
		if gone[i] {
			m.Launched()
			back = append(back, m)
		}
	}
	// Online to the others is also one that was killed just now, or that starts.
	for _, m := range back {
		if m.AwaitReady() {
			t.Fatalf("the daemon in %s ended", m.Dir)
		}
	}
	status(t, last, "m1 Online", "m2 Online", "m3 Online", "m4 Online", "m5 Online")

	// All five at once, while each looks for another to take its vote.
	if _, err := last.Settled(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	shutDown(t, members...)
	for _, m := range append(back, members...) {
		if m.Ended() {
			m.Launched()
		}
	}
	for _, m := range members {
		status(t, m, "m1 Online", "m2 Online", "m3 Online", "m4 Online", "m5 Online")
		if err := m.Get(t.Context(), "/1.0/profiles/after", &struct{}{}); err != nil {
			t.Error(err)
		}
	}
	if _, err := last.Settled(t.Context(), 5); err != nil {
		t.Error(err)
	}
}

// waitready returns when what starts with the daemon runs, also the last of it.
func TestReadyWhenWhatStartsWithItRuns(t *testing.T) {
	t.Parallel()
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	for _, name := range []string{"c1", "c2", "c3"} {
		m.Muster("launch", "busybox", name, "-c", "boot.autostart=true", "-c", "boot.autostart.delay=1")
	}
	shutDown(t, m)
	m.Up() // it uses waitready
	var found []struct{ Name, Status string }
	if err := m.Get(t.Context(), "/1.0/instances?recursion=1", &found); err != nil {
		t.Fatal(err)
	}
	for _, inst := range found {
		if inst.Status != "Running" {
			t.Errorf("the daemon is ready and %s is %s", inst.Name, inst.Status)
		}
	}
}

// When the operation of an upload or a publication ends, the image is on all the members
// that are to have it.
func TestAnImageIsOnItsReplicasWhenItIsThere(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 4, lab.Options{Network: lab.NewNetwork(t)})
	first := members[0]
	holders := func(alias string) (count int) {
		t.Helper()
		var target struct{ Target string }
		if err := first.Get(t.Context(), "/1.0/images/aliases/"+alias, &target); err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			if files, err := filepath.Glob(filepath.Join(m.Dir, "images", target.Target+"*")); err == nil && len(files) > 0 {
				count++
			}
		}
		return count
	}
	first.Busybox()
	if count := holders("busybox"); count != 3 {
		t.Errorf("the image that was uploaded is on %d members; want 3", count)
	}
	first.Muster("init", "busybox", "c1", "--target", "m2")
	first.Muster("publish", "c1", "--alias", "published")
	if count := holders("published"); count != 3 {
		t.Errorf("the image that was published is on %d members; want 3", count)
	}
	// A member that is gone holds nobody up.
	members[3].Kill()
	status(t, first, "m1 Online", "m2 Online", "m3 Online", "m4 Offline")
	first.Muster("publish", "c1", "--alias", "again", "user.x=1")
	if count := holders("again"); count != 3 {
		t.Errorf("the image that was published with a member offline is on %d members; want 3", count)
	}
	members[3].Up()
}

// A restart waits for its guest as long as it is told to, and holds up no shutdown; nothing
// starts on a member that goes down.
func TestShutdownEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	m.Muster("launch", "busybox", "deaf", "-c", "boot.host_shutdown_timeout=1")
	m.Muster("exec", "deaf", "--", "sh", "-c", `rm /sbin/init; printf '#!/bin/sh\nwhile :; do sleep 1; done\n' >/sbin/init; chmod 755 /sbin/init`)
	m.Muster("restart", "--force", "deaf")
	if _, err := m.Do(t.Context(), http.MethodPut, "/1.0/instances/deaf/state", map[string]any{"action": "stop", "timeout": 2}); err == nil {
		t.Fatal("the guest hears that it is to halt")
	}
	answer, err := m.Request(t.Context(), http.MethodPut, "/1.0/instances/deaf/state", map[string]any{"action": "restart", "timeout": -1}, nil)
	if err != nil || answer.Code != http.StatusAccepted {
		t.Fatal(answer.Code, answer.Error, err)
	}
	shutDown(t, m)
	if left := containers(m); left != "" {
		t.Errorf("after the shutdown there are still\n%s", left)
	}
	m.Up()
	var found struct{ Status string }
	if err := m.Get(t.Context(), "/1.0/instances/deaf", &found); err != nil || found.Status != "Running" {
		t.Errorf("after the next start the instance is %s, %v; want it running again", found.Status, err)
	}
	m.Muster("stop", "--force", "deaf")
}
