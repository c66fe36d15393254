// Package cluster is what an operation means for the whole: it decides where
// things go, records what should be in the state plane, and asks the node that
// hosts a thing to make it so.
//
// It never touches a host itself and speaks no wire: node does the one, rpc the
// other.
package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster/cluster/coord"
	"muster/cluster/gossip"
	"muster/cluster/pki"
	"muster/node"
	"muster/state"
	"muster/state/store"
)

// Config is what a Cluster is made of. Store, Operations, Node and
// MemberID are required.
type Config struct {
	Store      *store.Store
	Operations *Operations
	Node       *node.Node
	// MemberID is this member's, in both consensus logs.
	MemberID string
	// Coord and Identity are what membership is made of; Address is where the API
	// listens, and Reach tries whether the server with that certificate answers at an
	// address.
	Coord    *coord.Node
	Identity *pki.Identity
	Address  func() string
	Reach    func(ctx context.Context, address, fingerprint string) error
	Pinger   Pinger
	// Remote asks other members; nil for a server that never has any. Remember makes
	// sure that it reaches a member that is about to be removed until forget is called.
	Remote   Remote
	Remember func(memberID string) (forget func())
	// Left says whether this member was told that it was removed; nil as Remote.
	Left func() bool
	// Virtual holds the cluster's virtual address; nil for a server that never does.
	Virtual VirtualAddress
	// Joined notes for the next start that this member belongs to a cluster, of which
	// others have the logs.
	Joined func() error
	// Events receives lifecycle events.
	Events *Events
	// Listen moves the one port to an address; Cut closes the connections made
	// with a client certificate. Either may be nil.
	Listen func(ctx context.Context, address string) error
	Cut    func(whose func(fingerprint string) bool)
	Log    *slog.Logger
}

// Cluster is the cluster as one of its members sees it and acts for it.
type Cluster struct {
	cfg      Config
	log      *slog.Logger
	store    *store.Store
	ops      *Operations
	node     *node.Node
	locks    locks
	carrying carrying
	arrivals arrivals
	// keeper is what was done to this member's parts of pools and networks.
	keeper  keeper
	delayed delayed
	placing placing
	seating seating
	closing closing
	goers   goers
	sight   sight
	// news are what happened here and the others have still to be told; see Tell.
	news chan coord.News
	// removals are those of members that this one carries out.
	removals removals

	releases releases

	// gossip is nil while this member takes no part in one.
	gossip atomic.Pointer[gossip.Gossip]

	certificateMu sync.Mutex
	// certificate is the setting that was last taken over; see takeCertificate.
	certificate string // guarded by certificateMu

	frozenMu sync.Mutex
	// frozen are the host names of instances that FreezeWriters froze.
	frozen []string // guarded by frozenMu

	profilesMu sync.Mutex
	// profiles are the profiles as the running instances here have them.
	profiles map[string]*state.Profile // guarded by profilesMu
}

// New checks the configuration. It starts nothing: see Reconcile and Run.
func New(cfg Config) (*Cluster, error) {
	if cfg.Store == nil || cfg.Operations == nil || cfg.Node == nil || cfg.MemberID == "" {
		return nil, state.Errorf(state.ErrInvalid, "cluster needs a store, operations, a node and a member")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cluster{
		cfg: cfg, log: cfg.Log, store: cfg.Store, ops: cfg.Operations, node: cfg.Node, news: make(chan coord.News, newsWaiting),
		carrying: carrying{by: map[string]bool{}, failed: map[string]failure{}, left: make(chan struct{}, 1)},
	}
	c.sight.note()
	return c, nil
}

// Self is this member's name, as it is now.
func (c *Cluster) Self() string {
	member, err := c.store.View().MemberByID(c.cfg.MemberID)
	if err != nil {
		return ""
	}
	return member.Name
}

// now is the time that goes into records.
func (c *Cluster) now() time.Time { return time.Now().UTC() }

// apply records a command and returns once this member's View shows it, or shows what
// made it come too late: whoever looks again then sees something else.
func (c *Cluster) apply(ctx context.Context, command store.Command) error {
	_, err := c.store.Apply(ctx, command)
	if errors.Is(err, state.ErrStale) {
		if barrier := c.store.Barrier(ctx); barrier != nil {
			c.log.Debug("wait for what was changed in between", "error", barrier)
		}
	}
	return err
}

// finish is for the command that ends a change which has already happened on the
// host: it must be tried even when the caller has given up.
func (c *Cluster) finish(ctx context.Context, command store.Command) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return c.apply(ctx, command)
}

// resource is the URL of a thing in operations and events.
func resource(project string, parts ...string) string {
	escaped := make([]string, 0, len(parts))
	for _, part := range parts {
		escaped = append(escaped, url.PathEscape(part))
	}
	path := "/1.0/" + strings.Join(escaped, "/")
	if project != "" && project != state.DefaultProject {
		path += "?project=" + url.QueryEscape(project)
	}
	return path
}

// instanceResources are what an operation on an instance names. Clients from
// before virtual machines look for "containers".
func instanceResources(project string, names ...string) map[string][]string {
	instances, containers := []string{}, []string{}
	for _, name := range names {
		instances = append(instances, resource(project, "instances", name))
		containers = append(containers, resource(project, "containers", name))
	}
	return map[string][]string{"instances": instances, "containers": containers}
}
