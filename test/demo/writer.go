package main

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"muster/test/lab"
)

// counter is the key that the writer writes.
const counter = "user.demo"

// writer is a client that changes the cluster's state all the time, and lists the
// instances beside it.
type writer struct {
	working sync.WaitGroup
	stop    context.CancelFunc

	mu sync.Mutex
	// acks are when writes were acknowledged, one number after the other. Guarded by mu.
	acks []time.Time
	// last is the last number that was acknowledged; guarded by mu.
	last int
	// slowest is the longest that a list took; guarded by mu.
	slowest time.Duration
}

// startWriter begins to write and to list through a member.
func startWriter(ctx context.Context, through *lab.Member) *writer {
	ctx, stop := context.WithCancel(ctx)
	w := &writer{stop: stop}
	w.working.Go(func() { w.write(ctx, through) })
	w.working.Go(func() { w.list(ctx, through) })
	return w
}

func (w *writer) write(ctx context.Context, through *lab.Member) {
	for number := 1; ctx.Err() == nil; number++ {
		change := map[string]any{"config": map[string]string{counter: strconv.Itoa(number)}}
		answer, err := through.Request(ctx, http.MethodPatch, "/1.0/cluster/members/m1", change, nil)
		if err != nil || answer.Code != http.StatusOK {
			time.Sleep(time.Millisecond) // a refusal that comes at once is no reason to spin
			continue
		}
		w.mu.Lock()
		w.acks, w.last = append(w.acks, time.Now()), number
		w.mu.Unlock()
	}
}

func (w *writer) list(ctx context.Context, through *lab.Member) {
	for ctx.Err() == nil {
		began := time.Now()
		_, err := through.Request(ctx, http.MethodGet, "/1.0/instances?recursion=1", nil, nil)
		if err == nil {
			w.mu.Lock()
			w.slowest = max(w.slowest, time.Since(began))
			w.mu.Unlock()
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// acknowledged is how many writes were, since a moment.
func (w *writer) acknowledged(since time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	count := 0
	for _, ack := range w.acks {
		if ack.After(since) {
			count++
		}
	}
	return count
}

// end stops the work and waits until it has.
func (w *writer) end() {
	w.stop()
	w.working.Wait()
}

// gap is the longest time between two acknowledged writes of which the second came
// after since.
func (w *writer) gap(since time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return lab.LongestGap(w.acks, since)
}
