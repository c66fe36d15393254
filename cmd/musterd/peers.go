package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster/cluster"
	"muster/cluster/coord"
	"muster/rpc/mux"
	"muster/rpc/peer"
	"muster/rpc/rest"
	"muster/state"
	"muster/state/store"
)

// planes answers other members from the first moment on: a plane that is not open
// yet says so, because the others' planes may wait for this very answer.
type planes struct {
	store atomic.Pointer[store.Store]
	coord atomic.Pointer[coord.Node]
	rest  atomic.Pointer[rest.Server]
	// cluster knows what this member holds of the logs.
	cluster atomic.Pointer[cluster.Cluster]
}

var errStarting = state.Errorf(state.ErrUnavailable, "the member is starting")

// ApplyEnvelope implements peer.Store.
func (p *planes) ApplyEnvelope(ctx context.Context, envelope store.Envelope) (store.Result, error) {
	if s := p.store.Load(); s != nil {
		return s.ApplyEnvelope(ctx, envelope)
	}
	return store.Result{NotLeader: true}, nil
}

// LeaderRevision implements peer.Store.
func (p *planes) LeaderRevision(ctx context.Context, vouched string) (state.Revision, error) {
	if s := p.store.Load(); s != nil {
		return s.LeaderRevision(ctx, vouched)
	}
	return 0, errStarting
}

// KnownLeader implements peer.Store.
func (p *planes) KnownLeader(ctx context.Context) (string, error) {
	if s := p.store.Load(); s != nil {
		return s.KnownLeader(ctx)
	}
	return "", errStarting
}

// Watch implements peer.Store.
func (p *planes) Watch(ctx context.Context, since state.Revision, schema int64, send func(store.Batch) error) error {
	if s := p.store.Load(); s != nil {
		return s.Watch(ctx, since, schema, send)
	}
	return errStarting
}

// ProposeEncoded implements peer.Coord.
func (p *planes) ProposeEncoded(ctx context.Context, data []byte) (uint64, error) {
	if n := p.coord.Load(); n != nil {
		return n.ProposeEncoded(ctx, data)
	}
	return 0, coord.ErrNotApplied
}

// LeaderIndex implements peer.Coord.
func (p *planes) LeaderIndex(ctx context.Context, vouched string) (uint64, error) {
	if n := p.coord.Load(); n != nil {
		return n.LeaderIndex(ctx, vouched)
	}
	return 0, errStarting
}

// KnownCoordinator implements peer.Coord.
func (p *planes) KnownCoordinator() string {
	if n := p.coord.Load(); n != nil {
		return n.KnownCoordinator()
	}
	return ""
}

// Relay implements peer.Coord.
func (p *planes) Relay(ctx context.Context, since uint64, send func(coord.Batch) error) error {
	if n := p.coord.Load(); n != nil {
		return n.Relay(ctx, since, send)
	}
	return errStarting
}

// Parts implements peer.Control.
func (p *planes) Parts(ctx context.Context) (state.Parts, error) {
	if c := p.cluster.Load(); c != nil {
		return c.Parts(ctx)
	}
	return state.Parts{}, errStarting
}

// Left implements peer.Control.
func (p *planes) Left(ctx context.Context, log state.Log, memberID string) (bool, error) {
	if c := p.cluster.Load(); c != nil {
		return c.Left(ctx, log, memberID)
	}
	return false, errStarting
}

// ServePeer implements peer.Handler.
func (p *planes) ServePeer(w http.ResponseWriter, r *http.Request, caller rest.Caller) {
	if s := p.rest.Load(); s != nil {
		s.ServePeer(w, r, caller)
		return
	}
	rest.Refuse(w, errStarting)
}

// streams carries the coordination log's own protocol.
type streams struct{ m *member }

// Listener implements coord.StreamLayer.
func (s streams) Listener() net.Listener { return s.m.raft.listen() }

// Dial implements coord.StreamLayer.
func (s streams) Dial(ctx context.Context, id string) (net.Conn, error) {
	return s.m.dial(ctx, id, mux.Raft)
}

