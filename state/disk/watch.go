package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"muster/state"
)

// Log is a consensus log, as a Watch handles it.
type Log interface {
	// Open reports whether the log is open here.
	Open() bool
	// Refused is the first write that the disk refused since the log was opened, or
	// another reason why the log must not go on; nil when there is none.
	Refused() error
	// Suspend hands the leadership over if it can be, and closes the log: this member
	// neither votes nor stands for election then. The log stays as it is on disk.
	Suspend(ctx context.Context) error
	// Resume opens the same log again.
	Resume(ctx context.Context) error
}

// Config is what a Watch needs.
type Config struct {
	// Name is the log's in messages, such as "the database".
	Name string
	// Dir is the log's directory.
	Dir string
	// Reserve is how many bytes are kept for when the disk is full; 0 means none.
	Reserve int64
	Log     Log
	// Voters counts the other voters whose logs can be written, those whose logs can not,
	// and all voters; who is away is neither. Nil: this
	// member is the only one.
	Voters func() (fit, sick, all int)
	// Freeze is called before the reserve is given up: nothing else must use it up. Thaw
	// is called when it is complete again. Both may be nil.
	Freeze, Thaw func(context.Context)
	Logger       *slog.Logger
}

const (
	lookEvery  = 100 * time.Millisecond
	probeEvery = 500 * time.Millisecond
	// refillAfter is how long a log is open before its reserve is written, refillEvery and
	// refillStep how fast that goes: nobody waits for it.
	refillAfter = 5 * time.Second
	refillEvery = time.Second
	refillStep  = 8 << 20
	// floor is how much room there must be to open a log, or the reserve is given up.
	floor = 8 << 20
	// retryFirst and retryMost bound how long a log stays closed after a write that failed
	// when the disk seems to be well again.
	retryFirst = 500 * time.Millisecond
	retryMost  = 10 * time.Second
)

// Watch looks after the disk under one log. A log that can't be written is suspended until
// it can be. One that is short of room is suspended as long as most voters can do without
// it; else it goes on with the reserve.
type Watch struct {
	cfg     Config
	trouble atomic.Pointer[state.Trouble]
	probed  atomic.Pointer[error]
	disk    atomic.Pointer[Disk]

	// suspended says that the log was closed by Suspend; mu is held by who closes or opens
	// it, or changes that.
	mu        sync.Mutex
	suspended atomic.Bool
	// using says that the reserve is not whole, and can't be for want of room.
	using atomic.Bool

	// These belong to Run.
	retry, refill time.Time
	pause         time.Duration
	opened        time.Time
	frozen        bool
	// left is how much room there was when instances were frozen last.
	left             int64
	lastFailedReason string
}

// New returns a Watch, which looks when it runs.
func New(cfg Config) *Watch {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Watch{cfg: cfg}
}

// Trouble is what is wrong with the log's disk; its zero value says that nothing is.
func (w *Watch) Trouble() state.Trouble {
	if t := w.trouble.Load(); t != nil {
		return *t
	}
	return state.Trouble{}
}

// Suspended reports whether the log is closed until it can be written.
func (w *Watch) Suspended() bool { return w.suspended.Load() }

// Scarce reports whether most voters are short of room: only what frees some may be
// written then.
func (w *Watch) Scarce() bool {
	fit, sick, all := w.voters()
	if w.using.Load() {
		sick++
	} else {
		fit++
	}
	// Voters that are only away leave too few as well, but nobody's disk is full for that.
	return sick > 0 && fit <= all/2
}

func (w *Watch) voters() (fit, sick, all int) {
	if w.cfg.Voters == nil {
		return 0, 0, 1
	}
	return w.cfg.Voters()
}

// spared reports whether the others are a majority without this member.
func (w *Watch) spared() bool {
	fit, _, all := w.voters()
	return fit > all/2
}

// SuspendFrom records that the log could not be opened: it is as if it was suspended.
func (w *Watch) SuspendFrom(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.suspended.Store(true)
	w.say(state.Trouble{Broken: true, Message: w.message(why)})
}

// Refuses reports whether err says that a disk can't be written.
func Refuses(err error) bool {
	for _, number := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		if errors.Is(err, number) {
			return true
		}
	}
	return false
}

// Run looks after the log until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	var probing sync.WaitGroup
	defer probing.Wait()
	probing.Go(func() { w.probe(ctx) })
	defer func() {
		if d := w.disk.Swap(nil); d != nil {
			_ = d.Close()
		}
	}()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		w.look(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// probe tries the disk again and again: it may take long to answer.
func (w *Watch) probe(ctx context.Context) {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if d := w.disk.Load(); d != nil {
			err := d.Probe()
			if errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.EBADF) {
				err = nil // closed since
			}
			w.probed.Store(&err)
		}
	}
}

// look is one look at the log and its disk.
func (w *Watch) look(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	open := w.cfg.Log.Open()
	if !open && !w.suspended.Load() {
		// A worker has no log.
		if d := w.disk.Swap(nil); d != nil {
			_ = d.Close()
		}
		w.opened = time.Time{}
		w.say(state.Trouble{})
		return
	}
	if w.opened.IsZero() {
		w.opened = time.Now()
	}
	d := w.disk.Load()
	if d == nil {
		var err error
		if d, err = Open(w.cfg.Dir, w.cfg.Reserve); err != nil {
			w.cfg.Logger.DebugContext(ctx, "look at the disk", "error", err)
			return
		}
		w.disk.Store(d)
	}
	room, err := d.Room()
	if err != nil {
		w.cfg.Logger.DebugContext(ctx, "look at the disk", "error", err)
		return
	}
	failed := w.failed()
	tight := room < d.low+d.missing()
	w.using.Store(tight && !d.Whole())
	switch {
	case open && failed != nil, open && tight && w.spared():
		w.suspend(ctx, failed)
	case open:
		w.keep(ctx, d, room, tight)
	case failed != nil || time.Now().Before(w.retry):
		// Later.
	case !tight || !w.spared() && room+d.Held() >= floor:
		w.resume(ctx, d, room)
	}
}

