package cluster

import (
	"context"
	"slices"
	"sync"
	"time"

	"muster/cluster/coord"
	"muster/cluster/gossip"
	"muster/state"
)

// How the coordinator finds out who is alive: a member that has answered no ping for
// offlineAfter is declared offline (DESIGN.md §4: shown within 3 s, and not before a
// busy machine had a fair chance to answer).
const (
	pingEvery    = 400 * time.Millisecond
	pingTimeout  = 1500 * time.Millisecond
	offlineAfter = 1800 * time.Millisecond
)

// Pinger asks members whether they are alive and what part they take; rpc/peer
// implements it.
type Pinger interface {
	Ping(ctx context.Context, memberID string) error
	// Parts calls Cluster.Parts there.
	Parts(ctx context.Context, memberID string) (state.Parts, error)
	// Left calls Cluster.Left at the leader of the log.
	Left(ctx context.Context, leader string, log state.Log, memberID string) (bool, error)
}

// tendVerdicts pings every other member while this one coordinates, and declares who
// is offline and who is back. It waits for its pings before it returns.
func (c *Cluster) tendVerdicts(ctx context.Context) error {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	watch := &vigil{cluster: c, heard: map[string]time.Time{}, since: map[string]time.Time{}, asking: map[string]bool{}}
	defer watch.work.Wait()
	var term uint64
	var before string
	var followed time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if c.cfg.Coord.Coordinated() {
			c.sight.note()
		}
		now, leading := c.cfg.Coord.Leading()
		if !leading || !c.Clustered() {
			term = 0
			if leader := c.cfg.Coord.Leader(); leader != "" && leader != c.cfg.MemberID {
				before, followed = leader, time.Now()
			}
			continue
		}
		if now != term {
			term = now
			watch.begin(before, followed)
			before = ""
		}
		watch.round(ctx)
	}
}

// vigil is what a coordinator has heard in its term.
type vigil struct {
	cluster *Cluster
	work    sync.WaitGroup

	mu     sync.Mutex
	heard  map[string]time.Time // guarded by mu
	asking map[string]bool      // guarded by mu
	// since is when each member was first looked at, guarded by mu: one that has joined
	// just now had no chance to be heard.
	since map[string]time.Time
}

// begin starts a term. What the coordinator before heard is not known, so everybody
// starts anew, but that one itself: it was heard as long as it was followed. Half of the
// threshold at most is taken for known, so that it has the other half to answer.
func (v *vigil) begin(before string, followed time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.heard)
	clear(v.since)
	if before != "" {
		v.since[before] = followed
		if earliest := time.Now().Add(-offlineAfter / 2); followed.Before(earliest) {
			v.since[before] = earliest
		}
	}
}

func (v *vigil) round(ctx context.Context) {
	c := v.cluster
	for _, m := range c.cfg.Coord.Members() {
		if m.ID == c.cfg.MemberID {
			if m.Verdict == coord.Offline {
				v.declare(ctx, m, coord.Online)
			}
			continue
		}
		v.ask(ctx, m.ID)
		v.mu.Lock()
		last, heard := v.heard[m.ID]
		if _, looked := v.since[m.ID]; !looked {
			v.since[m.ID] = time.Now()
		}
		if !heard {
			last = v.since[m.ID]
		}
		v.mu.Unlock()
		switch {
		case m.Verdict == coord.Offline && heard && time.Since(last) < pingEvery*2:
			v.declare(ctx, m, coord.Online)
		case m.Verdict == coord.Online && c.silent(m.ID, time.Since(last)):
			v.declare(ctx, m, coord.Offline)
		}
	}
}

// surelyOffline is how many times the threshold a member may answer nothing while the
// gossip still takes it for alive, which others then reach in ways the coordinator can't.
const surelyOffline = 5

// silent reports whether a member that has answered the coordinator nothing for so long
// is offline: the gossip must doubt it too, which asks through other members, so that
// one cut cable or a busy coordinator is nobody's death.
func (c *Cluster) silent(id string, quiet time.Duration) bool {
	threshold := offlineAfter
	if seconds := c.setting(c.store.View(), "cluster.offline_threshold", 0); seconds > 0 {
		threshold = time.Duration(seconds) * time.Second
	}
	if quiet <= threshold {
		return false
	}
	return quiet > surelyOffline*threshold || c.doubted(id)
}

// doubted reports whether the gossip does not take the member for alive. Who knows of no
// gossip doubts everybody.
func (c *Cluster) doubted(id string) bool {
	g := c.gossip.Load()
	if g == nil {
		return true
	}
	members := g.Members()
	i := slices.IndexFunc(members, func(m gossip.Member) bool { return m.ID == id })
	return i < 0 || members[i].Status != gossip.Alive
}

// SetGossip gives the cluster its part in the gossip; nil takes it back.
func (c *Cluster) SetGossip(g *gossip.Gossip) { c.gossip.Store(g) }

// Load is what others are told of this member's load.
func (c *Cluster) Load() gossip.Load {
	left := c.node.Load()
	return gossip.Load{
		FreeCPU: left.CPU, FreeMemory: left.Memory, FreeDisk: left.Disk, Instances: len(c.store.View().InstancesOn(c.Self())),
		Trouble: c.Trouble(),
	}
}

// ask pings a member, unless the last ping still waits.
func (v *vigil) ask(ctx context.Context, id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.asking[id] {
		return
	}
	v.asking[id] = true
	v.work.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		err := v.cluster.cfg.Pinger.Ping(ctx, id)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.asking[id] = false
		if err == nil {
			v.heard[id] = time.Now()
		}
	})
}

func (v *vigil) declare(ctx context.Context, m coord.Member, verdict coord.Verdict) {
	c := v.cluster
	c.log.Warn("a member's verdict changes", "member", m.Name, "verdict", verdict)
	_, err := c.cfg.Coord.Propose(ctx, coord.SetVerdict{ID: m.ID, Verdict: verdict, Epoch: m.Epoch, At: c.now()})
	if err != nil && ctx.Err() == nil {
		c.log.Warn("declare a verdict", "member", m.Name, "verdict", verdict, "error", err)
	}
}
