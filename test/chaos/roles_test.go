package chaos

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"muster/test/lab"
)

// A member that is killed at any step of becoming a stand-by, or a worker again, starts by itself
// and becomes it, and nothing that was acknowledged is lost.
func TestAMemberStartsAfterAKillAtAnyStepOfARoleChange(t *testing.T) {
	lab.NeedsRoot(t)
	lab.NeedsWatching(t)
	if *seed == 0 {
		*seed = time.Now().UnixNano()
	}
	t.Logf("repeat with -seed %d", *seed)
	members := lab.ClusterOf(t, 2, lab.Options{NoInit: true})
	first, second := members[0], members[1]
	set := func(key, value string) {
		t.Helper()
		if _, err := first.Do(t.Context(), http.MethodPatch, "/1.0", map[string]any{"config": map[string]string{key: value}}); err != nil {
			t.Fatal(err)
		}
	}
	var written writer
	shows := func(when string, is func(lab.Row) bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		for {
			rows, err := first.Settled(ctx, 2)
			if err == nil && slices.ContainsFunc(rows, func(r lab.Row) bool { return r.Name == "m2" && is(r) }) {
				break
			}
			if ctx.Err() != nil || second.Ended() {
				t.Fatalf("%s: the second member does not become what it should: %+v (%v)\n%s", when, rows, err, lastLines(second.Log(), 12))
			}
			time.Sleep(50 * time.Millisecond)
		}
		if !written.write(t.Context(), second) {
			t.Errorf("%s: it takes no writes", when)
		}
		written.check(t, second, when)
	}
	set("cluster.max_voters", "1")
	for _, change := range []struct {
		name, from, to string
		was, becomes   func(lab.Row) bool
	}{
		{"take part", "0", "1", lab.Row.Works, lab.Row.StandsBy},
		{"stand aside", "1", "0", lab.Row.StandsBy, lab.Row.Works},
	} {
		t.Run(change.name, func(t *testing.T) {
			// change has the second member's roles changed, until it has died or become it.
			turn := func(call lab.Call) (watch *lab.Watch) {
				set("cluster.max_standby", change.from)
				shows("before", change.was)
				second.Kill()
				watch = second.LaunchedWatched(lab.Call{})
				if second.AwaitReady() {
					t.Fatalf("it does not start\n%s", lastLines(second.Log(), 12))
				}
				shows("before", change.was)
				watch.Arm(call)
				set("cluster.max_standby", change.to)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for !second.Ended() && ctx.Err() == nil {
					rows, err := first.Rows(ctx)
					if err == nil && slices.ContainsFunc(rows, func(r lab.Row) bool {
						return r.Name == "m2" && r.Status == "Online" && change.becomes(r) && r.Message == "Fully operational"
					}) {
						break
					}
					time.Sleep(20 * time.Millisecond)
				}
				second.Kill()
				return watch
			}
			counts := turn(lab.Call{}).Counts()
			second.Up()
			sweep(t, change.name, stepsFor(t)/2, counts, func(call lab.Call) (hit bool, lost int) {
				watch := turn(call)
				killed := watch.Killed()
				when := fmt.Sprintf("%s, killed at %s", change.name, killed)
				if lose := call.Nth % 3; killed != "" && lose > 0 {
					var err error
					if lost, err = watch.LosePower(lose == 1); err != nil {
						t.Errorf("%s: %v", when, err)
					}
					when = fmt.Sprintf("%s, %d writes lost", when, lost)
				}
				second.Launched()
				if second.AwaitReady() {
					t.Fatalf("%s: it does not start again\n%s", when, lastLines(second.Log(), 12))
				}
				shows(when, change.becomes)
				return killed != "", lost
			})
		})
	}
}
