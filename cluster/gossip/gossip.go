// Package gossip says which members seem alive and how busy each is: memberlist
// with a transport of ours on the member's one port.
//
// It never decides that a member is offline: it hands out evidence, and verdicts
// are the coordinator's (cluster/coord). It keeps nothing on disk, and nothing
// waits for it.
package gossip

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"muster/state"
)

// Streams carries what does not fit into a packet: over mutual TLS, by the
// gossip protocol of the one port (rpc/mux). The accepting side is Config.Accept.
type Streams interface {
	// Dial connects to a member at host:port. The ID is empty when it is not
	// known yet; otherwise the peer must prove that it is that member.
	Dial(ctx context.Context, memberID, address string) (net.Conn, error)
}

// Config is what a Gossip needs.
type Config struct {
	// ID is the member's ID, which never changes; memberlist knows it by it. Required.
	ID string
	// Address is the host:port at which others reach this member, by TCP and
	// UDP. Required; a host name is resolved once, by Open.
	Address string
	// Listen is the host:port to take packets at; empty means Address.
	Listen string
	// Key is the cluster's gossip key: 16, 24 or 32 bytes (AES-GCM). Required:
	// over UDP it is the only protection there is.
	Key []byte
	// OldKeys are still understood while a key is being replaced.
	OldKeys [][]byte
	// Streams dials other members. Required.
	Streams Streams
	// Accept gives the streams of others. Required; Close closes it.
	Accept net.Listener
	// ListenPacket opens the packet socket. Nil means net.ListenConfig's.
	ListenPacket func(ctx context.Context, network, address string) (net.PacketConn, error)
	// Meta is what others are told about this member at first.
	Meta Meta
	Log  *slog.Logger
}

// Peer is a member to join at.
type Peer struct {
	// ID may be empty when it is not known.
	ID string
	// Address is host:port.
	Address string
}

// Gossip is a member's part in the gossip. Its methods may be called from any
// goroutine.
type Gossip struct {
	id        string
	log       *slog.Logger
	list      *memberlist.Memberlist
	transport *transport
	queue     *memberlist.TransmitLimitedQueue
	table     *table
	meta      atomic.Pointer[[]byte]
	dropped   atomic.Uint64
	moved     atomic.Int64  // when a peer last held another address of ours, in Unix nanoseconds
	refute    chan struct{} // somebody suspects us

	life   sync.Mutex
	closed bool // guarded by life
}

// The pace of the gossip (DESIGN.md §4: measured with both cores busy).
const (
	probeInterval  = 400 * time.Millisecond
	probeTimeout   = 200 * time.Millisecond
	gossipInterval = 100 * time.Millisecond
	streamTimeout  = 2 * time.Second
	pushPull       = 10 * time.Second
	loadInterval   = time.Second
	moveInterval   = 500 * time.Millisecond
	moveWindow     = 10 * time.Second
	reachInterval  = 5 * time.Second
)

