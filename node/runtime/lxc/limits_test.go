package lxc_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"muster/node/runtime"
	"muster/node/runtime/runtimetest"
	"muster/state"
)

// All limits reach the kernel, at the start and later.
func TestLimits(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	low := 2
	s.Limits = runtime.Limits{
		CPU:       runtime.CPULimits{Set: "0", Share: 50, Priority: &low},
		Memory:    runtime.MemoryLimits{Limit: 64 << 20, NoSwap: true},
		Processes: 50,
		Kernel:    map[string]string{"nofile": "200:300"},
	}
	start(t, r, s)
	if _, out := runtimetest.Sh(t, r, "c1", "grep 'open files' /proc/1/limits; grep Cpus_allowed_list /proc/1/status"); !strings.Contains(out, "200") || !strings.Contains(out, "list:\t0\n") {
		t.Errorf("init's limits are %q; want 200 files and processor 0", out)
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		t.Skip("needs control groups of version 1 for what follows")
	}
	want := func(values map[string]string) {
		t.Helper()
		for file, value := range values {
			controller, _, _ := strings.Cut(file, ".")
			if got := groupFile(t, r, "c1", controller, file); got != value {
				t.Errorf("%s is %q; want %q", file, got, value)
			}
		}
	}
	want(map[string]string{
		"cpuset.cpus": "0", "cpu.shares": "504", "pids.max": "50", "memory.limit_in_bytes": "67108864",
		"memory.memsw.limit_in_bytes": "67108864", "memory.swappiness": "0",
	})
	all := groupFile(t, r, "..", "cpuset", "../cpuset.cpus")
	if err := r.SetLimits(t.Context(), "c1", runtime.Limits{
		CPU: runtime.CPULimits{Quota: 20000, Period: 100000}, Memory: runtime.MemoryLimits{Limit: 1 << 30},
	}); err != nil {
		t.Fatal(err)
	}
	want(map[string]string{
		"cpu.cfs_quota_us": "20000", "cpu.cfs_period_us": "100000", "cpu.shares": "1024", "pids.max": "max",
		"memory.limit_in_bytes": "1073741824", "memory.memsw.limit_in_bytes": "1073741824", "memory.swappiness": "60",
	})
	if got := groupFile(t, r, "c1", "cpuset", "cpuset.cpus"); got == "0" && all != "0" {
		t.Errorf("cpuset.cpus is still %q", got)
	}
	// Smaller than what is used: the container is told so, not killed.
	err := r.SetLimits(t.Context(), "c1", runtime.Limits{Memory: runtime.MemoryLimits{Limit: 4096}})
	if err != nil && !errors.Is(err, state.ErrConflict) {
		t.Errorf("a limit below what is used: %v; want ErrConflict or success", err)
	}
	err = r.SetLimits(t.Context(), "c1", runtime.Limits{CPU: runtime.CPULimits{Set: "4000"}})
	if !errors.Is(err, state.ErrInvalid) {
		t.Errorf("a processor that does not exist: %v; want ErrInvalid", err)
	}
}

// A container that may have no more processes says so to whoever runs a command in it.
func TestExecAtTheLimitOfProcesses(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	start(t, r, s)
	if code, out := runtimetest.Sh(t, r, "c1", "for i in 1 2 3 4; do sleep 600 >/dev/null 2>&1 & done; true"); code != 0 {
		t.Fatalf("start processes: %d, %s", code, out)
	}
	usage, err := r.Usage(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	command := runtime.ExecSpec{Command: []string{"true"}}
	for spare, fits := range map[int64]bool{0: false, 3: true} {
		if err := r.SetLimits(t.Context(), "c1", runtime.Limits{Processes: usage.Processes + spare}); err != nil {
			t.Fatal(err)
		}
		p, err := r.Exec(t.Context(), "c1", command)
		if err == nil {
			if _, err := p.Wait(t.Context()); err != nil {
				t.Error(err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		switch {
		case fits && err != nil:
			t.Errorf("room for %d: %v; want success", spare, err)
		case !fits && (!errors.Is(err, state.ErrConflict) || !strings.Contains(err.Error(), "limits.processes")):
			t.Errorf("room for %d: %v; want ErrConflict that names limits.processes", spare, err)
		}
	}
}

// Containers of one processor each get different ones.
func TestProcessorsAreSpread(t *testing.T) {
	r := open(t)
	var sets []string
	for _, id := range []string{"c1", "c2"} {
		s := spec(t, id)
		s.Limits.CPU.Count = 1
		start(t, r, s)
		sets = append(sets, groupFile(t, r, id, "cpuset", "cpuset.cpus"))
	}
	if sets[0] == sets[1] && slices.ContainsFunc([]string{"/proc/self/status"}, hasTwoCPUs) {
		t.Errorf("both containers are on processor %s", sets[0])
	}
}

func hasTwoCPUs(status string) bool {
	text, err := os.ReadFile(status)
	return err == nil && !strings.Contains(string(text), "Cpus_allowed_list:\t0\n")
}

// What the machine's configuration sets apart for containers is used.
func TestLXCFS(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || !strings.Contains(string(mounts), " /var/lib/lxcfs fuse") {
		t.Skip("needs a running lxcfs")
	}
	s.Limits.Memory.Limit = 64 << 20
	start(t, r, s)
	if _, out := runtimetest.Sh(t, r, "c1", "grep MemTotal /proc/meminfo"); strings.Fields(out)[1] != "65536" {
		t.Errorf("the container sees %q; want its own limit", out)
	}
}
