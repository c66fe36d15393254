package cluster

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"muster/state"
)

func TestLocksGiveASubjectToOneAtATime(t *testing.T) {
	var l locks
	var wg sync.WaitGroup
	inside, most := 0, 0
	var mu sync.Mutex
	for range 50 {
		wg.Go(func() {
			release, err := l.acquire(t.Context(), "instance c1", "start")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			mu.Lock()
			inside--
			mu.Unlock()
			release()
		})
	}
	wg.Wait()
	if most != 1 || len(l.held) != 0 {
		t.Errorf("most inside = %d, left = %d; want 1 and 0", most, len(l.held))
	}
}

func TestLocksSayWhatTheyWaitFor(t *testing.T) {
	var l locks
	release, err := l.acquire(t.Context(), "instance c1", "snapshot")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err = l.acquire(ctx, "instance c1", "stop")
	if !errors.Is(err, state.ErrConflict) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second acquire = %v; want a conflict that names the deadline", err)
	}
	release()
	again, err := l.acquire(t.Context(), "instance c1", "stop")
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again()
}
