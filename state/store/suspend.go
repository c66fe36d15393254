package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"muster/state"
	"muster/state/disk"
)

// A member whose log can't be written closes its node and keeps the log: it then votes for
// nobody and does not stand for election. Its View follows another member and its commands
// go to the leader, as a worker's do. The node is opened again on the same log when the
// disk can be written.

// watched is the store as the watch of its disk handles it.
type watched struct{ s *Store }

// Trouble is what keeps this member from its part in the database.
func (s *Store) Trouble() state.Trouble { return s.watch.Trouble() }

// openSeat opens the node. A log that is there and can't be written is left suspended.
func (s *Store) openSeat(ctx context.Context) error {
	_, begun := os.Stat(filepath.Join(s.cfg.Dir, identityFile))
	st, err := takeSeat(ctx, s.cfg, s.hub, s.broken)
	if begun == nil && disk.Refuses(err) {
		s.watch.SuspendFrom(err)
		return nil
	}
	if err != nil {
		return err
	}
	s.seat.Store(st)
	return nil
}

// Open implements disk.Log.
func (w watched) Open() bool { return w.s.seat.Load() != nil }

// Refused implements disk.Log.
func (w watched) Refused() error {
	st := w.s.seat.Load()
	if st == nil {
		return nil
	}
	if err := st.fence.err(); err != nil {
		return err
	}
	if st.writer.stuck.Load() {
		return errStuck
	}
	return nil
}

// errStuck is why a leader that commits nothing gives up: another may be able to.
var errStuck = fmt.Errorf("this member led the database and could not commit for %v", patience)

// handOverPatience bounds how long a leader tries to hand over: the others elect one within
// a second.
const handOverPatience = 500 * time.Millisecond

// Suspend implements disk.Log.
func (w watched) Suspend(ctx context.Context) error {
	s := w.s
	s.seating.Lock()
	defer s.seating.Unlock()
	st := s.seat.Load()
	if st == nil {
		return nil
	}
	if st.fence.err() == nil {
		handing, cancel := context.WithTimeout(ctx, handOverPatience)
		defer cancel()
		if err := s.HandOver(handing); err != nil {
			s.cfg.Log.DebugContext(ctx, "hand the database over", "error", err)
		}
	}
	s.seat.Store(nil)
	s.saw("")
	st.resign()       //nolint:contextcheck // what ends a node ends, whoever waits for it (seat.whole)
	return st.close() //nolint:contextcheck // likewise
}

// Resume implements disk.Log.
func (w watched) Resume(ctx context.Context) error {
	s := w.s
	s.seating.Lock()
	defer s.seating.Unlock()
	if s.background.Err() != nil {
		return errClosed
	}
	cfg := s.cfg
	cfg.Join = true // the directory says whose it is
	st, err := takeSeat(ctx, cfg, s.hub, s.broken)
	if err != nil {
		return err
	}
	s.seat.Store(st)
	return nil
}
