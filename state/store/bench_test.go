package store

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/state"
)

// created makes n instances and returns their names.
func createInstances(t testing.TB, s *Store, n int) []string {
	t.Helper()
	names := make([]string, n)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 64 {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				names[i] = fmt.Sprintf("c%05d", i)
				if _, err := s.Apply(t.Context(), newInstance(names[i])); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	return names
}

// newInstance is a command that makes an instance of a usual size.
func newInstance(name string) CreateInstance {
	return CreateInstance{
		Instance: state.Instance{
			Project: "default", Name: name, Location: self.Name, Architecture: "x86_64", Profiles: []string{"default"},
			Config: state.Config{
				"image.architecture": "amd64", "image.description": "Debian 12", "image.os": "debian", "image.release": "bookworm",
				"volatile.base_image": "d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f", "volatile.eth0.hwaddr": "00:16:3e:01:02:03",
				"volatile.idmap.base": "0", "volatile.last_state.power": "STOPPED", "volatile.uuid": "4bb3b3f4-9c0a-4b9e-8d0b-6f0b1c2d3e4f",
			},
			Devices: state.Devices{"root": {"type": "disk", "path": "/"}},
		},
		Intent: state.Intent{ID: "create-" + name},
	}
}

func BenchmarkSerial(b *testing.B) {
	for _, size := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("among-%d", size), func(b *testing.B) {
			s := freshStore(b)
			names := createInstances(b, s, size)
			took := make([]time.Duration, 0, b.N)
			for i := 0; b.Loop(); i++ {
				start := time.Now()
				must(b, s, SetInstanceState{Project: "default", Name: names[i%len(names)], Status: state.StatusRunning, Set: state.Config{"volatile.last_state.power": fmt.Sprint(i)}})
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-median")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "µs-max")
		})
	}
}

func BenchmarkGrouped(b *testing.B) {
	for name, command := range map[string]func(n int) Command{
		"state": func(n int) Command {
			return SetInstanceState{Project: "default", Name: fmt.Sprintf("c%05d", n%100), Status: state.StatusRunning, Set: state.Config{"volatile.last_state.power": fmt.Sprint(n)}}
		},
		"create": func(n int) Command { return newInstance(fmt.Sprintf("d%07d", n)) },
	} {
		b.Run(name, func(b *testing.B) {
			s := freshStore(b)
			createInstances(b, s, 100)
			var n atomic.Int64
			b.SetParallelism(64)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					must(b, s, command(int(n.Add(1))))
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
		})
	}
}

func BenchmarkList(b *testing.B) {
	s := freshStore(b)
	createInstances(b, s, 10_000)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if n := len(s.View().Instances("")); n != 10_000 {
			b.Fatal(n)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	s := freshStore(b)
	createInstances(b, s, 10_000)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if _, err := s.View().Instance("default", "c05000"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReopen(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(b.Context(), Config{Dir: dir, Member: self})
	if err != nil {
		b.Fatal(err)
	}
	createInstances(b, s, 10_000)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(b.Context(), Config{Dir: dir, Member: self})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
