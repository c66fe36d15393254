package coord

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// seat is a control member's part in the consensus on the log. A worker has none.
type seat struct {
	*replica
	cfg     Config
	disk    *diskLog
	machine *machine
	raft    *raft.Raft
	streams *streams

	// led is closed once this member has led and said so in the log.
	led chan struct{}

	// news has room for one: an entry was committed that the others have yet to hear of.
	news chan struct{}

	// closing ends the coordinator's loop; work counts it and the proposals
	// in flight. Once closed, which is guarded by gate, nothing is added.
	closing context.CancelFunc
	work    sync.WaitGroup
	gate    sync.RWMutex
	closed  bool
	once    sync.Once
	closeOf error
	// cut is what became of closing the streams first.
	cut error
}

// takeSeat opens the log in cfg.Dir and starts raft on it.
func takeSeat(ctx context.Context, cfg Config, replica *Replica) (*seat, error) {
	disk, err := openLog(cfg.Dir, cfg.Log)
	if err != nil {
		return nil, err
	}
	s := &seat{replica: replica, cfg: cfg, disk: disk, led: make(chan struct{}), news: make(chan struct{}, 1)}
	s.machine = &machine{replica: replica, log: cfg.Log, failed: make(chan struct{})}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ended by close
	s.closing = cancel
	if err := s.startRaft(background); err != nil {
		cancel()
		return nil, errors.Join(err, disk.close())
	}
	s.work.Go(func() { s.coordinate(background) })
	s.work.Go(func() { s.spreadNews(background) })
	return s, nil
}

func (s *seat) startRaft(ctx context.Context) error {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(s.cfg.ID)
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
	conf.Logger = hclogTo(s.cfg.Log)
	conf.NoLegacyTelemetry = true

	s.streams = newStreams(ctx, s.cfg.ID, s.cfg.Streams, s.cfg.Log)
	d := s.disk
	known, err := raft.HasExistingState(d.wal, d.wal, d.snapshots)
	if err != nil {
		return errors.Join(damaged(d.dir, err), s.streams.close())
	}
	if known {
		markUsed(d.dir)
	}
	if !known && s.cfg.Bootstrap {
		err := raft.BootstrapCluster(conf, d.wal, d.wal, d.snapshots, s.streams.transport, raft.Configuration{Servers: []raft.Server{{
			Suffrage: raft.Voter, ID: conf.LocalID, Address: raft.ServerAddress(s.cfg.ID),
		}}})
		if err != nil {
			return errors.Join(fmt.Errorf("found the coordination log in %s: %w", d.dir, err), s.streams.close())
		}
	}
	s.raft, err = raft.NewRaft(conf, s.machine, d.wal, d.wal, d.snapshots, s.streams.transport)
	if err != nil {
		return errors.Join(damaged(d.dir, err), s.streams.close())
	}
	return s.hurry()
}

// hurry sets the real timeouts. A follower that finds its heartbeat timeout
// shortened looks at once whether it should have heard from a leader: so a lone
// voter stands for election now and not after 300 to 600 ms of waiting for
// nobody.
func (s *seat) hurry() error {
	if !s.alone() {
		return nil
	}
	conf := s.raft.ReloadableConfig()
	conf.HeartbeatTimeout, conf.ElectionTimeout = heartbeatTimeout, electionTimeout
	if err := s.raft.ReloadConfig(conf); err != nil {
		return errors.Join(err, s.raft.Shutdown().Error(), s.streams.close())
	}
	return nil
}

// alone reports whether this member is the log's only voter.
func (s *seat) alone() bool {
	future := s.raft.GetConfiguration()
	if future.Error() != nil {
		return false
	}
	servers := future.Configuration().Servers
	return len(servers) == 1 && servers[0].ID == raft.ServerID(s.cfg.ID)
}

func (s *seat) hasVoters() bool {
	future := s.raft.GetConfiguration()
	return future.Error() == nil && len(future.Configuration().Servers) > 0
}

// close stops the seat and waits for all it started. It may be called twice.
func (s *seat) close() error {
	s.once.Do(func() {
		s.gate.Lock()
		s.closed = true
		s.gate.Unlock()
		s.closing()
		if s.disk.wal.health.failed() != nil {
			// What raft does from here on is not on disk, and nobody may hear of it.
			s.cut = s.streams.close()
		}
		s.disk.wal.health.giveUp()
		// raft answers every proposal while it runs, and forgets some when
		// it stops.
		s.work.Wait()
		stopped := s.raft.Shutdown()
		// Before raft has stopped: it waits for those that are silent.
		errs := []error{s.streams.close(), s.cut, stopped.Error()}
		if s.disk.wal.health.failed() == nil && s.machine.broken.Load() == nil {
			// The replica may be further than this log, when it followed another's.
			errs = append(errs, s.disk.markClean(min(s.Applied(), s.raft.AppliedIndex())))
		}
		s.closeOf = errors.Join(append(errs, s.disk.close())...)
	})
	return s.closeOf
}
