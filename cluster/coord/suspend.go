package coord

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"muster/state"
	"muster/state/disk"
)

// A member whose log can't be written closes it and keeps it: it then votes for nobody and
// does not stand for election. Its replica follows another member's log, as a worker's
// does. The same log is opened again when the disk can be written.

// logHealth is what became of the writes to a log. The first that fails is the last one.
type logHealth struct {
	mu  sync.Mutex
	err error // guarded by mu: why a write failed
	// given is closed when nobody is to wait for the disk any more.
	given    chan struct{}
	giveOnce sync.Once
}

func newLogHealth() *logHealth { return &logHealth{given: make(chan struct{})} }

// failed is why a write failed, or nil.
func (h *logHealth) failed() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// fail records why the log must not go on.
func (h *logHealth) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
	}
}

// write is one write to the log.
func (h *logHealth) write(write func() error) error {
	if err := h.failed(); err != nil {
		return err
	}
	err := write()
	if disk.Refuses(err) {
		h.fail(err)
	}
	return err
}

// must is a write whose failure raft takes for the end of the process: a term or a vote. It
// waits instead, so that this member says nothing more, until giveUp.
func (h *logHealth) must(write func() error) error {
	err := h.write(write)
	if !disk.Refuses(err) && !errors.Is(err, errStuck) {
		return err
	}
	<-h.given
	return nil
}

// giveUp lets go of who waits in must. The member must be cut off from the others by then:
// what raft does next is not on disk.
func (h *logHealth) giveUp() { h.giveOnce.Do(func() { close(h.given) }) }

// errStuck is why a coordinator that commits nothing gives up: another may be able to.
var errStuck = fmt.Errorf("this member coordinated and could not commit for %v", leaderWait)

// giveUpStuck watches one proposal, and has the log closed and opened again when it stays
// unanswered while this member coordinates.
func (s *seat) giveUpStuck() (answered func()) {
	timer := time.AfterFunc(leaderWait, func() {
		if s.raft.State() == raft.Leader && !s.alone() {
			s.disk.wal.health.fail(errStuck)
		}
	})
	return func() { timer.Stop() }
}

// watched is the node as the watch of its disk handles it.
type watched struct{ n *Node }

// Trouble is what keeps this member from its part in the coordination log.
func (n *Node) Trouble() state.Trouble { return n.watch.Trouble() }

// openSeat opens the log. One that is there and can't be written is left suspended.
func (n *Node) openSeat(ctx context.Context) error {
	_, begun := os.Stat(filepath.Join(n.cfg.Dir, metaFile))
	s, err := takeSeat(ctx, n.cfg, n.replica)
	if begun == nil && disk.Refuses(err) {
		n.watch.SuspendFrom(err)
		return nil
	}
	if err != nil {
		return err
	}
	n.sit(s)
	return nil
}

// Open implements disk.Log.
func (w watched) Open() bool { return w.n.seat.Load() != nil }

// Refused implements disk.Log.
func (w watched) Refused() error {
	if s := w.n.seat.Load(); s != nil {
		return s.disk.wal.health.failed()
	}
	return nil
}

// Suspend implements disk.Log.
func (w watched) Suspend(ctx context.Context) error {
	n := w.n
	n.seating.Lock()
	defer n.seating.Unlock()
	s := n.seat.Load()
	if s == nil || n.closed.Load() {
		return nil
	}
	if s.disk.wal.health.failed() == nil {
		if err := n.HandOver(ctx); err != nil {
			n.cfg.Log.DebugContext(ctx, "hand the coordination over", "error", err)
		}
	}
	n.seat.Store(nil)
	return s.close()
}

// Resume implements disk.Log.
func (w watched) Resume(ctx context.Context) error {
	n := w.n
	n.seating.Lock()
	defer n.seating.Unlock()
	if n.closed.Load() {
		return ErrNotApplied
	}
	cfg := n.cfg
	cfg.Bootstrap = false
	s, err := takeSeat(ctx, cfg, n.replica)
	if err != nil {
		return err
	}
	n.sit(s)
	return nil
}
