package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/canonical/go-dqlite"

	"muster/state"
	"muster/state/disk"
)

// seat is a control member's part in the consensus: a dqlite node with its directory,
// and the writer that runs commands while the node leads. A worker has none.
type seat struct {
	dir     *directory
	node    *node
	fence   fence
	reserve *os.File
	// whole is not cut short: what ends a node ends.
	whole   context.Context //nolint:containedctx // bounds nothing, and carries values
	writer  *writer
	stop    context.CancelFunc
	running sync.WaitGroup
	once    sync.Once
	closed  error
}

// takeSeat opens the directory and starts the node and the writer, which says to broken
// when the member must not go on.
func takeSeat(ctx context.Context, cfg Config, hub *hub, broken chan error) (*seat, error) {
	owner := identity{MemberID: cfg.Member.ID, NodeID: dqlite.BootstrapID}
	if cfg.Join || cfg.Worker {
		owner.NodeID = nodeNumber(cfg.Member.ID)
	}
	dir, err := openDirectory(cfg.Dir, owner)
	if err != nil {
		return nil, err
	}
	st := &seat{dir: dir, whole: context.WithoutCancel(ctx)}
	if err := st.start(cfg); err != nil {
		return nil, errors.Join(err, dir.close())
	}
	node := st.node
	st.writer = &writer{node: node, dir: dir, hub: hub, schema: cfg.schema, log: cfg.Log, queue: make(chan *request, 1024), broken: broken, gone: make(chan struct{})}
	// The seat outlives the opening, and ends with close.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	st.stop = stop
	st.running.Go(func() { st.writer.run(running) })
	return st, nil
}

// start sets the fence up and starts the node behind it.
func (st *seat) start(cfg Config) error {
	var err error
	if st.reserve, err = disk.OpenReserve(cfg.Dir); err != nil {
		return err
	}
	if st.fence, err = openFence(cfg.Dir, st.reserve); err != nil {
		return errors.Join(err, st.reserve.Close())
	}
	cfg.Dir = st.fence.dir
	st.node, err = startNode(cfg, st.dir.owner.NodeID)
	if err == nil {
		st.fence.hold()
		return nil
	}
	if refused := st.fence.err(); refused != nil {
		err = fmt.Errorf("start the database: %w (%w)", refused, err)
	} else if errors.Is(err, errLog) {
		err = st.dir.damaged("%w", err)
	}
	st.fence.close()
	return errors.Join(err, st.reserve.Close())
}

// close stops the writer and the node. It may be called twice.
func (st *seat) close() error {
	st.once.Do(func() {
		st.stop()
		if st.fence.err() != nil {
			st.resign()
		}
		st.fence.release()
		st.running.Wait()
		st.closed = errors.Join(st.node.close(), st.dir.close())
		st.fence.close()
		st.closed = errors.Join(st.closed, st.reserve.Close())
	})
	return st.closed
}

// resignPatience bounds how long a leader that hears nobody takes to step down.
const resignPatience = 5 * time.Second

// resign has a leader step down before its node is closed, by cutting it off from the
// others: a leadership that is being handed over, or writes that the disk refused, crash one
// that still leads (libraft 0.15). Then the node is told of those writes.
func (st *seat) resign() {
	defer st.fence.release()
	ctx, cancel := context.WithTimeout(st.whole, resignPatience)
	defer cancel()
	if alone, err := st.node.alone(ctx); alone && err == nil {
		return
	}
	for ctx.Err() == nil {
		if leader, err := st.node.leader(ctx); err == nil && leader != st.node.address {
			return
		}
		st.node.cut()
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
		}
	}
}

// abandon is close without the node.
func (st *seat) abandon() error {
	st.once.Do(func() {
		st.stop()
		st.running.Wait()
		st.closed = st.dir.close()
	})
	return st.closed
}

// leading reports whether this member leads the database.
func (s *Store) leading() bool {
	st := s.seat.Load()
	return st != nil && st.writer.leading.Load()
}

// do hands a request to this member's writer; a worker has none, and so does not lead.
func (s *Store) do(ctx context.Context, r *request) answer {
	st := s.seat.Load()
	if st == nil {
		return answer{err: errNotLeading}
	}
	a := st.writer.do(ctx, r)
	if errors.Is(a.err, errClosed) && s.background.Err() == nil {
		// Only the seat was closed: another member leads.
		a.err = errNotLeading
	}
	return a
}

// Part says what this member holds of the database: no other member may count on more.
func (s *Store) Part(ctx context.Context) (state.Part, error) {
	if s.watch.Suspended() {
		// The log is there, and nobody may begin another.
		return state.PartUsed, nil
	}
	if s.seat.Load() == nil {
		return state.PartNone, nil
	}
	present, err := s.Roles(ctx)
	if err != nil {
		return "", err
	}
	if len(present) == 0 {
		return state.PartFresh, nil
	}
	return state.PartUsed, nil
}

// TakePart gives a worker a node of its own with an empty log, which the leader's Assign
// then fills. It does nothing when there is one.
func (s *Store) TakePart(ctx context.Context) (err error) {
	s.watch.Guard(func() { err = s.takePart(ctx) })
	return err
}

func (s *Store) takePart(ctx context.Context) error {
	s.seating.Lock()
	defer s.seating.Unlock()
	if s.background.Err() != nil || s.seat.Load() != nil {
		return nil
	}
	cfg := s.cfg
	cfg.Join = true
	st, err := takeSeat(ctx, cfg, s.hub, s.broken)
	if err != nil {
		return err
	}
	s.seat.Store(st)
	return nil
}

// StandAside makes a control member a worker, and removes its database. Only one that
// Left is true of may do so: a member that forgot its votes and came back with them would
// undo what was acknowledged.
//
// A log that is suspended stays: no log is dropped for a disk that is full or fails.
func (s *Store) StandAside() (err error) {
	s.watch.Guard(func() { err = s.standAside() })
	return err
}

func (s *Store) standAside() error {
	s.seating.Lock()
	defer s.seating.Unlock()
	st := s.seat.Load()
	if s.background.Err() != nil || st == nil {
		return nil
	}
	s.seat.Store(nil)
	// First: a start after a crash behind the next step must not miss the database.
	return errors.Join(st.close(), Forget(s.cfg.Dir), os.Rename(s.cfg.Dir, s.cfg.Dir+gone), finishStandingAside(s.cfg.Dir))
}

// gone is added to the name of a database's directory that is being removed, so that a
// crash never leaves half a database.
const gone = ".gone"

func finishStandingAside(dir string) error { return os.RemoveAll(dir + gone) }

// errWorker is what a worker answers to what needs the database.
var errWorker = state.Errorf(state.ErrUnavailable, "this member is a worker and has no database")
