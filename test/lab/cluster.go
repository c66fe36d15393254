package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// addresses counts the loopback addresses that this process has given out.
var addresses atomic.Uint32

// Address returns a loopback address with port that no other member of any lab on
// this machine has: the process's number is in it.
func Address() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d:8443", 64+pid>>8&0x3f, pid&0xff, addresses.Add(1)%250+1)
}

// Cluster starts n members that form one cluster on loopback addresses: with a storage
// pool, and without a network.
func Cluster(t T, n int) []*Member {
	t.Helper()
	return ClusterOf(t, n, Options{})
}

// ClusterOf is Cluster with members that are started so. With NoInit the first has no
// storage pool and network either; with a Network each member is in a namespace of its
// own. Without one no member has a bridge: on one machine only one of them could. The members are named m1, m2 and so on.
func ClusterOf(t T, n int, options Options) []*Member {
	t.Helper()
	members := make([]*Member, n)
	for i := range members {
		each := options
		each.NoInit = options.NoInit || i > 0
		if i >= n-options.Witnesses {
			each.Args = append(slices.Clone(each.Args), "--witness")
		}
		members[i] = Start(t, each)
		members[i].holders = nil
	}
	for _, m := range members {
		m.peers = members
	}
	// The last is the first to be destroyed, while there is a quorum.
	members[n-1].holders = members[:1]
	first := members[0]
	if options.Network == nil && !options.NoInit && n > 1 {
		first.dropBridges()
	}
	first.must("PATCH", "/1.0", map[string]any{"config": map[string]string{"core.https_address": first.Address()}})
	first.must("PUT", "/1.0/cluster", map[string]any{"server_name": "m1", "enabled": true})
	for i, m := range members[1:] {
		m.Join(first, fmt.Sprintf("m%d", i+2))
	}
	// A leader that is killed before the others vote takes the cluster with it.
	if _, err := first.Settled(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return members
}

// dropBridges removes the member's managed networks and the default profile's use of them.
func (m *Member) dropBridges() {
	m.t.Helper()
	m.Muster("profile", "device", "remove", "default", "eth0")
	var networks []struct {
		Name    string
		Managed bool
	}
	if err := m.Get(m.t.Context(), "/1.0/networks?recursion=1", &networks); err != nil {
		m.t.Fatal(err)
	}
	for _, network := range networks {
		if network.Managed {
			m.Muster("network", "delete", network.Name)
		}
	}
}

// Crowd starts n more members and makes all of them join the cluster at the same moment.
// It returns all members, and how long each of the new ones took to be ready as one.
func Crowd(t T, members []*Member, n int, options Options) (all []*Member, took []time.Duration) {
	t.Helper()
	options.NoInit = true
	first := members[0]
	members[len(members)-1].holders = nil
	all = slices.Clone(members)
	var joins []*exec.Cmd
	for i := range n {
		m := Start(t, options)
		m.holders = nil
		all = append(all, m)
		token := Encode(first.Token(fmt.Sprintf("m%d", len(members)+i+1)))
		joins = append(joins, m.Command("musterd", "init", "--token", token, "--address", m.Address()))
	}
	for _, m := range all {
		m.peers = all
	}
	all[len(all)-1].holders = members[:1]
	took = make([]time.Duration, n)
	failed := make([]error, n)
	var joining sync.WaitGroup
	for i, join := range joins {
		joining.Go(func() {
			began := time.Now()
			if out, err := join.CombinedOutput(); err != nil {
				failed[i] = fmt.Errorf("m%d joins: %w\n%s", len(members)+i+1, err, out)
			}
			took[i] = time.Since(began)
		})
	}
	joining.Wait()
	if err := errors.Join(failed...); err != nil {
		t.Fatal(err)
	}
	return all, took
}

// Address is one that the member can listen on and the others reach it at: always the
// same in a Network, otherwise a new one each time.
func (m *Member) Address() string {
	if m.space == nil {
		return Address()
	}
	return net.JoinHostPort(address(m.cable).String(), "8443")
}

// Purges says whose things are removed before this member goes, instead of its own.
// In a cluster the last to start is the first to go, while there is a quorum, and
// purges for all.
func (m *Member) Purges(members ...*Member) { m.holders = members }

// Token asks the member for a join token.
func (m *Member) Token(name string) map[string]any {
	m.t.Helper()
	answer := m.must("POST", "/1.0/cluster/members", map[string]any{"server_name": name})
	var operation struct {
		Metadata map[string]any `json:"metadata"`
	}
	m.decode(answer, &operation)
	shown := operation.Metadata
	return map[string]any{
		"server_name": shown["serverName"], "fingerprint": shown["fingerprint"], "addresses": shown["addresses"],
		"secret": shown["secret"], "expires_at": shown["expiresAt"],
	}
}

// Join makes the member join the other's cluster under that name, and waits until it
// is ready again.
func (m *Member) Join(other *Member, name string) {
	m.t.Helper()
	m.Run("musterd", "init", "--token", Encode(other.Token(name)), "--address", m.Address())
}