// desk hands the connections of one protocol to who listens at the moment. A worker has
// nobody who does: its guests are sent away.
type desk struct {
	mu      sync.Mutex
	present *window // guarded by mu; nil when nobody listens
}

// window is where one listener takes its connections.
type window struct {
	desk   *desk
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// listen opens the desk, in place of who had it before.
func (d *desk) listen() net.Listener {
	w := &window{desk: d, conns: make(chan net.Conn), closed: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.present = w
	return w
}

// serve hands out the connections of listener until that is closed.
func (d *desk) serve(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			d.hand(conn)
		}
	}
}

func (d *desk) hand(conn net.Conn) {
	d.mu.Lock()
	w := d.present
	d.mu.Unlock()
	if w == nil {
		_ = conn.Close() // whoever called learns what it must: nobody is there
		return
	}
	select {
	case w.conns <- conn:
	case <-w.closed:
		_ = conn.Close()
	}
}

// Accept implements net.Listener.
func (w *window) Accept() (net.Conn, error) {
	select {
	case conn := <-w.conns:
		return conn, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (w *window) Close() error {
	w.once.Do(func() { close(w.closed) })
	w.desk.mu.Lock()
	defer w.desk.mu.Unlock()
	if w.desk.present == w {
		w.desk.present = nil
	}
	return nil
}

// Addr implements net.Listener.
func (w *window) Addr() net.Addr { return &net.TCPAddr{} }

// dial connects to a member by its ID.
func (m *member) dial(ctx context.Context, id, protocol string) (net.Conn, error) {
	found, known := m.book.reach(id)
	if !known {
		return nil, state.Errorf(state.ErrUnavailable, "nobody knows where member %s is", id)
	}
	// The coordination log may have told of a move before the state plane could, or the
	// other way round.
	if c := m.planes.coord.Load(); c != nil {
		if heard, known := c.Member(id); known && heard.Address != "" && heard.Address != found.Address {
			return m.dialEither(ctx, id, protocol, found.Address, heard.Address)
		}
	}
	return m.mux.Dial(ctx, id, found.Address, protocol)
}

// dialEither tries several addresses at once and returns the first connection: whoever
// answers has shown that it is the member.
func (m *member) dialEither(ctx context.Context, id, protocol string, addresses ...string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		conn net.Conn
		err  error
	}
	outcomes := make(chan outcome, len(addresses))
	for _, address := range addresses {
		go func() { // waited for by its outcome
			conn, err := m.mux.Dial(ctx, id, address, protocol)
			outcomes <- outcome{conn, err}
		}()
	}
	var won net.Conn
	var failed []error
	for range addresses {
		next := <-outcomes
		switch {
		case next.err != nil:
			failed = append(failed, next.err)
		case won == nil:
			won = next.conn
			cancel() // the others give up
		default:
			_ = next.conn.Close()
		}
	}
	if won != nil {
		return won, nil
	}
	return nil, errors.Join(failed...)
}

// admit lets in who is a member. One that was removed just now is still told so.
func (m *member) admit(id string, dialled bool) error {
	look := m.book.find
	if dialled {
		look = m.book.reach
	}
	if _, known := look(id); !known {
		return state.Errorf(state.ErrForbidden, "%s is no member", id)
	}
	return nil
}

// peerConfig says how other members are reached.
func (m *member) peerConfig() peer.Config {
	return peer.Config{
		Dial:     func(ctx context.Context, id string) (net.Conn, error) { return m.dial(ctx, id, mux.GRPC) },
		MemberOf: mux.MemberOf,
		Resolve:  m.resolve,
		Log:      m.log,
	}
}

// resolve finds a member by name. One that the cluster calls offline is not even
// tried: no answer waits for it.
func (m *member) resolve(name string) (string, error) {
	found, err := m.store.View().Member(name)
	if err != nil {
		id, cut := m.book.removed(name)
		if id == "" {
			return "", err
		}
		// What is begun before would be cut with the rest.
		select {
		case <-cut:
			return id, nil
		case <-m.ended:
			return "", err
		}
	}
	if err := m.cluster.Absent(found.ID); err != nil {
		return "", err
	}
	return found.ID, nil
}

// answerPeers serves the other members until ctx ends.
func (m *member) answerPeers(ctx context.Context) {
	m.background.Go(func() {
		local := peer.Local{Store: &m.planes, Coord: &m.planes, Control: &m.planes, Handler: &m.planes, Peers: m.peers}
		if err := peer.Serve(ctx, m.peerConfig(), m.mux.Listener(mux.GRPC), local); err != nil {
			m.log.Error("answer the other members", "error", err)
		}
	})
	votes := m.mux.Listener(mux.Raft)
	stopVotes := context.AfterFunc(ctx, func() { _ = votes.Close() })
	m.background.Go(func() {
		defer stopVotes()
		m.raft.serve(votes)
	})
	listener := m.mux.Listener(mux.Dqlite)
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	m.background.Go(func() {
		defer stop()
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			if s := m.planes.store.Load(); s != nil {
				s.Accept(conn)
			} else {
				_ = conn.Close()
			}
		}
	})
}

