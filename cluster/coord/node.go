package coord

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"muster/state"
	"muster/state/disk"
	"muster/state/readindex"
)

// replica lends a Node the methods of its Replica without the field's name.
type replica = Replica

// Node is one member's part in the log, with its replica of the content, whose
// methods are the Node's own. A control member has a seat in the consensus; a worker
// follows another member's log. A Node goes from one to the other while it runs.
type Node struct {
	*replica
	cfg Config
	// boot names this life of the daemon; recorded says that the log has it. lives are on
	// disk, and used by the one goroutine that records the restart.
	boot     string
	recorded atomic.Bool
	lives    *lives
	// replaced has room for one: why this daemon must end.
	replaced chan error
	// seat is nil while this member is a worker; seating is held by who changes it.
	seat    atomic.Pointer[seat]
	seating sync.Mutex
	// watch suspends the seat while the disk can't be written; watching waits for it.
	watch    *disk.Watch
	watching sync.WaitGroup
	// told is the coordinator as the member that is followed says, "" when it knows none.
	told atomic.Value

	// reads asks the coordinator how far the replica must be; confirmed asks the voters
	// whether this member still coordinates, for all members that wait for its word.
	reads     *readindex.Reader
	confirmed *readindex.Rounds[uint64]

	// background ends with Close, which sets closed; work counts what was started.
	background context.Context //nolint:containedctx // bounds what Close ends, no call
	closing    context.CancelFunc
	work       sync.WaitGroup
	closed     atomic.Bool
	once       sync.Once
	closeOf    error
}

