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

// get returns the leader, and a context that ends when it is another.
func (l *leaderSeen) get() (id string, present context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id, l.present
}

// close lets go of the last context.
func (l *leaderSeen) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change()
}
