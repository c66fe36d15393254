package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"muster/test/lab"
)

// A worker moves to another address, alone and with all others, says what it knows of the
// database, and is no place to recover from when the voters are gone for good.
func TestAWorkerMovesAndOutlivesTheVoters(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 4, lab.Options{Network: lab.NewNetwork(t), NoInit: true})
	first := members[0]
	if _, err := first.Do(t.Context(), http.MethodPatch, "/1.0", map[string]any{"config": map[string]string{"cluster.max_standby": "0"}}); err != nil {
		t.Fatal(err)
	}
	var works []lab.Row
	eventually(t, func() string {
		if works = rows(t, first, 4, lab.Row.Works); len(works) != 1 {
			return fmt.Sprintf("%+v are workers; want one", works)
		}
		return ""
	})
	at, err := strconv.Atoi(strings.TrimPrefix(works[0].Name, "m"))
	if err != nil {
		t.Fatal(err)
	}
	worker := members[at-1]
	voters := slices.Delete(slices.Clone(members), at-1, at)
	eventually(t, func() string { return strings.Join(logs(worker), " ") })
	listing, recovering := []string{"cluster", "list-database"}, []string{"cluster", "recover-from-quorum-loss"}
	hosts := func(net string) []string {
		var all []string
		for i := range members {
			all = append(all, fmt.Sprintf("%s.%d", net, i+1))
		}
		return all
	}

	t.Run("it says what it knows of the database", func(t *testing.T) {
		mustSay(t, worker, false, "", listing, works[0].Name+" (this member)", "is a worker", "| voter    | voter")
		mustSay(t, voters[0], false, "", listing, "| worker   | worker")
		if err := worker.Stop(); err != nil {
			t.Fatal(err)
		}
		mustSay(t, worker, false, "", listing, works[0].Name+" (this member)", "is a worker", "voter or stand-by")
	})

	t.Run("it moves while it is down", func(t *testing.T) {
		now := hosts("10.77.0")
		renumber(t, worker, fmt.Sprintf("10.77.1.%d", at), now[at-1])
		now[at-1] = fmt.Sprintf("10.77.1.%d", at)
		mustSay(t, worker, false, "", []string{"cluster", "set-address", now[at-1] + ":8443"})
		worker.Up()
		addresses(t, members, now...)
		renumber(t, worker, fmt.Sprintf("10.77.0.%d", at))
		if _, err := worker.Do(t.Context(), http.MethodPatch, "/1.0", map[string]any{"config": map[string]string{"core.https_address": fmt.Sprintf("10.77.0.%d:8443", at)}}); err != nil {
			t.Fatal(err)
		}
		renumber(t, worker, "", now[at-1])
		addresses(t, members, hosts("10.77.0")...)
	})

	t.Run("all move at once", func(t *testing.T) {
		for _, m := range members {
			if err := m.Stop(); err != nil {
				t.Fatal(err)
			}
		}
		for i, m := range members {
			renumber(t, m, fmt.Sprintf("10.77.2.%d", i+1), fmt.Sprintf("10.77.0.%d", i+1))
			for j := range members {
				mustSay(t, m, false, "", []string{"cluster", "set-address", fmt.Sprintf("m%d", j+1), fmt.Sprintf("10.77.2.%d:8443", j+1)})
			}
		}
		var starting sync.WaitGroup
		for _, m := range members {
			starting.Go(m.Up)
		}
		starting.Wait()
		addresses(t, members, hosts("10.77.2")...)
		if _, err := worker.Settled(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
	})

	survivor := voters[2]
	voters[0].Kill()
	voters[1].Kill()
	t.Run("without a majority its reads say how old they are", func(t *testing.T) {
		answer, err := worker.Request(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "never"}, nil)
		if err != nil || answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Error, "recover-from-quorum-loss") {
			t.Errorf("a write answered %d %q, %v; want 503 with what to do", answer.Code, answer.Error, err)
		}
		answer, err = worker.Request(t.Context(), http.MethodGet, "/1.0/profiles", nil, nil)
		seconds, _ := strconv.Atoi(answer.Header.Get("Muster-Stale"))
		if err != nil || answer.Code != http.StatusOK || seconds < 2 {
			t.Errorf("a read answered %d, %v with Muster-Stale %q; want 200 and some seconds", answer.Code, err, answer.Header.Get("Muster-Stale"))
		}
		mustSay(t, worker, false, "", listing, "is a worker")
	})

	t.Run("the recovery is for a voter", func(t *testing.T) {
		if err := survivor.Stop(); err != nil {
			t.Fatal(err)
		}
		mustSay(t, survivor, true, "no\n", recovering, works[0].Name, "it is a worker")
		if err := worker.Stop(); err != nil {
			t.Fatal(err)
		}
		mustSay(t, worker, true, "yes\n", recovering, "is a worker and has no copy of the database")
		mustSay(t, survivor, false, "", append(recovering, "--yes"), "Start the daemon")
		survivor.Up()
		if _, err := survivor.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "after"}); err != nil {
			t.Error(err)
		}
	})

	t.Run("the worker forgets, and joins again", func(t *testing.T) {
		worker.Launched()
		eventually(t, func() string {
			answer, err := worker.Request(t.Context(), http.MethodGet, "/1.0/profiles", nil, nil)
			if err != nil || answer.Code != http.StatusForbidden || !strings.Contains(answer.Error, "was removed from its cluster") {
				return fmt.Sprintf("answered %d %q, %v", answer.Code, answer.Error, err)
			}
			return ""
		})
		if err := worker.Stop(); err != nil {
			t.Errorf("a removed member ends with %v", err)
		}
		mustSay(t, worker, false, "", []string{"cluster", "forget", "--yes"})
		worker.Up()
		mustJoin(t, worker, survivor, fmt.Sprintf("10.77.2.%d:8443", at))
		if err := worker.Get(t.Context(), "/1.0/profiles/after", &struct{}{}); err != nil {
			t.Error(err)
		}
	})
	voters[0].Abandon()
	voters[1].Abandon()
	worker.Purges()
	survivor.Purges(survivor)
}

// mustJoin makes a member join at an address that is not its first one.
func mustJoin(t *testing.T, m, first *lab.Member, address string) {
	t.Helper()
	mustSay(t, m, false, "", []string{"init", "--token", lab.Encode(first.Token("m9")), "--address", address})
}