// Open starts the node and waits until its replica holds all that was committed
// before, which for a cluster of one includes becoming its coordinator; a worker, and a
// member that is Patient, is filled later (WaitFilled).
// Operations of this member that were under way when it last stopped are
// Failure ("the daemon restarted") by then, except those of ClassToken. A
// damaged log is refused (ErrConflict) with an error that says what is damaged.
// The node lives until Close: ctx bounds only the opening.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if err := errors.Join(finishStandingAside(cfg.Dir), Gone(cfg.Dir)); err != nil {
		return nil, err
	}
	known, err := openLives(cfg.Dir)
	if err != nil {
		return nil, err
	}
	n := &Node{replica: newReplica(), cfg: cfg, boot: uuid.NewString(), lives: known, replaced: make(chan error, 1)}
	n.own, n.hear = cfg.ID, n.hearLife
	n.reads, n.confirmed = readindex.NewReader(n.askNewest, n.WaitApplied), readindex.NewRounds(n.askVoters)
	n.watch = disk.New(disk.Config{
		Name: "the coordination log", Dir: cfg.Dir, Reserve: cfg.Reserve, Log: watched{n}, Voters: cfg.Voters, Freeze: cfg.Freeze, Thaw: cfg.Thaw, Logger: cfg.Log,
	})
	n.background, n.closing = context.WithCancel(context.WithoutCancel(ctx))
	if _, err := os.Stat(cfg.Dir); !cfg.Worker || err == nil {
		if err := n.openSeat(ctx); err != nil {
			n.closing()
			return nil, err
		}
	}
	n.watching.Go(func() { n.watch.Run(n.background) })
	n.work.Go(func() { n.reads.Run(n.background) })
	n.work.Go(func() { n.confirmed.Run(n.background) })
	if cfg.Follow != nil {
		n.work.Go(func() { n.follow(n.background) })
	}
	if err := n.becomeReady(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// sit makes a seat this member's own.
func (n *Node) sit(s *seat) {
	n.keepEntries(true)
	n.seat.Store(s)
}

// becomeReady waits until the replica is up to date and has this member's own
// restart in it.
func (n *Node) becomeReady(ctx context.Context) error {
	restarted := memberRestarted{Member: n.cfg.ID, Boot: n.boot, Life: true, At: time.Now()}
	s := n.seat.Load()
	if s == nil {
		n.work.Go(func() { n.sayRestarted(n.background, restarted) })
		return nil
	}
	if s.alone() {
		select {
		case <-s.led:
		case <-s.machine.failed:
		case <-ctx.Done():
			return state.Errorf(state.ErrUnavailable, "the coordination log did not become ready: %w", ctx.Err())
		}
	}
	if broken := s.machine.broken.Load(); broken != nil {
		return damaged(n.cfg.Dir, broken)
	}
	if !s.hasVoters() && !n.cfg.Worker {
		// A fresh member: it is added, and caught up, later.
		return nil
	}
	if (n.cfg.Patient || n.cfg.Worker) && !s.alone() {
		n.work.Go(func() { n.sayRestarted(n.background, restarted) })
		return nil
	}
	return n.recordLife(ctx, restarted)
}

// sayRestarted records that this member restarted as soon as anybody can.
func (n *Node) sayRestarted(ctx context.Context, restarted memberRestarted) {
	for ctx.Err() == nil {
		// What the log says of this member may have come by while it was down.
		err := n.Barrier(ctx)
		if err == nil {
			err = n.recordLife(ctx, restarted)
		}
		if errors.Is(err, ErrOutdated) {
			n.replace(err)
			return
		}
		if err == nil || n.closed.Load() {
			return
		}
		n.cfg.Log.Warn("waiting for the coordinator", "error", err)
	}
}

// recordLife has the log record that this member restarted, unless it was started elsewhere
// since. The replica must be up to date.
func (n *Node) recordLife(ctx context.Context, restarted memberRestarted) error {
	if s := n.seat.Load(); s != nil && s.alone() {
		// Nobody else can have written to this log. It may have been put back from a backup.
	} else if !n.lives.knows(n.Life(n.cfg.ID)) {
		return ErrOutdated
	}
	if err := n.lives.begin(n.boot); err != nil {
		n.cfg.Log.Warn("this start is not told apart from one of a copy of this directory", "error", err)
		restarted.Life = false
	}
	if _, err := n.Propose(ctx, restarted); err != nil || !restarted.Life {
		return err
	}
	if err := n.lives.record(n.boot); err != nil {
		n.cfg.Log.Warn("the next start can't tell that this life was recorded", "error", err)
	}
	return nil
}

// Part says what this member holds of the log: no other member may count on more.
func (n *Node) Part() state.Part {
	s := n.seat.Load()
	switch {
	case n.watch.Suspended():
		// The log is there, and nobody may begin another.
		return state.PartUsed
	case s == nil:
		return state.PartNone
	case s.hasVoters():
		return state.PartUsed
	}
	return state.PartFresh
}

// TakePart gives a worker a seat with an empty log, which the coordinator's Assign then
// fills. It does nothing when there is a seat.
func (n *Node) TakePart(ctx context.Context) (err error) {
	n.watch.Guard(func() { err = n.takePart(ctx) })
	return err
}

func (n *Node) takePart(ctx context.Context) error {
	n.seating.Lock()
	defer n.seating.Unlock()
	if n.closed.Load() || n.seat.Load() != nil {
		return nil
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

// StandAside makes a control member a worker, and removes its log. Only one that Left
// is true of may do so: a member that forgot its votes and came back with them would
// undo what was acknowledged.
//
// A log that is suspended stays: no log is dropped for a disk that is full or fails.
func (n *Node) StandAside() (err error) {
	n.watch.Guard(func() { err = n.standAside() })
	return err
}

func (n *Node) standAside() error {
	n.seating.Lock()
	defer n.seating.Unlock()
	s := n.seat.Load()
	if s == nil || n.closed.Load() {
		return nil
	}
	n.seat.Store(nil)
	n.keepEntries(false)
	// First: a start after a crash behind the next step must not miss the log.
	return errors.Join(s.close(), Forget(n.cfg.Dir), os.Rename(n.cfg.Dir, n.cfg.Dir+gone), finishStandingAside(n.cfg.Dir))
}

// gone is added to the name of a log's directory that is being removed, so that a
// crash never leaves half a log.
const gone = ".gone"

func finishStandingAside(dir string) error { return os.RemoveAll(dir + gone) }

// Replica returns the node's replica, for whoever only reads.
func (n *Node) Replica() *Replica { return n.replica }

// Leading reports whether this member is the coordinator, and under which term.
// The term is the fencing token of what the coordinator does.
func (n *Node) Leading() (term uint64, leading bool) {
	c := n.Coordinator()
	s := n.seat.Load()
	return c.Term, c.Member == n.cfg.ID && s != nil && s.raft.State() == raft.Leader && s.raft.CurrentTerm() == c.Term
}

// Close stops the node and waits for all it started. It may be called twice.
func (n *Node) Close() error {
	n.once.Do(func() {
		n.closed.Store(true)
		n.closing()
		n.watching.Wait()
		n.seating.Lock()
		defer n.seating.Unlock()
		// What waits in the background may wait for the seat.
		if s := n.seat.Load(); s != nil {
			n.closeOf = s.close()
		}
		n.work.Wait()
	})
	return n.closeOf
}
