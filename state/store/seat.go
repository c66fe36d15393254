package store

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/canonical/go-dqlite"

	"muster/state"
)

// seat is a control member's part in the consensus: a dqlite node with its directory,
// and the writer that runs commands while the node leads. A worker has none.
type seat struct {
	dir     *directory
	node    *node
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
	node, err := startNode(cfg, dir.owner.NodeID)
	if err != nil {
		if errors.Is(err, errLog) {
			err = dir.damaged("%w", err)
		}
		return nil, errors.Join(err, dir.close())
	}
	st := &seat{dir: dir, node: node}
	st.writer = &writer{node: node, dir: dir, hub: hub, schema: cfg.schema, log: cfg.Log, queue: make(chan *request, 1024), broken: broken, gone: make(chan struct{})}
	// The seat outlives the opening, and ends with close.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	st.stop = stop
	st.running.Go(func() { st.writer.run(running) })
	return st, nil
}

// close stops the writer and the node. It may be called twice.
func (st *seat) close() error {
	st.once.Do(func() {
		st.stop()
		st.running.Wait()
		st.closed = errors.Join(st.node.close(), st.dir.close())
	})
	return st.closed
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
func (s *Store) TakePart(ctx context.Context) error {
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
func (s *Store) StandAside() error {
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
