package sim_test

import (
	"testing"

	"go.uber.org/goleak"

	"muster/node/runtime"
	"muster/node/runtime/runtimetest"
	"muster/node/runtime/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	for name, latency := range map[string]*sim.Latency{"as long as it takes": nil, "at once": &sim.Instant} {
		t.Run(name, func(t *testing.T) {
			runtimetest.TestRuntime(t, runtimetest.Harness{
				New: func(t *testing.T) runtime.Runtime {
					r := sim.New(sim.Config{Latency: latency})
					t.Cleanup(func() {
						if err := r.Close(); err != nil {
							t.Error(err)
						}
					})
					return r
				},
				Spec: func(_ *testing.T, id string) runtime.Spec {
					return runtime.Spec{ID: id, Hostname: id, Rootfs: "/" + id, IDMap: &runtime.IDMap{Host: 1_000_000, Size: 65536}}
				},
				Bridge: func(*testing.T) string { return "br0" },
			})
		})
	}
}
