package linear

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"muster/test/lab"
)

// A leader that was paused or cut off does not take its state for the newest when others
// have gone on without it: a read through it shows what they acknowledged, or says that
// it may be old.
func TestAFormerLeaderDoesNotConfirm(t *testing.T) {
	lab.NeedsRoot(t)
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 3, lab.Options{NoInit: true, Network: network})
	const path = "/1.0/profiles/default"
	number := 0
	// write returns once a new value was acknowledged by another member than the victim.
	write := func(via *lab.Member) string {
		t.Helper()
		number++
		value := fmt.Sprint("v", number)
		for deadline := time.Now().Add(time.Minute); ; {
			answer, err := via.Request(t.Context(), http.MethodPatch, path, map[string]any{"description": value}, nil)
			if err == nil && answer.Code == http.StatusOK {
				return value
			}
			if time.Now().After(deadline) {
				t.Fatalf("no write within a minute: %d %s, %v", answer.Code, answer.Error, err)
			}
		}
	}
	leader := func() (victim, other *lab.Member) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			rows, err := members[0].Rows(t.Context())
			if i := slices.IndexFunc(rows, lab.Row.Leads); err == nil && i >= 0 {
				return members[i], members[(i+1)%3]
			}
			if time.Now().After(deadline) {
				t.Fatalf("nobody leads: %+v, %v", rows, err)
			}
		}
	}
	// read asks the victim after the value was acknowledged.
	var mu sync.Mutex
	fresh, old := 0, 0 // guarded by mu
	read := func(victim *lab.Member, value, when string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		answer, err := victim.Request(ctx, http.MethodGet, path, nil, nil)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			t.Errorf("%s: %v", when, err)
		case answer.Code != http.StatusOK:
			t.Errorf("%s: %d %s", when, answer.Code, answer.Error)
		case answer.Header.Get("Muster-Stale") != "":
			old++
		case (register{path, "description"}).value(answer) != value:
			t.Errorf("%s the former leader shows %q as the newest; %q was acknowledged before", when, (register{path, "description"}).value(answer), value)
		default:
			fresh++
		}
	}
	for range 4 {
		if _, err := members[0].Settled(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		victim, other := leader()
		read(victim, write(other), "before the pause")
		victim.Pause()
		value := write(other)
		var reading sync.WaitGroup
		for range 5 { // they wait in its socket when it goes on
			reading.Go(func() { read(victim, value, "after the pause") })
		}
		time.Sleep(50 * time.Millisecond) // any moment will do
		victim.Resume()
		reading.Wait()

		if _, err := members[0].Settled(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		victim, other = leader()
		network.Partition(victim)
		value = write(other)
		for range 20 {
			read(victim, value, "cut off")
		}
		network.Heal()
	}
	t.Logf("%d reads through former leaders were fresh, %d said that they may be old", fresh, old)
}