// moveGrace is how long connections to a member's former address stay, for what goes on
// over them, such as the request that moved it.
const moveGrace = time.Second

// reconnect has the connections with members that moved made anew: those over an address
// that is gone would be silent for a long while before they break. When this member
// itself has moved, these are all it has.
func (m *member) reconnect(ctx context.Context, elsewhere []string) {
	if len(elsewhere) == 0 {
		return
	}
	self := m.identity.MemberID()
	if slices.Contains(elsewhere, self) {
		elsewhere = m.book.ids(self)
	}
	m.background.Go(func() {
		select {
		case <-time.After(moveGrace):
		case <-ctx.Done():
			return
		}
		for _, id := range elsewhere {
			m.mux.CutMember(id)
		}
	})
}

// controllers are the other members that have the logs, as far as this one knows; all
// others while it knows of none.
func (m *member) controllers() []string {
	self := m.identity.MemberID()
	var ids []string
	if n := m.planes.coord.Load(); n != nil && n.Applied() > 0 {
		for _, known := range n.Members() {
			if known.ID != self && cluster.Controls(known) && known.Verdict != coord.Offline {
				ids = append(ids, known.ID)
			}
		}
	} else if time.Since(m.began) < bookTrusted {
		ids = m.book.controllers(self)
	}
	if len(ids) == 0 {
		return m.book.ids(self)
	}
	return ids
}

// hangUpEvery is how often a member looks who has gone offline.
const hangUpEvery = 200 * time.Millisecond

// hangUp ends what is under way to and from members that are offline: who asked for something there
// hears of it now, and not when the connection is found dead.
func (m *member) hangUp(ctx context.Context) error {
	ticker := time.NewTicker(hangUpEvery)
	defer ticker.Stop()
	// Where a member went offline it is hung up on once: when it is back its first requests
	// may be here before the verdict.
	epochs := map[string]uint64{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		n := m.planes.coord.Load()
		if n == nil {
			continue
		}
		for _, known := range n.Members() {
			if known.Verdict == coord.Offline {
				m.peers.HangUp(known.ID)
				if last, again := epochs[known.ID]; !again || last != known.Epoch {
					epochs[known.ID] = known.Epoch
					m.peers.HangUpFrom(known.ID)
				}
			}
		}
	}
}

// bookTrusted is how long a member that starts asks only those that had the logs when it
// stopped. If none of them is there any more, any member knows who has.
const bookTrusted = 3 * time.Second

// bookEvery is how often the book is compared with who has the logs.
const bookEvery = 2 * time.Second

// keepBook keeps the book up to date, and cuts off whoever is a member no longer.
func (m *member) keepBook(ctx context.Context) error {
	for {
		view := m.store.View()
		gone, elsewhere, err := m.book.follow(view, m.cluster.Controls)
		if err != nil {
			m.log.Error("write down where the members are", "error", err)
		}
		for _, id := range gone {
			m.mux.CutMember(id)
			m.peers.Forget(id)
			m.book.wasCut(id)
		}
		m.reconnect(ctx, elsewhere)
		waiting, cancel := context.WithTimeout(ctx, bookEvery)
		err = m.store.WaitRevision(waiting, view.Revision()+1)
		late := waiting.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is how this ends
		} else if err != nil && !late {
			return err
		}
	}
}
