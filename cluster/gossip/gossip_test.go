package gossip_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/cluster/gossip"
	"muster/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(patient{m}) }

// patient lets memberlist's probes end before goleak looks for what never does.
//
// A probe that has no answer when Shutdown is called goes on: it waits for a timer of its
// own (ProbeInterval, by AwarenessMaxMultiplier times as long after losses: 1.6 s), and
// for no channel that Shutdown closes. Close can neither end it nor wait for it: only an
// answer with its number ends it, and both are sealed with the gossip key before our
// transport sees them; that it is over shows nowhere but in the metrics, which belong to
// the whole process. Waiting for the longest time in Close would delay each stop of the
// daemon for a goroutine that does nothing but note a doubt nobody reads any more.
type patient struct{ *testing.M }

func (p patient) Run() int {
	code := p.M.Run()
	for range 20 { // goleak itself waits for 0.4 s each time
		if goleak.Find() == nil {
			break
		}
	}
	return code
}

// plain dials without TLS: what carries streams is rpc/mux's to test.
type plain struct{}

func (plain) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// lossy drops a share of the packets it sends.
type lossy struct {
	net.PacketConn
	percent *atomic.Int64
}

func (l lossy) WriteTo(data []byte, to net.Addr) (int, error) {
	if rand.Int64N(100) < l.percent.Load() {
		return len(data), nil
	}
	return l.PacketConn.WriteTo(data, to)
}

var key = bytes.Repeat([]byte{7}, 32)

type member struct {
	*gossip.Gossip
	id, address string
}