// failed is why the disk can't be written, or nil.
func (w *Watch) failed() error {
	if w.cfg.Log.Open() {
		if err := w.cfg.Log.Refused(); err != nil {
			return err
		}
	}
	if probed := w.probed.Load(); probed != nil {
		return *probed
	}
	return nil
}

// keep looks after the reserve of an open log.
func (w *Watch) keep(ctx context.Context, d *Disk, room int64, tight bool) {
	switch {
	case tight:
		w.say(state.Trouble{Message: fmt.Sprintf("The disk of %s is almost full (%d MiB left): while most members are so, only stopping and deleting works", w.cfg.Name, room>>20)})
		if room < floor && d.Held() > 0 {
			w.giveUp(ctx, d)
			w.left, _ = d.Room()
		} else if w.frozen && room < w.left-1<<20 {
			// Something else uses it up.
			w.cfg.freeze(ctx)
			w.left = room
		}
	case d.Whole():
		w.say(state.Trouble{})
		w.thaw(ctx)
	case time.Since(w.opened) > refillAfter && time.Since(w.refill) > refillEvery:
		w.say(state.Trouble{})
		w.refill = time.Now()
		if err := d.TakeBack(refillStep); err != nil {
			w.cfg.Logger.WarnContext(ctx, "keep room for when the disk is full", "error", err)
		}
	default:
		w.say(state.Trouble{})
	}
}

func (w *Watch) giveUp(ctx context.Context, d *Disk) {
	w.freeze(ctx)
	w.cfg.Logger.WarnContext(ctx, "the disk is full: the room that was kept for this is given up", "log", w.cfg.Name)
	if err := d.GiveUp(); err != nil {
		w.cfg.Logger.WarnContext(ctx, "give up the room that was kept", "error", err)
	}
}

func (w *Watch) freeze(ctx context.Context) {
	if !w.frozen {
		w.cfg.freeze(ctx)
	}
	w.frozen = true
}

func (cfg *Config) freeze(ctx context.Context) {
	if cfg.Freeze != nil {
		cfg.Freeze(ctx)
	}
}

func (w *Watch) thaw(ctx context.Context) {
	if w.frozen && w.cfg.Thaw != nil {
		w.cfg.Thaw(ctx)
	}
	w.frozen = false
}

// suspend closes the log. failed is nil when it is only short of room.
func (w *Watch) suspend(ctx context.Context, failed error) {
	why := failed
	if why == nil {
		why = syscall.ENOSPC
	}
	// The news first: closing may take a moment.
	w.suspended.Store(true)
	w.say(state.Trouble{Broken: true, Message: w.message(why)})
	w.cfg.Logger.WarnContext(ctx, "a log is closed until its disk can be written", "log", w.cfg.Name, "error", why)
	if err := w.cfg.Log.Suspend(ctx); err != nil {
		w.cfg.Logger.WarnContext(ctx, "close a log whose disk can't be written", "log", w.cfg.Name, "error", err)
	}
	if failed != nil {
		if time.Since(w.retry) > time.Minute {
			w.pause = 0
		}
		w.pause = min(max(2*w.pause, retryFirst), retryMost)
		w.retry = time.Now().Add(w.pause)
	}
}

func (w *Watch) resume(ctx context.Context, d *Disk, room int64) {
	if room < d.low && d.Held() > 0 {
		w.giveUp(ctx, d)
	}
	if err := w.cfg.Log.Resume(ctx); err != nil {
		w.pause = min(max(2*w.pause, retryFirst), retryMost)
		w.retry = time.Now().Add(w.pause)
		w.say(state.Trouble{Broken: true, Message: w.message(err)})
		if text := err.Error(); text != w.lastFailedReason {
			w.lastFailedReason = text
			w.cfg.Logger.WarnContext(ctx, "open a log again", "log", w.cfg.Name, "error", err)
		}
		return
	}
	w.lastFailedReason = ""
	w.suspended.Store(false)
	w.opened = time.Now()
	w.cfg.Logger.WarnContext(ctx, "a log is open again: its disk can be written", "log", w.cfg.Name)
	w.say(state.Trouble{})
}

func (w *Watch) message(why error) string {
	if errors.Is(why, syscall.ENOSPC) || errors.Is(why, syscall.EDQUOT) {
		return fmt.Sprintf("The disk of %s is full: it takes part again when there is room", w.cfg.Name)
	}
	return fmt.Sprintf("The disk of %s can't be written (%v): it takes part again when it can", w.cfg.Name, why)
}

func (w *Watch) say(t state.Trouble) { w.trouble.Store(&t) }

// Guard runs f unless the log is suspended, and keeps it from being suspended or opened
// meanwhile. It reports whether f ran.
func (w *Watch) Guard(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.suspended.Load() {
		return false
	}
	f()
	return true
}

// missing is how much of the reserve is not there.
func (d *Disk) missing() int64 { return max(d.size-d.Held(), 0) }
