// Package store is the state plane: it remembers what the cluster should be
// (instances, profiles, images, settings, trust) in dqlite, takes commands
// through one writer, and hands every change on to the View that all reads come
// from and to the subscriptions that events are made of.
//
// It never touches the host, never decides what a command should say, and never
// serves a read by SQL.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"muster/state"
	"muster/state/disk"
	"muster/state/readindex"
)

// Config is what a Store needs. Dir and Member.ID are required, and Member.Name
// when the directory is new.
type Config struct {
	// Dir is the directory of the consensus log; it is made when it is missing.
	Dir string
	// Member is this member. Its ID is its address in the consensus log and never
	// changes; the rest is recorded when the store is made, and ignored later.
	Member state.Member
	// Join says that a directory which is new belongs to a member that is about to
	// join a cluster: it waits for the leader's Admit instead of beginning a cluster
	// of its own, and Open does not wait for the View.
	Join bool
	// Dial connects to the dqlite node of another member, or is nil while there is
	// none. The other end hands the connection to Accept.
	Dial func(ctx context.Context, memberID string) (net.Conn, error)
	// Remote reaches the stores of other members, or is nil while there is none.
	Remote Remote
	// Worker says that this member has no part in the consensus unless Dir is there: its
	// View follows another member's, and commands go to the leader, until TakePart. Open
	// does not wait for the View then.
	Worker bool
	// Others returns the IDs of the other control members. They are asked who leads when
	// this one's log can't tell (libdqlite keeps it from members that have no vote), and
	// a worker follows one of them. It may be nil.
	Others func() []string
	// Patient says that there are other members: Open does not wait for the View then,
	// because the others may need this store's Accept before they can answer.
	Patient bool
	// Reserve is how many bytes are kept in Dir for when the disk is full. Voters counts the
	// other voters whose logs can be written, and all voters; nil means that this member is
	// the only one. Freeze and Thaw are called when the reserve is given up, and when it is
	// whole again; they may be nil.
	Reserve      int64
	Voters       func() (fit, sick, all int)
	Freeze, Thaw func(context.Context)
	// NetworkLatency is the usual one-way delay between members, from which the
	// election timeouts derive. Zero means 10 ms.
	NetworkLatency time.Duration
	// Log may be nil.
	Log *slog.Logger

	// schema is another release's, in tests.
	schema *schema
}

// Remote reaches the store of another member; rpc/peer implements it.
type Remote interface {
	// Apply calls ApplyEnvelope there. An error of kind ErrUnavailable means that
	// nobody can tell whether the command was applied.
	Apply(ctx context.Context, memberID string, envelope Envelope) (Result, error)
	// Revision calls LeaderRevision there.
	Revision(ctx context.Context, memberID, vouched string) (state.Revision, error)
	// Leader calls KnownLeader there.
	Leader(ctx context.Context, memberID string) (string, error)
	// Watch calls Watch there and hands on what it sends.
	Watch(ctx context.Context, memberID string, since state.Revision, schema int64, send func(Batch) error) error
}

// Store is the state plane of one member.
type Store struct {
	cfg Config
	hub *hub
	// seat is nil while this member is a worker; seating is held by who changes it.
	seat    atomic.Pointer[seat]
	seating sync.Mutex
	// seen is the leader as of the last look, told the leader as the member that a worker
	// follows says.
	seen *leaderSeen
	told atomic.Value
	// led is when somebody was last known to lead.
	led atomic.Pointer[time.Time]
	// reads asks the leader how far the View must be; confirmed asks the voters whether
	// this member still leads, for all members that wait for its word.
	reads     *readindex.Reader
	confirmed *readindex.Rounds[uint64]
	// lagging has room for one: the View of this worker is too far behind its source's.
	lagging chan struct{}
	// broken takes why this member must not go on, from one seat after another.
	broken chan error
	// watch suspends the seat while the disk can't be written; watching waits for it.
	watch    *disk.Watch
	watching sync.WaitGroup

	// background ends with Close.
	background context.Context //nolint:containedctx // bounds what Close ends, no call
	stop       context.CancelFunc
	running    sync.WaitGroup
	closing    sync.Once
	closed     error
}

// Broken says once that this member's part of the database must not go on, and why: the
// daemon is to end, so that the others elect another leader.
func (s *Store) Broken() <-chan error { return s.broken }