func start(t testing.TB, id, host string, key []byte, loss *atomic.Int64) member {
	t.Helper()
	accept, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	address := accept.Addr().String()
	g, err := gossip.Open(t.Context(), gossip.Config{
		ID: id, Address: address, Key: key, Streams: plain{}, Accept: accept, Meta: gossip.Meta{Name: "name-" + id, SchemaMax: 3},
		ListenPacket: func(ctx context.Context, network, address string) (net.PacketConn, error) {
			conn, err := (&net.ListenConfig{}).ListenPacket(ctx, network, address)
			return lossy{conn, loss}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = g.Close()
	})
	return member{g, id, address}
}

func cluster(t testing.TB, n int, loss *atomic.Int64) []member {
	t.Helper()
	var members []member
	for i := range n {
		m := start(t, fmt.Sprintf("m%02d", i), "127.0.0.1", key, loss)
		m.SetLoad(gossip.Load{FreeCPU: 1000, FreeMemory: 1 << 30, FreeDisk: 1 << 40, Instances: i})
		if i > 0 {
			if err := m.Join(t.Context(), []gossip.Peer{{ID: members[0].id, Address: members[0].address}}); err != nil {
				t.Fatal(err)
			}
		}
		members = append(members, m)
	}
	for _, m := range members {
		until(t, 10*time.Second, "all are alive", func() bool { return count(m, gossip.Alive) == n })
	}
	return members
}

func count(m member, status gossip.Status) int {
	n := 0
	for _, other := range m.Members() {
		if other.Status == status {
			n++
		}
	}
	return n
}

func status(m member, id string) gossip.Member {
	for _, other := range m.Members() {
		if other.ID == id {
			return other
		}
	}
	return gossip.Member{}
}

func until(t testing.TB, limit time.Duration, what string, met func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	for !met() {
		if time.Since(begun) > limit {
			t.Fatalf("after %s it is not so: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(begun)
}

func TestAKilledMemberIsSeenDead(t *testing.T) {
	members := cluster(t, 3, &atomic.Int64{})
	evidence, stop := members[0].Watch()
	defer stop()
	_ = members[2].Close()
	took := until(t, 6*time.Second, "m02 is dead for both", func() bool {
		return status(members[0], "m02").Status == gossip.Dead && status(members[1], "m02").Status == gossip.Dead
	})
	t.Logf("dead after %s", took)
	if first, second := <-evidence, <-evidence; first.Status != gossip.Suspect || second.Status != gossip.Dead {
		t.Errorf("evidence %v, %v; want suspect, then dead", first, second)
	}
}

func TestACleanLeaveIsSeenAtOnce(t *testing.T) {
	members := cluster(t, 3, &atomic.Int64{})
	if err := members[2].Leave(t.Context(), 2*time.Second); err != nil {
		t.Fatal(err)
	}
	_ = members[2].Close()
	took := until(t, time.Second, "m02 has left", func() bool {
		return status(members[0], "m02").Status == gossip.Left && status(members[1], "m02").Status == gossip.Left
	})
	t.Logf("left after %s", took)
	if err := members[2].Leave(t.Context(), time.Second); !errors.Is(err, state.ErrConflict) {
		t.Errorf("leaving after Close: %v; want ErrConflict", err)
	}
}

func TestLostPacketsAreNoDeath(t *testing.T) {
	loss := &atomic.Int64{}
	members := cluster(t, 4, loss)
	evidence, stop := members[0].Watch()
	defer stop()
	loss.Store(30)
	deadline := time.After(6 * time.Second)
	for {
		select {
		case e := <-evidence:
			if e.Status == gossip.Dead {
				t.Fatalf("%s is held for dead with 30 %% of packets lost", e.Member)
			}
		case <-deadline:
			return
		}
	}
}

func TestAWrongKeyIsKeptOut(t *testing.T) {
	members := cluster(t, 2, &atomic.Int64{})
	stranger := start(t, "stranger", "127.0.0.1", bytes.Repeat([]byte{8}, 32), &atomic.Int64{})
	err := stranger.Join(t.Context(), []gossip.Peer{{Address: members[0].address}})
	if !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("joining with a wrong key: %v; want ErrUnavailable", err)
	}
	if s := status(members[0], "stranger"); s.ID != "" {
		t.Errorf("the stranger is known: %+v", s)
	}
}

func TestLoadsAndMetaTravel(t *testing.T) {
	members := cluster(t, 3, &atomic.Int64{})
	if got := status(members[1], "m02").Meta; got.Name != "name-m02" || got.SchemaMax != 3 {
		t.Errorf("meta %+v; want name-m02, schema 3", got)
	}
	members[0].SetLoad(gossip.Load{FreeCPU: 7, Instances: 99})
	until(t, 4*time.Second, "m02 knows the load of m00", func() bool {
		for _, l := range members[2].Loads() {
			if l.Member == "m00" && l.Instances == 99 && l.FreeCPU == 7 && l.Age < 10*time.Second {
				return true
			}
		}
		return false
	})
	if err := members[0].SetMeta(gossip.Meta{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	until(t, 4*time.Second, "m02 knows the new name", func() bool { return status(members[2], "m00").Meta.Name == "other" })
	if err := members[0].SetMeta(gossip.Meta{Name: string(bytes.Repeat([]byte("x"), 600))}); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("600 bytes of metadata: %v; want ErrInvalid", err)
	}
}

func TestAMemberThatComesBackElsewhereIsTheSame(t *testing.T) {
	members := cluster(t, 3, &atomic.Int64{})
	_ = members[2].Close()
	again := start(t, "m02", "127.0.0.2", key, &atomic.Int64{})
	if err := again.Join(t.Context(), []gossip.Peer{{ID: "m00", Address: members[0].address}}); err != nil {
		t.Fatal(err)
	}
	took := until(t, 12*time.Second, "m02 is alive at its new address", func() bool {
		for _, m := range members[:2] {
			if s := status(m, "m02"); s.Status != gossip.Alive || s.Address != again.address || len(m.Members()) != 3 {
				return false
			}
		}
		return true
	})
	t.Logf("known at the new address after %s", took)
}

// BenchmarkAtRest reports what one of 25 members sends while nothing happens.
func BenchmarkAtRest(b *testing.B) {
	members := cluster(b, 25, &atomic.Int64{})
	for b.Loop() {
		before, begun := members[3].Stats(), time.Now()
		<-time.After(10 * time.Second)
		after, took := members[3].Stats(), time.Since(begun).Seconds()
		b.ReportMetric(float64(after.BytesSent-before.BytesSent)/took, "B/s")
		b.ReportMetric(float64(after.PacketsSent-before.PacketsSent)/took, "packets/s")
	}
}