// Open takes the packet socket and begins to answer. ctx bounds the opening
// only. Errors are of kind state.ErrInvalid for what the configuration lacks.
func Open(ctx context.Context, cfg Config) (*Gossip, error) {
	if err := check(cfg); err != nil {
		return nil, err
	}
	advertise, err := resolve(ctx, cfg.Address)
	if err != nil {
		return nil, err
	}
	if cfg.Listen == "" {
		cfg.Listen = advertise.String()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ListenPacket == nil {
		cfg.ListenPacket = (&net.ListenConfig{}).ListenPacket
	}
	g := &Gossip{id: cfg.ID, log: cfg.Log, table: newTable(cfg.ID), refute: make(chan struct{}, 1)}
	if err := g.keepMeta(cfg.Meta); err != nil {
		return nil, err
	}
	g.queue = &memberlist.TransmitLimitedQueue{RetransmitMult: 3, NumNodes: g.table.alive}
	keys, err := memberlist.NewKeyring(cfg.OldKeys, cfg.Key)
	if err != nil {
		return nil, state.Errorf(state.ErrInvalid, "gossip key: %w", err)
	}
	packets, err := cfg.ListenPacket(ctx, "udp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("take gossip packets at %s: %w", cfg.Listen, err)
	}
	// Streams outlive the call that opens the gossip; Close ends them.
	g.transport = newTransport(context.WithoutCancel(ctx), cfg, packets, advertise)
	g.list, err = memberlist.Create(g.settings(advertise, keys))
	if err != nil {
		_ = g.transport.Shutdown()
		return nil, fmt.Errorf("open gossip at %s: %w", advertise, err)
	}
	return g, nil
}

func (g *Gossip) settings(advertise netip.AddrPort, keys *memberlist.Keyring) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Transport, c.Keyring = g.id, g.transport, keys
	c.BindPort, c.AdvertisePort = int(advertise.Port()), int(advertise.Port())
	c.AdvertiseAddr = advertise.Addr().String()
	c.ProbeInterval, c.ProbeTimeout = probeInterval, probeTimeout
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = 3, 3
	c.GossipInterval, c.RetransmitMult = gossipInterval, 3
	c.PushPullInterval, c.TCPTimeout = pushPull, streamTimeout
	c.AwarenessMaxMultiplier = 4
	c.EnableCompression = false // packets are small, and the processors are others'
	// A member that comes back at another address is the same member, as soon
	// as it is seen dead at the old one.
	c.DeadNodeReclaimTime = time.Millisecond
	c.Delegate, c.Events, c.Conflict = delegate{g}, delegate{g}, delegate{g}
	c.Logger = log.New(listener{g}, "", 0)
	return c
}

func check(cfg Config) error {
	switch {
	case cfg.ID == "" || len(cfg.ID) > maxID:
		return state.Errorf(state.ErrInvalid, "gossip: the member's ID has 1 to %d bytes; got %d", maxID, len(cfg.ID))
	case cfg.Streams == nil || cfg.Accept == nil:
		return state.Errorf(state.ErrInvalid, "gossip needs a way to dial and to accept streams")
	case len(cfg.Key) != 16 && len(cfg.Key) != 24 && len(cfg.Key) != 32:
		return state.Errorf(state.ErrInvalid, "gossip: the key has 16, 24 or 32 bytes; got %d", len(cfg.Key))
	}
	return nil
}

// resolve turns an address into the one that others are told.
func resolve(ctx context.Context, address string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, state.Errorf(state.ErrInvalid, "gossip address %q: want host:port", address)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(ips) == 0 {
		return netip.AddrPort{}, state.Errorf(state.ErrInvalid, "gossip address %q: its host has no IP address", address)
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil || number == 0 {
		return netip.AddrPort{}, state.Errorf(state.ErrInvalid, "gossip address %q: want a port from 1 to 65535", address)
	}
	if ips[0].IsUnspecified() {
		return netip.AddrPort{}, state.Errorf(state.ErrInvalid, "gossip address %q: others cannot reach it; name the member's own address", address)
	}
	return netip.AddrPortFrom(ips[0].Unmap(), uint16(number)), nil
}

// Join enters the gossip at the first of the peers that answers. It is of kind
// state.ErrUnavailable when none does, a wrong gossip key included.
func (g *Gossip) Join(ctx context.Context, peers []Peer) error {
	var last error
	for _, peer := range peers {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if last = g.reach(ctx, peer); last == nil {
			return nil
		}
	}
	if last == nil {
		return state.Errorf(state.ErrInvalid, "gossip: no member named to join at")
	}
	return state.Errorf(state.ErrUnavailable, "gossip: none of %d members answered: %w", len(peers), last)
}

func (g *Gossip) reach(ctx context.Context, peer Peer) error {
	address, err := resolve(ctx, peer.Address)
	if err != nil {
		return err
	}
	name := address.String()
	if peer.ID != "" {
		name = peer.ID + "/" + name
	}
	_, err = g.list.Join([]string{name})
	return err
}

// Run tells the others this member's load about once a second, and looks for
// members that were lost sight of. It ends with ctx and returns nil.
func (g *Gossip) Run(ctx context.Context) error {
	load, move, reach := time.NewTimer(0), time.NewTicker(moveInterval), time.NewTicker(reachInterval)
	defer load.Stop()
	defer move.Stop()
	defer reach.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.refute:
			g.tell()
		case <-load.C:
			g.tell()
			// Beyond 50 members loads come less often, so that the traffic of
			// a member does not grow with the cluster.
			load.Reset(loadInterval * time.Duration(max(1, g.table.alive()/50)))
		case <-move.C:
			// A peer that suspects the old address shows no conflict, and takes
			// the new one only once it holds the old for dead: keep at it.
			if time.Since(time.Unix(0, g.moved.Load())) < moveWindow {
				g.again(ctx, Alive)
			}
		case <-reach.C:
			// After a partition both sides hold the other for dead, and
			// memberlist stops looking.
			g.again(ctx, Dead)
		}
	}
}

