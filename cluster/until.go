package cluster

import (
	"context"
	"time"

	"muster/state"
	"muster/state/store"
)

// lookEvery is how often a wait looks whether the cluster can still come to what is waited
// for.
const lookEvery = time.Second

// hopelessAfter is for how long nobody may lead before a wait is given up: what is
// recorded does not change any more, and nobody is declared offline.
const hopelessAfter = 5 * time.Second

// until waits until the cluster is as wanted. wanted is asked again whenever the View
// shows more, and whenever the coordination log does, since a member that is waited for
// may have been declared offline: wanted must then not insist on it. It ends with ctx,
// and when no majority is left that could bring it about.
func (c *Cluster) until(ctx context.Context, wanted func(*store.View) bool) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		view := c.store.View()
		var verdicts <-chan struct{}
		if c.cfg.Coord != nil {
			verdicts = c.cfg.Coord.Moved(c.cfg.Coord.Applied())
		}
		if wanted(view) {
			return nil
		}
		select {
		case <-c.store.Moved(view.Revision()):
		case <-verdicts:
		case <-look.C:
			if c.store.Stale() > hopelessAfter {
				return state.Errorf(state.ErrUnavailable, "no majority of the database members is left to see it through")
			}
		case <-c.store.Ended():
			return state.Errorf(state.ErrUnavailable, "the daemon is shutting down")
		case <-ctx.Done():
			return state.Errorf(state.ErrUnavailable, "it takes too long: %w", ctx.Err())
		}
	}
}
