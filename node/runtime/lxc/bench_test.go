package lxc_test

import (
	"testing"
	"time"

	"muster/node/runtime"
)

// BenchmarkLifecycle reports the milliseconds that each step of a container with
// a veth interface takes; DESIGN.md has the targets.
func BenchmarkLifecycle(b *testing.B) {
	r := open(b)
	s := spec(b, "c1")
	s.NICs = []runtime.NIC{{Name: "eth0", Kind: runtime.NICVeth, HostName: hostName()}}
	var starting, stopping, halting, executing time.Duration
	timed := func(total *time.Duration, f func() error) {
		begin := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		*total += time.Since(begin)
	}
	begin := func() error {
		_, err := r.Start(b.Context(), s)
		return err
	}
	for b.Loop() {
		timed(&starting, begin)
		timed(&executing, func() error {
			p, err := r.Exec(b.Context(), "c1", runtime.ExecSpec{Command: []string{"/bin/true"}})
			if err != nil {
				return err
			}
			if _, err := p.Wait(b.Context()); err != nil {
				return err
			}
			return p.Close()
		})
		timed(&stopping, func() error { return r.Stop(b.Context(), "c1", runtime.Stop{Force: true}) })
		timed(new(time.Duration), begin)
		timed(&halting, func() error { return r.Stop(b.Context(), "c1", runtime.Stop{Timeout: 10 * time.Second}) })
	}
	report := func(name string, total time.Duration) {
		b.ReportMetric(float64(total.Microseconds())/1000/float64(b.N), name)
	}
	report("start-ms", starting)
	report("exec-ms", executing)
	report("stop-ms", stopping)
	report("halt-ms", halting)
}
