package node

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"muster/node/image"
	"muster/node/network"
	"muster/node/runtime"
	"muster/node/runtime/sim"
	"muster/node/storage/mount"
	"muster/state"
)

// drivers are those of storage pools.
var drivers = []string{"overlay", "dir", "btrfs"}

// newNode is a machine whose containers are simulated and whose storage is real, with a
// pool "p" of the driver.
func newNode(t *testing.T, driver string) *Node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes volumes with owners of their own")
	}
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	images, err := image.Open(image.Config{Dir: filepath.Join(dir, "images"), Log: slog.New(slog.DiscardHandler)})
	must(err)
	networks, err := network.New(network.Config{Dir: filepath.Join(dir, "networks")})
	must(err)
	simulator := sim.New(sim.Config{Latency: &sim.Instant})
	t.Cleanup(func() { must(simulator.Close()) })
	n, err := New(Config{Dir: dir, Runtime: simulator, Images: images, Networks: networks, IDMap: runtime.DefaultIDMap})
	must(err)
	pool := state.Pool{Name: "p", Driver: driver, Config: state.Config{}}
	if driver == "btrfs" {
		pool.Config["size"] = "256MiB"
	}
	pool.Config, err = n.CreatePool(t.Context(), pool)
	must(err)
	t.Cleanup(func() {
		must(n.DeletePool(context.WithoutCancel(t.Context()), pool))
		if left, err := mount.Table(dir); err != nil || len(left) > 0 {
			t.Errorf("mounts left: %v (%v)", left, err)
		}
	})
	return n
}

// newInstance makes an instance with an empty root file system.
func newInstance(t *testing.T, n *Node, name string, config state.Config) Instance {
	t.Helper()
	inst := Instance{
		Project: "default", Name: name, Architecture: "x86_64", Config: config,
		Devices: state.Devices{"root": {"type": "disk", "path": "/", "pool": "p"}},
	}
	if _, err := n.Create(t.Context(), inst, Source{}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Delete(context.WithoutCancel(t.Context()), inst); err != nil {
			t.Error(err)
		}
	})
	return inst
}
