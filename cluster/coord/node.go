package coord

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"muster/state"
)

// replica lends a Node the methods of its Replica without the field's name.
type replica = Replica

// Node is one member's part in the log, with its replica of the content, whose
// methods are the Node's own.
type Node struct {
	*replica
	cfg     Config
	disk    *diskLog
	machine *machine
	raft    *raft.Raft
	streams *streams
	// boot names this life of the daemon.
	boot string

	// led is closed once this member has led and said so in the log.
	led chan struct{}

	// closing ends the coordinator's loop; work counts it and the proposals
	// in flight. Once closed, which is guarded by gate, nothing is added.
	closing context.CancelFunc
	work    sync.WaitGroup
	gate    sync.RWMutex
	closed  bool
	once    sync.Once
	closeOf error
}

// Open starts the node and waits until its replica holds all that was committed
// before, which for a cluster of one includes becoming its coordinator.
// Operations of this member that were under way when it last stopped are
// Failure ("the daemon restarted") by then, except those of ClassToken. A
// damaged log is refused (ErrConflict) with an error that says what is damaged.
// The node lives until Close: ctx bounds only the opening.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	disk, err := openLog(cfg.Dir, cfg.Log)
	if err != nil {
		return nil, err
	}
	n := &Node{replica: newReplica(), cfg: cfg, disk: disk, led: make(chan struct{}), boot: uuid.NewString()}
	n.machine = &machine{replica: n.replica, log: cfg.Log, failed: make(chan struct{})}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ended by Close
	n.closing = cancel
	if err := n.startRaft(background); err != nil {
		cancel()
		return nil, errors.Join(err, disk.close())
	}
	n.work.Go(func() { n.coordinate(background) })
	if err := n.becomeReady(ctx, background); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) startRaft(ctx context.Context) error {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(n.cfg.ID)
	// A hair longer than meant: see hurry.
	conf.HeartbeatTimeout = heartbeatTimeout + time.Millisecond
	conf.ElectionTimeout = electionTimeout + time.Millisecond
	conf.LeaderLeaseTimeout = leaseTimeout
	conf.CommitTimeout = 20 * time.Millisecond
	conf.MaxAppendEntries = 128
	conf.ShutdownOnRemove = false
	conf.SnapshotInterval = 10 * time.Second
	conf.SnapshotThreshold = 2048
	conf.TrailingLogs = 512
	conf.Logger = hclogTo(n.cfg.Log)
	conf.NoLegacyTelemetry = true

	n.streams = newStreams(ctx, n.cfg.ID, n.cfg.Streams, n.cfg.Log)
	d := n.disk
	known, err := raft.HasExistingState(d.wal, d.wal, d.snapshots)
	if err != nil {
		return errors.Join(damaged(d.dir, err), n.streams.close())
	}
	if !known && n.cfg.Bootstrap {
		err := raft.BootstrapCluster(conf, d.wal, d.wal, d.snapshots, n.streams.transport, raft.Configuration{Servers: []raft.Server{{
			Suffrage: raft.Voter, ID: conf.LocalID, Address: raft.ServerAddress(n.cfg.ID),
		}}})
		if err != nil {
			return errors.Join(fmt.Errorf("found the coordination log in %s: %w", d.dir, err), n.streams.close())
		}
	}
	n.raft, err = raft.NewRaft(conf, n.machine, d.wal, d.wal, d.snapshots, n.streams.transport)
	if err != nil {
		return errors.Join(damaged(d.dir, err), n.streams.close())
	}
	return n.hurry()
}

// hurry sets the real timeouts. A follower that finds its heartbeat timeout
// shortened looks at once whether it should have heard from a leader: so a lone
// voter stands for election now and not after 300 to 600 ms of waiting for
// nobody.
func (n *Node) hurry() error {
	if !n.alone() {
		return nil
	}
	conf := n.raft.ReloadableConfig()
	conf.HeartbeatTimeout, conf.ElectionTimeout = heartbeatTimeout, electionTimeout
	if err := n.raft.ReloadConfig(conf); err != nil {
		return errors.Join(err, n.raft.Shutdown().Error(), n.streams.close())
	}
	return nil
}

// alone reports whether this member is the log's only voter.
func (n *Node) alone() bool {
	future := n.raft.GetConfiguration()
	if future.Error() != nil {
		return false
	}
	servers := future.Configuration().Servers
	return len(servers) == 1 && servers[0].ID == raft.ServerID(n.cfg.ID)
}

// becomeReady waits until the replica is up to date and has this member's own
// restart in it.
func (n *Node) becomeReady(ctx, background context.Context) error {
	if n.alone() {
		select {
		case <-n.led:
		case <-n.machine.failed:
		case <-ctx.Done():
			return state.Errorf(state.ErrUnavailable, "the coordination log did not become ready: %w", ctx.Err())
		}
	}
	if broken := n.machine.broken.Load(); broken != nil {
		return damaged(n.cfg.Dir, broken)
	}
	if !n.hasVoters() {
		// A fresh member: it is added, and caught up, later.
		return nil
	}
	restarted := memberRestarted{Member: n.cfg.ID, Boot: n.boot, At: time.Now()}
	if n.cfg.Patient && !n.alone() {
		n.work.Go(func() { n.sayRestarted(background, restarted) })
		return nil
	}
	_, err := n.Propose(ctx, restarted)
	return err
}

// sayRestarted records that this member restarted as soon as anybody can.
func (n *Node) sayRestarted(ctx context.Context, restarted memberRestarted) {
	for ctx.Err() == nil {
		_, err := n.Propose(ctx, restarted)
		if err == nil || n.isClosed() {
			return
		}
		n.cfg.Log.Warn("waiting for the coordinator", "error", err)
	}
}

func (n *Node) hasVoters() bool {
	future := n.raft.GetConfiguration()
	return future.Error() == nil && len(future.Configuration().Servers) > 0
}

// Replica returns the node's replica, for whoever only reads.
func (n *Node) Replica() *Replica { return n.replica }

// Leading reports whether this member is the coordinator, and under which term.
// The term is the fencing token of what the coordinator does.
func (n *Node) Leading() (term uint64, leading bool) {
	c := n.Coordinator()
	return c.Term, c.Member == n.cfg.ID && n.raft.State() == raft.Leader && n.raft.CurrentTerm() == c.Term
}

// Close stops the node and waits for all it started. It may be called twice.
func (n *Node) Close() error {
	n.once.Do(func() {
		n.gate.Lock()
		n.closed = true
		n.gate.Unlock()
		n.closing()
		// raft answers every proposal while it runs, and forgets some when
		// it stops.
		n.work.Wait()
		stopped := n.raft.Shutdown()
		// Before raft has stopped: it waits for those that are silent.
		errs := []error{n.streams.close(), stopped.Error()}
		if n.machine.broken.Load() == nil {
			errs = append(errs, n.disk.markClean(n.Applied()))
		}
		n.closeOf = errors.Join(append(errs, n.disk.close())...)
	})
	return n.closeOf
}
