package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"muster/cluster"
	"muster/cluster/gossip"
	"muster/rpc/mux"
)

// gossipRetry is how long the gossip waits when it can't be opened, and how often the
// load is looked at.
const gossipRetry = time.Second

// troubleEvery is how often this member looks whether its disks take writes: the others
// are told at once when that changes.
const troubleEvery = 100 * time.Millisecond

// gossipStreams carries what does not fit into a packet.
type gossipStreams struct{ m *member }

// Dial implements gossip.Streams.
func (s gossipStreams) Dial(ctx context.Context, id, address string) (net.Conn, error) {
	return s.m.mux.Dial(ctx, id, address, mux.Gossip)
}

// keepGossip takes part in the gossip while this member is in a cluster, at the address
// that it has at the time, until ctx ends.
func (m *member) keepGossip(ctx context.Context) error {
	port := &gossipPort{listener: m.mux.Listener(mux.Gossip), conns: make(chan net.Conn)}
	var serving sync.WaitGroup
	serving.Go(port.serve)
	defer func() {
		_ = port.listener.Close() // nobody accepts any more
		serving.Wait()
	}()
	for ctx.Err() == nil {
		if err := m.gossipAt(ctx, port, m.gossipAddress()); err != nil && ctx.Err() == nil {
			m.log.Warn("take part in the gossip: verdicts rest on the coordinator's own questions meanwhile", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(gossipRetry):
		}
	}
	return nil
}

// gossipAddress is where the others reach this member, or "" outside a cluster.
func (m *member) gossipAddress() string {
	self, err := m.store.View().MemberByID(m.identity.MemberID())
	if err != nil {
		return ""
	}
	return self.Address
}

// gossipAt takes part until ctx ends or the address is another.
func (m *member) gossipAt(ctx context.Context, port *gossipPort, address string) error {
	if address == "" {
		return nil
	}
	key, err := m.identity.GossipKey()
	if err != nil {
		return err
	}
	schema := m.store.KnownSchema()
	meta := gossip.Meta{
		Name: m.cluster.Self(), Version: version, SchemaMin: schema.Oldest, SchemaMax: schema.Newest, Extensions: cluster.ExtensionsHash(m.rest.Extensions()),
	}
	g, err := gossip.Open(ctx, gossip.Config{
		ID: m.identity.MemberID(), Address: address, Key: key, Streams: gossipStreams{m},
		Accept: port.lend(), Meta: meta, Log: m.log,
	})
	if err != nil {
		return err
	}
	m.cluster.SetGossip(g)
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- g.Run(running) }()
	defer func() {
		m.cluster.SetGossip(nil)
		goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 500*time.Millisecond)
		defer cancel()
		if err := g.Leave(goodbye, 300*time.Millisecond); err != nil {
			m.log.Debug("say goodbye to the gossip", "error", err)
		}
		stop()
		<-ended //nolint:errcheck // it ends with its context
		if err := g.Close(); err != nil {
			m.log.Debug("close the gossip", "error", err)
		}
	}()
	tick, trouble := time.NewTicker(gossipRetry), time.NewTicker(troubleEvery)
	defer tick.Stop()
	defer trouble.Stop()
	told := m.cluster.Trouble()
	for {
		m.joinGossip(ctx, g)
		g.SetLoad(m.cluster.Load())
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return nil
			case <-trouble.C:
				if now := m.cluster.Trouble(); now != told {
					told = now
					g.Tell(m.cluster.Load())
				}
			case <-tick.C:
				waiting = false
			}
		}
		if m.gossipAddress() != address {
			return nil
		}
	}
}

// joinGossip reaches out to the members that the gossip does not know, and forgets those
// that are members no more.
func (m *member) joinGossip(ctx context.Context, g *gossip.Gossip) {
	known := map[string]bool{}
	for _, seen := range g.Members() {
		if _, member := m.book.find(seen.ID); !member && seen.ID != m.identity.MemberID() {
			g.Forget(seen.ID)
			continue
		}
		known[seen.ID] = true
	}
	var missing []gossip.Peer
	for _, id := range m.book.ids(m.identity.MemberID()) {
		if peer, found := m.book.find(id); found && !known[id] {
			missing = append(missing, gossip.Peer{ID: id, Address: peer.Address})
		}
	}
	if len(missing) == 0 {
		return
	}
	joining, cancel := context.WithTimeout(ctx, gossipRetry)
	defer cancel()
	if err := g.Join(joining, missing); err != nil {
		m.log.Debug("join the gossip", "error", err)
	}
}

// gossipPort hands the streams of others to one gossip after the other: the mux has one
// listener for all of them.
type gossipPort struct {
	listener net.Listener
	conns    chan net.Conn
}

// serve accepts until the listener is closed. A stream that nobody takes is closed.
func (p *gossipPort) serve() {
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		select {
		case p.conns <- conn:
		case <-time.After(gossipRetry):
			_ = conn.Close()
		}
	}
}

// lend returns a listener that can be closed without the port.
func (p *gossipPort) lend() net.Listener {
	return &gossipListener{port: p, closed: make(chan struct{})}
}

type gossipListener struct {
	port   *gossipPort
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *gossipListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.port.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *gossipListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *gossipListener) Addr() net.Addr { return l.port.listener.Addr() }
