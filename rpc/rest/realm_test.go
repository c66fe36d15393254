package rest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/cluster"
	"muster/cluster/coord"
	"muster/cluster/pki"
	"muster/node"
	"muster/node/image"
	"muster/node/network"
	"muster/node/runtime"
	"muster/node/runtime/sim"
	"muster/node/storage/mount"
	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// realm is a member whose containers are simulated: a real store, coordination
// log, operations, events and cluster behind a real server.
type realm struct {
	t          testing.TB
	store      *store.Store
	operations *cluster.Operations
	events     *cluster.Events
	server     *Server
	local      *caller
	remote     func(*tls.Certificate) *caller
	identity   *tls.Certificate
}

const memberID = "5f0c1f5e-0000-4000-8000-000000000001"

// newRealm starts one; it ends with the test.
func newRealm(t testing.TB) *realm {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { unmountBelow(t, dir) })
	x := &realm{t: t, identity: selfSigned(t, "member", time.Now().Add(time.Hour))}
	var err error
	x.store, err = store.Open(t.Context(), store.Config{
		Dir: filepath.Join(dir, "database"), Member: state.Member{ID: memberID, Name: "ant", Architecture: "x86_64"},
	})
	x.must(err)
	t.Cleanup(func() { x.must(x.store.Close()) })
	log, err := coord.Open(t.Context(), coord.Config{Dir: filepath.Join(dir, "raft"), ID: memberID, Bootstrap: true, Log: slog.New(slog.DiscardHandler)})
	x.must(err)
	t.Cleanup(func() { x.must(log.Close()) })
	x.events = cluster.NewEvents(cluster.EventsConfig{})
	t.Cleanup(x.events.Close)
	x.operations, err = cluster.NewOperations(cluster.OperationsConfig{Coord: log, Member: memberID, Events: x.events, Log: slog.New(slog.DiscardHandler)})
	x.must(err)
	t.Cleanup(func() { x.must(x.operations.Close(context.WithoutCancel(t.Context()))) })
	t.Cleanup(x.events.Follow(log.Replica(), x.operations.View, func(string) string { return "none" }))
	whole := x.newCluster(dir)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- whole.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("cluster: %v", err)
		}
	})
	x.serve(whole)
	return x
}

// unmountBelow takes down what a failed test left mounted, the newest first: a mount
// can't be reached any more once the one below it is gone.
func unmountBelow(t testing.TB, dir string) {
	mounts, err := mount.Table(dir)
	if err != nil {
		t.Error(err)
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			t.Errorf("unmount %s: %v", m.Path, err)
		}
	}
}

func (x *realm) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// newCluster runs its instances in a simulator.
func (x *realm) newCluster(dir string) *cluster.Cluster {
	x.t.Helper()
	images, err := image.Open(image.Config{Dir: filepath.Join(dir, "images"), Log: slog.New(slog.DiscardHandler)})
	x.must(err)
	networks, err := network.New(network.Config{Dir: filepath.Join(dir, "networks")})
	x.must(err)
	simulator := sim.New(sim.Config{Latency: &sim.Instant})
	x.t.Cleanup(func() { x.must(simulator.Close()) })
	member, err := node.New(node.Config{Dir: dir, Runtime: simulator, Images: images, Networks: networks, IDMap: runtime.DefaultIDMap})
	x.must(err)
	whole, err := cluster.New(cluster.Config{
		Store: x.store, Operations: x.operations, Node: member, MemberID: memberID, Events: x.events,
		Listen: func(_ context.Context, address string) error {
			if address == "192.0.2.1:8443" {
				return state.Errorf(state.ErrConflict, "address %q is not this machine's", address)
			}
			return nil
		},
	})
	x.must(err)
	return whole
}

func (x *realm) serve(whole *cluster.Cluster) {
	x.t.Helper()
	var err error
	x.server, err = New(Config{
		Log: slog.New(slog.DiscardHandler), View: x.store.View, State: Log{Fresh: x.store.Fresh},
		Host: Host{
			Name: func() string { return "ant" }, Clustered: func() bool { return false },
			Address:     func() string { return x.store.View().Setting("ant", "core.https_address") },
			Certificate: func() *x509.Certificate { return x.identity.Leaf },
			StorageDrivers: func() []api.ServerStorageDriverInfo {
				return []api.ServerStorageDriverInfo{{Name: "overlay", Version: "6.18"}, {Name: "dir", Version: "1"}}
			},
			Version: "0.1", LXCVersion: "5.0.2", LXCFeatures: map[string]bool{"pidfd": true}, KernelFeatures: map[string]bool{"idmapped_mounts": false},
		},
		Settings: whole, Events: x.events, Operations: x.operations, Certificates: whole, Profiles: whole,
		Instances: whole, Snapshots: whole, Execs: whole, Files: whole, Images: whole, Networks: whole, Pools: whole,
	})
	x.must(err)
	x.local, x.remote = serveUnix(x.t, x.server), serveTLS(x.t, x.server)
}

// trust adds a client certificate and returns a client that shows it.
func (x *realm) trust(entry state.Certificate) *caller {
	x.t.Helper()
	own := selfSigned(x.t, entry.Name, time.Now().Add(time.Hour))
	entry.Fingerprint, entry.PEM = pki.Fingerprint(own.Leaf), pki.EncodeCertificate(own.Leaf)
	if entry.Type == "" {
		entry.Type = "client"
	}
	_, err := x.store.Apply(x.t.Context(), store.AddCertificate{Certificate: entry})
	x.must(err)
	return x.remote(own)
}
