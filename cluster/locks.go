package cluster

import (
	"context"
	"sync"

	"muster/state"
)

// locks gives each subject (an instance, a network, …) to one change at a time.
// A change that comes second waits; the third tells the caller what it waits
// for. Waiters are served in the order they came.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock // guarded by mu
}

type lock struct {
	// action is what the holder does, for the sentence a waiter gets.
	action  string
	waiters []chan struct{}
}

// acquire waits until the subject is free and takes it for action. The error is
// state.ErrConflict when ctx ends first. The caller must call release once.
func (l *locks) acquire(ctx context.Context, subject, action string) (release func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	current, busy := l.held[subject]
	if !busy {
		l.held[subject] = &lock{action: action}
		l.mu.Unlock()
		return sync.OnceFunc(func() { l.release(subject) }), nil
	}
	turn := make(chan struct{})
	current.waiters = append(current.waiters, turn)
	doing := current.action
	l.mu.Unlock()

	select {
	case <-turn:
		l.mu.Lock()
		l.held[subject].action = action
		l.mu.Unlock()
		return sync.OnceFunc(func() { l.release(subject) }), nil
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, waiter := range current.waiters {
			if waiter == turn {
				current.waiters = append(current.waiters[:i], current.waiters[i+1:]...)
				return nil, state.Errorf(state.ErrConflict, "%s is busy (%s): %w", subject, doing, ctx.Err())
			}
		}
		// The turn came in the same moment: pass it on.
		l.pass(subject)
		return nil, state.Errorf(state.ErrConflict, "%s is busy (%s): %w", subject, doing, ctx.Err())
	}
}

func (l *locks) release(subject string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pass(subject)
}

// pass hands the subject to the next waiter; the caller holds mu.
func (l *locks) pass(subject string) {
	current := l.held[subject]
	if len(current.waiters) == 0 {
		delete(l.held, subject)
		return
	}
	next := current.waiters[0]
	current.waiters = current.waiters[1:]
	close(next)
}
