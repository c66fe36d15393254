package cluster

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// slowCable is an interface on which lending an address takes until it is let go on.
type slowCable struct {
	lending chan struct{}
	goOn    chan struct{}
	has     bool
}

func (s *slowCable) Lend(ctx context.Context, _ netip.Prefix, _ string, _ time.Duration) error {
	s.lending <- struct{}{}
	<-s.goOn
	s.has = true
	return ctx.Err()
}

func (s *slowCable) Announce(ctx context.Context) error { return ctx.Err() }

func (s *slowCable) Drop(ctx context.Context) error {
	s.has = false
	return ctx.Err()
}

// A member that is told to stop just while it prolongs the address gives it and its lease
// back, so that another need not wait until the lease runs out.
func TestTheVirtualAddressIsGivenBackAtAnyMoment(t *testing.T) {
	known := openStore(t)
	if _, err := known.Apply(t.Context(), store.SetSettings{Cluster: state.Config{"cluster.virtual_address": "192.0.2.9/24"}}); err != nil {
		t.Fatal(err)
	}
	log, err := coord.Open(t.Context(), coord.Config{Dir: t.TempDir(), ID: antID, Bootstrap: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}()
	cable := &slowCable{lending: make(chan struct{}), goOn: make(chan struct{})}
	c := &Cluster{cfg: Config{MemberID: antID, Coord: log, Virtual: cable}, store: known, log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.tendVirtual(ctx) }()
	<-cable.lending
	if lease, held := log.Lease(virtualLease); !held || lease.Holder != antID {
		t.Fatalf("the lease while the address is lent: %v, held %v", lease, held)
	}
	stop()
	close(cable.goOn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if lease, held := log.Lease(virtualLease); held || cable.has {
		t.Errorf("after the end: the lease is held %v (%v), the address is there %v; want neither", held, lease, cable.has)
	}
}