// Open opens the store in cfg.Dir, and returns when this member's View shows what
// the cluster remembers. A directory that is new becomes a cluster of one member.
// A database that is damaged, incomplete or another member's is an error that says
// so; ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Dir == "" || cfg.Member.ID == "" {
		return nil, state.Errorf(state.ErrInvalid, "a store needs a directory and the member's ID")
	}
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	if err := errors.Join(finishStandingAside(cfg.Dir), Gone(cfg.Dir)); err != nil {
		return nil, err
	}
	if cfg.schema == nil {
		var err error
		if cfg.schema, err = releaseSchema(); err != nil {
			return nil, err
		}
	}
	hub, err := newHub()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, hub: hub, seen: newLeaderSeen(), broken: make(chan error, 1), lagging: make(chan struct{}, 1)}
	s.reads, s.confirmed = readindex.NewReader(s.askNewest, s.arrived), readindex.NewRounds(s.askVoters)
	opened := time.Now()
	s.led.Store(&opened)
	s.watch = disk.New(disk.Config{
		Name: "the database", Dir: cfg.Dir, Reserve: cfg.Reserve, Log: watched{s}, Voters: cfg.Voters, Freeze: cfg.Freeze, Thaw: cfg.Thaw, Logger: cfg.Log,
	})
	if _, err := os.Stat(cfg.Dir); !cfg.Worker || err == nil {
		if err := s.openSeat(ctx); err != nil {
			return nil, err
		}
	}
	// The store outlives the opening, and ends with Close.
	s.background, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.running.Go(func() { s.reads.Run(s.background) })
	s.running.Go(func() { s.confirmed.Run(s.background) })
	s.watching.Go(func() { s.watch.Run(s.background) })
	if cfg.Remote != nil {
		s.running.Go(func() { s.follow(s.background) })
	}
	if !cfg.Join && !cfg.Patient && !cfg.Worker {
		if err := s.begin(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// begin waits for the View, and makes the cluster when there is none.
func (s *Store) begin(ctx context.Context) error {
	// Without room even for what was kept there is nothing to show.
	for s.watch.Suspended() {
		select {
		case <-time.After(10 * retryAfter):
		case <-ctx.Done():
			return state.Errorf(state.ErrUnavailable, "%s", s.Trouble().Message)
		}
	}
	if err := s.Barrier(ctx); err != nil {
		return err
	}
	if s.View().Revision() > 0 {
		return nil
	}
	if s.cfg.Member.Name == "" {
		return state.Errorf(state.ErrInvalid, "a new store needs the member's name")
	}
	if _, err := s.Apply(ctx, bootstrap{Member: s.cfg.Member}); err != nil {
		return fmt.Errorf("make the cluster: %w", err)
	}
	return nil
}

// Close stops the store and waits for all it started. Commands that wait are
// answered with ErrUnavailable. It may be called twice.
func (s *Store) Close() error { return s.end((*seat).close) }

// Abandon is Close for a process that ends now: the node is left to end with it, as after
// a crash, which it is made for. Taking it down is not safe while it dials a member that
// is gone (libraft 0.15 calls back into what it has freed, seen as a segmentation fault).
func (s *Store) Abandon() error { return s.end((*seat).abandon) }

func (s *Store) end(how func(*seat) error) error {
	s.closing.Do(func() {
		s.stop()
		s.watching.Wait()
		s.seating.Lock()
		defer s.seating.Unlock()
		st := s.seat.Load()
		if st != nil {
			st.stop()
		}
		s.running.Wait()
		s.hub.close()
		s.seen.close()
		if st != nil {
			s.closed = how(st)
		}
	})
	return s.closed
}

// Accept hands a muster/dqlite connection of another member to the node, which
// owns it from then on.
func (s *Store) Accept(conn net.Conn) {
	if st := s.seat.Load(); st != nil {
		st.node.accept(conn)
		return
	}
	_ = conn.Close() // whoever called learns what it must: nobody is there
}

// View returns the newest state that this member knows.
func (s *Store) View() *View { return s.hub.view.Load() }

// KnownSchema is what this release can work with.
func (s *Store) KnownSchema() SchemaRange { return s.cfg.schema.known() }

// MoveSchema takes the steps of the schema that all members consent to, if this member
// leads the database; else it does nothing. Without it a new release does so only when it
// is alone: the others could not lead any more.
func (s *Store) MoveSchema(ctx context.Context, consent Consent) error {
	if !s.leading() {
		return nil
	}
	a := s.do(ctx, &request{consent: &consent})
	if errors.Is(a.err, errNotLeading) {
		return nil
	}
	return a.err
}

// WaitRevision returns when this member's View shows the revision; ErrUnavailable
// when ctx is done before.
func (s *Store) WaitRevision(ctx context.Context, revision state.Revision) error {
	return s.hub.wait(ctx, revision)
}

// Moved returns what is closed when this member's View moves on, and is closed already when
// it shows more than the revision.
func (s *Store) Moved(revision state.Revision) <-chan struct{} { return s.hub.moved(revision) }

// Ended is closed by Close: the View moves no more.
func (s *Store) Ended() <-chan struct{} { return s.hub.closed }

// Leader returns the ID of the member that leads the database, as far as this
// member knows; ErrUnavailable when there is none.
func (s *Store) Leader(ctx context.Context) (string, error) {
	if leader, _ := s.guide(ctx); leader != "" {
		return leader, nil
	}
	return "", state.Errorf(state.ErrUnavailable, "the database has no leader: an election is under way, or too few members can talk to each other")
}

// bootstrap makes what a new cluster has.
type bootstrap struct{ Member state.Member }

func (bootstrap) name() string { return "bootstrap" }

func (c bootstrap) apply(ctx context.Context, t *tx) error {
	if err := t.createProject(ctx, state.Project{Name: state.DefaultProject, Description: "Default project"}, silent); err != nil {
		return err
	}
	if err := (CreateGroup{Group: state.Group{Name: state.DefaultGroup, Description: "Default cluster group"}, Hint: silent}).apply(ctx, t); err != nil {
		return err
	}
	return t.addMember(ctx, c.Member, silent)
}
