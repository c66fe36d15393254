package e2e

import (
	"fmt"
	"math/rand"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// rows waits until that many members are online and settled, and returns those that pick
// picks.
func rows(t *testing.T, m *lab.Member, count int, pick func(lab.Row) bool) []lab.Row {
	t.Helper()
	all, err := m.Settled(t.Context(), count)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(r lab.Row) bool { return !pick(r) })
}

// logs are the consensus logs on a member's disk.
func logs(m *lab.Member) []string {
	var found []string
	for _, log := range []string{"database", "raft"} {
		kept, _ := filepath.Glob(filepath.Join(m.Dir, log+"*"))
		for _, dir := range kept {
			if ext := filepath.Ext(dir); ext != ".used" && ext != ".lives" { // they stand beside the logs
				found = append(found, filepath.Base(dir))
			}
		}
	}
	return found
}

// Members that are neither voters nor stand-bys have no database, do all that members
// do, and become voters when one is lost: all while they run.
func TestWorkers(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 5, lab.Options{Network: lab.NewNetwork(t), Args: []string{"--verbose"}})
	first := members[0]
	byName := map[string]*lab.Member{}
	for i, m := range members {
		byName[fmt.Sprintf("m%d", i+1)] = m
	}
	of := func(rows []lab.Row) []*lab.Member {
		var found []*lab.Member
		for _, row := range rows {
			found = append(found, byName[row.Name])
		}
		return found
	}
	write := func(m *lab.Member, name string) {
		t.Helper()
		if _, err := m.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": name}); err != nil {
			t.Errorf("write %s: %v", name, err)
		}
	}
	reads := func(name string, among ...*lab.Member) {
		t.Helper()
		for _, m := range among {
			if err := m.Get(t.Context(), "/1.0/profiles/"+name, &struct{}{}); err != nil {
				t.Errorf("read %s: %v", name, err)
			}
		}
	}
	standby := rows(t, first, 5, lab.Row.StandsBy)
	if votes := rows(t, first, 5, lab.Row.Votes); len(votes) != 3 || len(standby) != 2 {
		t.Fatalf("five members are %+v and %+v; want three voters and two that stand by", votes, standby)
	}

	// What runs on a member goes on while it gives its database up.
	first.Busybox()
	name := standby[0].Name
	first.Run("lxc", "launch", "local:busybox", "local:c1", "--target", name)
	pids := map[*lab.Member]int{}
	for _, m := range members {
		pids[m] = m.PID()
	}
	said := make(chan string)
	other := of(standby)[1]
	go func() {
		out, err := other.Command("lxc", "exec", "local:c1", "--", "sh", "-c", "sleep 4; echo still here").Output()
		said <- fmt.Sprint(string(out), err)
	}()
	if _, err := first.Do(t.Context(), http.MethodPatch, "/1.0", map[string]any{"config": map[string]string{"cluster.max_standby": "0"}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if left := rows(t, first, 5, lab.Row.StandsBy); len(left) > 0 {
			return fmt.Sprintf("%+v still stand by", left)
		}
		return ""
	})
	workers := of(rows(t, first, 5, lab.Row.Works))
	if len(workers) != 2 {
		t.Fatalf("%d workers; want two", len(workers))
	}
	for _, w := range workers {
		eventually(t, func() string { return strings.Join(logs(w), " ") })
	}
	if out := <-said; out != "still here\n<nil>" {
		t.Errorf("an exec while its member became a worker printed %q", out)
	}

	t.Run("a worker answers everything", func(t *testing.T) {
		for i, w := range workers {
			write(w, fmt.Sprint("worker", i))
			reads(fmt.Sprint("worker", i), members...)
		}
		write(first, "theirs")
		reads("theirs", workers...)
		workers[0].Run("lxc", "launch", "local:busybox", "local:c2", "--target", name)
		if out := workers[1].Run("lxc", "exec", "local:c2", "--", "echo", "on a worker"); out != "on a worker\n" {
			t.Errorf("exec on a worker printed %q", out)
		}
		if out := first.Run("lxc", "list", "local:", "--format=csv", "-c", "nsL"); out != fmt.Sprintf("c1,RUNNING,%s\nc2,RUNNING,%s\n", name, name) {
			t.Errorf("lxc list printed %q", out)
		}
		first.Run("lxc", "delete", "--force", "local:c1", "local:c2")
		if list := workers[0].Run("lxc", "cluster", "list", "local:"); !strings.Contains(list, "Fully operational") {
			t.Errorf("lxc cluster list printed\n%s", list)
		}
	})

	t.Run("a worker that is killed comes back as one", func(t *testing.T) {
		workers[0].Kill()
		write(workers[1], "meanwhile")
		began := time.Now()
		workers[0].Up()
		t.Logf("ready %v after its start", time.Since(began).Round(time.Millisecond))
		pids[workers[0]] = workers[0].PID()
		reads("meanwhile", workers[0])
		if left := logs(workers[0]); len(left) > 0 {
			t.Errorf("on its disk is %v", left)
		}
	})

	// The one that is lost is no leader, so that only its vote is missed.
	lost := of(rows(t, first, 5, func(r lab.Row) bool { return r.Votes() && !r.Leads() && !r.Coordinates() }))[0]
	rest := slices.DeleteFunc(slices.Clone(members), func(m *lab.Member) bool { return m == lost })
	t.Run("a worker takes the place of a voter that is lost", func(t *testing.T) {
		lost.Kill()
		began := time.Now()
		eventually(t, func() string {
			if votes := rows(t, workers[0], 4, lab.Row.Votes); len(votes) != 3 {
				return fmt.Sprintf("%+v vote", votes)
			}
			return ""
		})
		t.Logf("three vote again %v after one was killed", time.Since(began).Round(time.Millisecond))
		for _, m := range rest {
			if m.PID() != pids[m] {
				t.Error("a member was started anew")
			}
		}
		lost.Up()
		// It finds out that it is a worker now, and drops what it had.
		eventually(t, func() string { return strings.Join(logs(lost), " ") })
		reads("meanwhile", lost)
		write(lost, "back")
		reads("back", members...)
	})

	t.Run("writes go on after the leader was killed", func(t *testing.T) {
		leads := of(rows(t, first, 5, lab.Row.Leads))[0]
		works := of(rows(t, first, 5, lab.Row.Works))[0]
		rows(t, works, 5, lab.Row.Works) // it has heard of all of them
		leads.Kill()
		began := time.Now()
		write(works, "after")
		t.Logf("a worker's write took %v when the leader was killed", time.Since(began).Round(time.Millisecond))
		// Both workers are needed now, should another be lost.
		var votes []*lab.Member
		eventually(t, func() string {
			if votes = of(rows(t, works, 4, lab.Row.Votes)); len(votes) != 3 || slices.Contains(votes, leads) {
				return fmt.Sprintf("%d vote, or the one that was killed does", len(votes))
			}
			return ""
		})
		second := votes[0]
		if second == works {
			second = votes[1]
		}
		second.Kill()
		write(works, "after-the-second")
		leads.Up()
		second.Up()
		for _, m := range members {
			if _, err := m.Settled(t.Context(), 5); err != nil {
				t.Error(err)
			}
		}
		reads("after", members...)
		reads("after-the-second", members...)
	})

	t.Run("a voter that is removed is replaced, and a worker leaves without a trace", func(t *testing.T) {
		for range 2 {
			here := of(rows(t, members[0], len(members), func(r lab.Row) bool { return r.Name == "m1" }))
			if len(here) != 1 {
				t.Fatal("m1 is not there")
			}
			gone := rows(t, members[0], len(members), func(r lab.Row) bool { return r.Votes() && r.Name != "m1" })[0].Name
			if len(members) == 4 {
				gone = rows(t, members[0], len(members), lab.Row.Works)[0].Name
			}
			began := time.Now()
			// It is asked itself, and answers although it is cut off at that moment.
			if _, err := byName[gone].Do(t.Context(), http.MethodDelete, "/1.0/cluster/members/"+gone, nil); err != nil {
				t.Fatalf("remove %s: %v", gone, err)
			}
			t.Logf("removed in %v", time.Since(began).Round(time.Millisecond))
			members = slices.DeleteFunc(slices.Clone(members), func(m *lab.Member) bool { return m == byName[gone] })
			if votes := rows(t, members[0], len(members), lab.Row.Votes); len(votes) != 3 {
				t.Errorf("after %s was removed %+v vote; want three", gone, votes)
			}
			write(members[0], "without-"+gone)
			reads("without-"+gone, members...)
			eventually(t, func() string {
				var alone struct{ Enabled bool }
				if err := byName[gone].Get(t.Context(), "/1.0/cluster", &alone); err != nil || alone.Enabled {
					return fmt.Sprintf("the removed member is in a cluster: %v, %v", alone.Enabled, err)
				}
				return ""
			})
			// It is a server of its own again, with a database of its own.
			eventually(t, func() string {
				if own := logs(byName[gone]); len(own) != 2 {
					return fmt.Sprintf("the removed member has %v on its disk", own)
				}
				return ""
			})
		}
		// One that was removed, the first perhaps, can't clean up for the others.
		byName["m5"].Purges(members[0])
	})
}

