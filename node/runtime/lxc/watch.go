package lxc

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/runtime/lxc/wire"
)

// watcher remembers which containers are watched, and which are to be.
type watcher struct {
	// wake has room for one: Run looks at pending when it gets it.
	wake chan struct{}

	// mu guards what follows.
	mu      sync.Mutex
	watched map[string]bool
	pending []string
}

func (w *watcher) init() {
	w.wake = make(chan struct{}, 1)
	w.watched = map[string]bool{}
}

func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = nil
}

// add has a container watched, unless it is.
func (w *watcher) add(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watched[id] {
		return
	}
	w.watched[id] = true
	w.pending = append(w.pending, id)
	w.signal()
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns the containers to begin with.
func (w *watcher) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	pending := w.pending
	w.pending = nil
	return pending
}

func (w *watcher) drop(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watched, id)
}

// putBack has a container watched by the next Run.
func (w *watcher) putBack(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = append(w.pending, id)
	w.signal()
}

// queue passes events on without making those who find them wait.
type queue struct {
	ready chan struct{}
	// mu guards events.
	mu     sync.Mutex
	events []runtime.Event
}

func (q *queue) put(event runtime.Event) {
	q.mu.Lock()
	q.events = append(q.events, event)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *queue) take() []runtime.Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := q.events
	q.events = nil
	return events
}

// Run implements runtime.Runtime. A container costs a goroutine that sleeps on a
// pidfd.
func (r *Runtime) Run(ctx context.Context, handle func(runtime.Event)) error {
	group, ctx := errgroup.WithContext(ctx)
	events := &queue{ready: make(chan struct{}, 1)}
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-events.ready:
			}
			for _, event := range events.take() {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				handle(event)
			}
		}
	})
	group.Go(func() error {
		for {
			for _, id := range r.watch.take() {
				group.Go(func() error { return r.follow(ctx, id, events.put) })
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-r.watch.wake:
			}
		}
	})
	return group.Wait()
}

// follow watches one container until it has ended.
func (r *Runtime) follow(ctx context.Context, id string, emit func(runtime.Event)) error {
	for {
		again, err := r.followOne(ctx, id, emit)
		if ctx.Err() != nil {
			r.watch.putBack(id)
			return ctx.Err()
		}
		if err != nil {
			r.log.Warn("a container can't be watched, looking again", "container", id, "err", err)
			again = true
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
		if again {
			continue
		}
		r.watch.drop(id)
		// Started again meanwhile, it was not watched a second time.
		c, between, err := r.look(id)
		if c != nil {
			c.close()
		}
		if err == nil && (c != nil || between) {
			r.watch.add(id)
		}
		return nil
	}
}

// followOne waits until the container's init ends and tells what that means. It
// returns true when there is another init to wait for.
func (r *Runtime) followOne(ctx context.Context, id string, emit func(runtime.Event)) (again bool, err error) {
	c, _, err := r.look(id)
	if err != nil {
		return false, err
	}
	if c != nil {
		defer c.close()
		if err := c.init.wait(ctx); err != nil {
			return false, err
		}
	}
	for {
		next, between, err := r.look(id)
		if err != nil {
			return false, err
		}
		switch {
		case next != nil:
			defer next.close()
			if c == nil || c.monitor == nil || next.monitor == nil || c.monitor.pid != next.monitor.pid {
				// It has ended and was started anew; nobody needs to hear of both.
				return true, nil
			}
			r.resettle(id)
			emit(runtime.Event{ID: id, Kind: runtime.EventRebooted, Info: r.info(next)})
			return true, nil
		case !between:
			emit(runtime.Event{ID: id, Kind: runtime.EventExited, Reason: r.reap(ctx, id)})
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// resettle gives the interfaces of a rebooted container what liblxc does not.
func (r *Runtime) resettle(id string) {
	spec, err := r.readSpec(id)
	if err == nil {
		err = r.settleNICs(spec)
	}
	if err != nil {
		r.log.Warn("the interfaces of a rebooted container are not as they should be", "container", id, "err", err)
	}
}

// reap cleans up after a container that has ended, and says why it did.
func (r *Runtime) reap(ctx context.Context, id string) runtime.ExitReason {
	defer r.locks.lock(id)()
	reason := r.exitReason(id)
	c, between, err := r.look(id)
	if c != nil {
		c.close()
	}
	if err == nil && c == nil && !between {
		err = r.cleanup(ctx, id)
	}
	if err != nil {
		r.log.Warn("what a container left behind can't be removed", "container", id, "err", err)
	}
	return reason
}

// exitReason reads why a container ended from what the daemon and the monitor
// left in its run directory.
func (r *Runtime) exitReason(id string) runtime.ExitReason {
	switch r.goal(id) {
	case wire.GoalStop:
		return runtime.ExitShutdown
	case wire.GoalKill:
		return runtime.ExitStopped
	}
	text, err := os.ReadFile(filepath.Join(r.run(id), wire.Exit))
	if errors.Is(err, os.ErrNotExist) {
		// The monitor was killed.
		return runtime.ExitCrash
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(text)))
	// Halting or powering off in a PID namespace looks like SIGINT (reboot(2)).
	if err == nil && (code == 0 || code == 128+int(unix.SIGINT)) {
		return runtime.ExitShutdown
	}
	return runtime.ExitCrash
}
