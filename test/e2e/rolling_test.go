package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"muster/test/lab"
)

// writing changes a profile through a member all the time, until it is stopped, and
// reports every write that failed and the longest time that one took.
type writing struct {
	stop func() (longest time.Duration, writes int, failed []string)
}

func writeThrough(t *testing.T, m *lab.Member, profile string) writing {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	var longest time.Duration
	var writes int
	var failed []string
	work.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			answer, err := m.Request(t.Context(), http.MethodPatch, "/1.0/profiles/"+profile, map[string]any{"description": fmt.Sprint(writes)}, nil)
			longest = max(longest, time.Since(began))
			writes++
			if err != nil || answer.Code != http.StatusOK {
				failed = append(failed, fmt.Sprintf("%d %q, %v after %v", answer.Code, answer.Error, err, time.Since(began)))
			}
		}
	})
	return writing{func() (time.Duration, int, []string) {
		cancel()
		work.Wait()
		return longest, writes, failed
	}}
}

// All members are restarted one after the other, with clients at the others all the
// time: none of their writes fails, and none is lost.
func TestRollingRestart(t *testing.T) {
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t), NoInit: true})
	online := func() {
		t.Helper()
		for _, m := range members {
			status(t, m, "m1 Online", "m2 Online", "m3 Online")
		}
	}
	online()
	eventually(t, func() string {
		var rows []member
		if err := members[0].Get(t.Context(), "/1.0/cluster/members?recursion=1", &rows); err != nil {
			return err.Error()
		}
		for _, row := range rows {
			if len(row.Roles) == 0 {
				return row.ServerName + " has no role"
			}
		}
		return ""
	})
	for i := range members {
		if _, err := members[0].Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": fmt.Sprintf("p%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	var worst time.Duration
	total := 0
	for round := range 2 {
		for i, m := range members {
			clients := map[int]writing{}
			for j, other := range members {
				if j != i {
					clients[j] = writeThrough(t, other, fmt.Sprintf("p%d", j))
				}
			}
			began := time.Now()
			m.Run("musterd", "shutdown", "--keep-instances")
			if err := m.Exited(t.Context()); err != nil {
				t.Errorf("m%d ended with %v", i+1, err)
			}
			m.Up()
			back := time.Since(began)
			online()
			for j, client := range clients {
				longest, writes, failed := client.stop()
				worst = max(worst, longest)
				total += writes
				for _, failure := range failed {
					t.Errorf("round %d, m%d restarts: a write through m%d: %s", round, i+1, j+1, failure)
				}
				eventually(t, func() string {
					var shown struct{ Description string }
					if err := m.Get(t.Context(), fmt.Sprintf("/1.0/profiles/p%d", j), &shown); err != nil || shown.Description != fmt.Sprint(writes-1) && failed == nil {
						return fmt.Sprintf("m%d shows write %q, %v; the last through m%d was %d", i+1, shown.Description, err, j+1, writes-1)
					}
					return ""
				})
				t.Logf("round %d: m%d was away for %v; through m%d %d writes, the longest %v", round, i+1, back.Round(time.Millisecond), j+1, writes, longest.Round(time.Millisecond))
			}
		}
	}
	t.Logf("%d writes, the longest took %v", total, worst.Round(time.Millisecond))
	if worst > 3*time.Second {
		t.Errorf("a write took %v; want at most 3 s", worst)
	}
}