// Members are killed while their roles change, again and again: none forgets what was
// acknowledged, and each ends up with what its role asks for, on its disk too.
func TestRolesChangeWhileMembersAreKilled(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 5, lab.Options{Network: lab.NewNetwork(t), Args: []string{"--verbose"}, NoInit: true})
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewSource(seed))
	settings := []map[string]string{
		{"cluster.max_voters": "3", "cluster.max_standby": "0"},
		{"cluster.max_voters": "3", "cluster.max_standby": "2"},
		{"cluster.max_voters": "1", "cluster.max_standby": "1"},
		{"cluster.max_voters": "5", "cluster.max_standby": "0"},
		{"cluster.max_voters": "1", "cluster.max_standby": "0"},
	}
	// do tries until it succeeds: whoever is asked may be waiting for an election.
	do := func(what string, try func() error) {
		t.Helper()
		eventually(t, func() string {
			if err := try(); err != nil {
				return what + ": " + err.Error()
			}
			return ""
		})
	}
	for round := range 12 {
		config := settings[chance.Intn(len(settings))]
		via := members[chance.Intn(len(members))]
		do("change the settings", func() error {
			_, err := via.Do(t.Context(), http.MethodPatch, "/1.0", map[string]any{"config": config})
			return err
		})
		time.Sleep(time.Duration(chance.Intn(900)) * time.Millisecond)
		victim := chance.Intn(len(members))
		members[victim].Kill()
		time.Sleep(time.Duration(chance.Intn(3000)) * time.Millisecond)
		members[victim].Up()
		name := fmt.Sprint("round", round)
		writer := members[chance.Intn(len(members))]
		do("write", func() error {
			_, err := writer.Do(t.Context(), http.MethodPut, "/1.0/profiles/default", map[string]any{"description": name})
			return err
		})
		if _, err := members[0].Settled(t.Context(), 5); err != nil {
			t.Fatalf("round %d, %v, m%d was killed: %v", round, config, victim+1, err)
		}
		for i, m := range members {
			eventually(t, func() string {
				all, err := m.Settled(t.Context(), 5)
				if err != nil {
					return err.Error()
				}
				held := logs(m)
				if all[i].Works() != (len(held) == 0) {
					return fmt.Sprintf("round %d, %v, m%d was killed: m%d has the roles %v and on its disk %v", round, config, victim+1, i+1, all[i].Roles, held)
				}
				var profile struct{ Description string }
				if err := m.Get(t.Context(), "/1.0/profiles/default", &profile); err != nil || profile.Description != name {
					return fmt.Sprintf("m%d shows %q, %v; want %q", i+1, profile.Description, err, name)
				}
				return ""
			})
		}
	}
}
