package readindex

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"muster/state"
)

const (
	// wait is how long a read waits for what was acknowledged before it.
	wait = time.Second
	// lookAgain is the pause before a member that can't tell how old its state is asks
	// again.
	lookAgain = 50 * time.Millisecond
)

// Reader makes the reads of one member fresh.
type Reader struct {
	newest *Rounds[uint64]
	shown  func(context.Context, uint64) error
	// since is since when this member can't tell how old its state is; nil while it can.
	since atomic.Pointer[time.Time]
	// news has room for one: since was set.
	news chan struct{}
}

// NewReader returns a Reader that asks newest for the index of the last entry that was
// acknowledged anywhere, and shown to return once this member shows that index. Run has
// to be running.
func NewReader(newest func(context.Context) (uint64, error), shown func(context.Context, uint64) error) *Reader {
	return &Reader{newest: NewRounds(newest), shown: shown, news: make(chan struct{}, 1)}
}

// errBlind is the answer of Fresh while nobody says what is the newest.
var errBlind = state.Errorf(state.ErrUnavailable, "no leader says what is the newest")

// Fresh returns nil when this member shows everything that was acknowledged anywhere
// before the call. After a second it is ErrUnavailable, and from then on at once, until a
// leader answers again.
func (r *Reader) Fresh(ctx context.Context) error {
	if r.since.Load() != nil {
		return errBlind
	}
	began := time.Now()
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := r.CatchUp(waiting)
	if err != nil && ctx.Err() == nil && r.since.CompareAndSwap(nil, &began) {
		r.news <- struct{}{} // has room: Run took the last before it cleared since
	}
	return err
}

// CatchUp is Fresh for those that have their own patience.
func (r *Reader) CatchUp(ctx context.Context) error {
	index, err := r.newest.Join(ctx)
	if err != nil {
		return err
	}
	return r.shown(ctx, index)
}

// Stale is for how long this member has not been able to tell how old its state is.
func (r *Reader) Stale() time.Duration {
	if since := r.since.Load(); since != nil {
		return time.Since(*since)
	}
	return 0
}

// Run does the asking until ctx is done.
func (r *Reader) Run(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() { r.newest.Run(ctx) })
	for {
		select {
		case <-r.news:
			r.regain(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// regain asks again and again until a leader has answered and this member shows that.
func (r *Reader) regain(ctx context.Context) {
	for {
		waiting, cancel := context.WithTimeout(ctx, wait)
		err := r.CatchUp(waiting)
		cancel()
		if err == nil {
			r.since.Store(nil)
			return
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return
		}
	}
}
