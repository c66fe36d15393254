package coord

import (
	"context"
	"time"
)

const (
	// minVisible is how long a finished operation stays, whatever the limit
	// (specs: stock clients ask for an operation up to 5 s after its end).
	minVisible = 5 * time.Second
	// trimEvery spaces the entries that forget operations.
	trimEvery = 5 * time.Second
)

// coordinate runs the log's own control loops while this member leads: it
// records the term, forgets finished operations and ends leases that nobody
// renews. All of them measure by this member's clock and act by entries, so no
// other clock matters.
func (s *seat) coordinate(ctx context.Context) {
	var loop *watch
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case leads := <-s.raft.LeaderCh():
			loop = nil
			if leads {
				loop = s.takeOffice(ctx)
			} else {
				s.cfg.Log.Info("this member no longer coordinates")
			}
		case <-s.attention:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		wait := time.Hour
		if loop != nil {
			wait = s.tend(ctx, loop)
		}
		timer.Reset(wait)
	}
}

// takeOffice records the new term. It returns nil when leadership was lost
// again meanwhile.
func (s *seat) takeOffice(ctx context.Context) *watch {
	term := s.raft.CurrentTerm()
	if _, err := s.commit(ctx, coordinatorElected{Member: s.cfg.ID, Term: term}); err != nil {
		if ctx.Err() == nil {
			s.cfg.Log.Warn("could not take office as coordinator", "term", term, "error", err)
		}
		return nil
	}
	s.cfg.Log.Info("this member coordinates", "term", term)
	select {
	case <-s.led:
	default:
		close(s.led)
	}
	return &watch{leases: map[string]seenLease{}}
}

// watch is what a coordinator has seen since it took office, by its own clock.
type watch struct {
	leases map[string]seenLease
	// ended are the finished operations with the moment they were seen.
	ended    []seenEnd
	lastTrim time.Time
}

type seenLease struct {
	renewed uint64
	at      time.Time
}

type seenEnd struct {
	index uint64
	at    time.Time
}

// tend does what is due and returns how long nothing else will be.
func (s *seat) tend(ctx context.Context, w *watch) time.Duration {
	now := time.Now()
	next := min(s.tendLeases(ctx, w, now), s.tendFinished(ctx, w, now))
	return max(next, 10*time.Millisecond)
}

func (s *seat) tendLeases(ctx context.Context, w *watch, now time.Time) time.Duration {
	next := time.Hour
	held := map[string]seenLease{}
	for _, lease := range s.Leases() {
		seen := w.leases[lease.Name]
		if seen.renewed != lease.Renewed {
			seen = seenLease{lease.Renewed, now}
		}
		held[lease.Name] = seen
		left := lease.TTL - now.Sub(seen.at)
		if left > 0 {
			next = min(next, left)
			continue
		}
		// A failure is tried again at the next look.
		next = min(next, time.Second)
		if _, err := s.commit(ctx, ExpireLease{Name: lease.Name, Renewed: lease.Renewed}); err != nil {
			s.cfg.Log.Debug("could not end a lease", "lease", lease.Name, "error", err)
		}
	}
	w.leases = held
	return next
}

func (s *seat) tendFinished(ctx context.Context, w *watch, now time.Time) time.Duration {
	for _, index := range s.finishedSince(w.newest()) {
		w.ended = append(w.ended, seenEnd{index, now})
	}
	over := len(w.ended) - s.cfg.MaxFinished
	due := 0
	for i, end := range w.ended {
		age := now.Sub(end.at)
		if age < minVisible || (age < s.cfg.KeepFinished && i >= over) {
			break
		}
		due = i + 1
	}
	if wait := trimEvery - now.Sub(w.lastTrim); due > 0 && wait > 0 {
		return wait
	}
	if due > 0 {
		w.lastTrim = now
		if _, err := s.commit(ctx, trimOperations{UpTo: w.ended[due-1].index}); err != nil {
			s.cfg.Log.Debug("could not forget finished operations", "error", err)
			return trimEvery
		}
		w.ended = w.ended[due:]
	}
	switch {
	case len(w.ended) == 0:
		return time.Hour
	case len(w.ended) > s.cfg.MaxFinished:
		return minVisible
	}
	return s.cfg.KeepFinished - now.Sub(w.ended[0].at)
}

func (w *watch) newest() uint64 {
	if len(w.ended) == 0 {
		return 0
	}
	return w.ended[len(w.ended)-1].index
}

// finishedSince returns the indexes at which operations ended after index.
func (r *Replica) finishedSince(index uint64) []uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var indexes []uint64
	for i := len(r.content.finished) - 1; i >= 0 && r.content.finished[i].index > index; i-- {
		indexes = append(indexes, r.content.finished[i].index)
	}
	for i, j := 0, len(indexes)-1; i < j; i, j = i+1, j-1 {
		indexes[i], indexes[j] = indexes[j], indexes[i]
	}
	return indexes
}