// again exchanges everything with some member in the given state.
func (g *Gossip) again(ctx context.Context, status Status) {
	var peers []Peer
	for _, m := range g.Members() {
		if m.ID != g.id && m.Status == status {
			peers = append(peers, Peer{ID: m.ID, Address: m.Address})
		}
	}
	if len(peers) == 0 {
		return
	}
	if err := g.reach(ctx, peers[rand.IntN(len(peers))]); err != nil {
		g.log.Debug("gossip peer does not answer", "err", err)
	}
}

// tell queues this member's newest load.
func (g *Gossip) tell() {
	now := time.Now()
	g.cast("load/"+g.id, encodeLoad(g.table.own(now), now))
}

// SetLoad replaces what others are told about this member's load.
func (g *Gossip) SetLoad(load Load) { g.table.setOwn(load, time.Now()) }

// Tell replaces what others are told about this member's load, and tells them at once.
func (g *Gossip) Tell(load Load) {
	g.SetLoad(load)
	g.tell()
}

// SetMeta replaces what others are told about this member, and tells them. It is
// of kind state.ErrInvalid when it does not fit (512 bytes encoded).
func (g *Gossip) SetMeta(meta Meta) error {
	if err := g.keepMeta(meta); err != nil {
		return err
	}
	return g.list.UpdateNode(streamTimeout)
}

func (g *Gossip) keepMeta(meta Meta) error {
	data, err := json.Marshal(meta)
	if err != nil {
		return fmt.Errorf("encode gossip metadata: %w", err)
	}
	if len(data) > memberlist.MetaMaxSize {
		return state.Errorf(state.ErrInvalid, "gossip metadata has %d bytes; at most %d fit", len(data), memberlist.MetaMaxSize)
	}
	g.meta.Store(&data)
	return nil
}

// Leave tells the others that this member goes on purpose, and waits at most the
// timeout, or until ctx's deadline, for that to be said.
func (g *Gossip) Leave(ctx context.Context, timeout time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	g.life.Lock()
	defer g.life.Unlock()
	if g.closed {
		return state.Errorf(state.ErrConflict, "gossip is closed: there is nobody to say goodbye to")
	}
	g.cast("leave/"+g.id, encodeNotice(noticeLeave, g.id, g.table.nextSeq(time.Now())))
	// memberlist takes zero for "for ever".
	if err := g.list.Leave(max(timeout, time.Millisecond)); err != nil {
		return state.Errorf(state.ErrUnavailable, "leave the gossip: %w", err)
	}
	return nil
}

// Close stops without a word: others see this member die. Leave first to go in
// good order. It may be called twice.
func (g *Gossip) Close() error {
	g.life.Lock()
	defer g.life.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	err := g.list.Shutdown()
	g.table.close()
	return err
}

// Stats counts what went through this member since it opened.
type Stats struct {
	// PacketsSent, BytesSent, PacketsReceived and BytesReceived are UDP
	// payloads; StreamsDialed counts streams.
	PacketsSent, BytesSent, PacketsReceived, BytesReceived, StreamsDialed uint64
	// Dropped counts messages that were malformed or too large.
	Dropped uint64
}

// Stats returns the counters.
func (g *Gossip) Stats() Stats {
	t := g.transport
	return Stats{
		t.packetsSent.Load(), t.bytesSent.Load(), t.packetsReceived.Load(), t.bytesReceived.Load(),
		t.dialed.Load(), g.dropped.Load(),
	}
}
