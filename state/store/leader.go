package store

import (
	"context"
	"sync"
)

// leaderSeen is who led the database at the last look, and tells when that changes.
type leaderSeen struct {
	mu      sync.Mutex
	id      string             // guarded by mu; "" when nobody was known to lead
	present context.Context    //nolint:containedctx // it ends with the id that it stands for
	change  context.CancelFunc // guarded by mu
}

func newLeaderSeen() *leaderSeen {
	l := &leaderSeen{}
	l.present, l.change = context.WithCancel(context.Background())
	return l
}

// set records the leader.
func (l *leaderSeen) set(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == id {
		return
	}
	l.id = id
	l.change()
	l.present, l.change = context.WithCancel(context.Background())
}

// get returns the leader.
func (l *leaderSeen) get() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// onChange has f called when another leads; forget ends that.
func (l *leaderSeen) onChange(f func()) (forget func() bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return context.AfterFunc(l.present, f)
}

// close lets go of the last context.
func (l *leaderSeen) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change()
}
