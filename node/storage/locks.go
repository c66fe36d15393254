package storage

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"muster/state"
)

// locks are read-write locks by name. The zero value is ready. A waiting writer
// keeps new readers out, so whoever needs several names takes them in sorted
// order.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	sem   *semaphore.Weighted
	users int
}

const everyReader = 1 << 30

// read waits until nobody writes under the name.
func (l *locks) read(ctx context.Context, name string) (unlock func(), err error) {
	return l.acquire(ctx, name, 1)
}

// write waits until nobody reads or writes under the name.
func (l *locks) write(ctx context.Context, name string) (unlock func(), err error) {
	return l.acquire(ctx, name, everyReader)
}

func (l *locks) acquire(ctx context.Context, name string, n int64) (func(), error) {
	l.mu.Lock()
	held := l.held[name]
	if held == nil {
		held = &lock{sem: semaphore.NewWeighted(everyReader)}
		if l.held == nil {
			l.held = map[string]*lock{}
		}
		l.held[name] = held
	}
	held.users++
	l.mu.Unlock()

	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if held.users--; held.users == 0 {
			delete(l.held, name)
		}
	}
	if err := held.sem.Acquire(ctx, n); err != nil {
		leave()
		return nil, state.Errorf(state.ErrUnavailable, "waiting for another change of %s: %w", name, err)
	}
	return func() {
		held.sem.Release(n)
		leave()
	}, nil
}
