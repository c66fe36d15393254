package cgroup_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/node/runtime"
	"muster/node/runtime/lxc/cgroup"
	"muster/state"
)

// Mount tables as they are seen on real machines, with %ROOT% for /sys/fs/cgroup.
const (
	hybridMounts = `24 1 0:21 / %ROOT% rw,relatime - tmpfs tmpfs rw,mode=755
25 24 0:22 / %ROOT%/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
26 24 0:23 / %ROOT%/memory rw,relatime - cgroup cgroup rw,memory
27 24 0:24 / %ROOT%/cpuset rw,relatime - cgroup cgroup rw,cpuset
28 24 0:25 / %ROOT%/pids rw,relatime - cgroup cgroup rw,pids
29 24 0:26 / %ROOT%/devices rw,relatime - cgroup cgroup rw,devices
30 24 0:27 / %ROOT%/freezer rw,relatime - cgroup cgroup rw,freezer
31 24 0:28 / %ROOT%/systemd rw,relatime shared:9 - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
32 24 0:29 / %ROOT%/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
`
	hybridInit = `8:name=systemd:/init.scope
7:freezer:/
6:devices:/
5:pids:/
4:cpuset:/
3:memory:/jail
2:cpu,cpuacct:/
0::/init.scope
`
	unifiedMounts = "30 23 0:27 / %ROOT% rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
	unifiedInit   = "0::/init.scope\n"
)

// machine is a tree of files that looks like a machine's control groups, with
// the group muster/c1 made.
func machine(t *testing.T, mounts, init string) (*cgroup.Host, string) {
	t.Helper()
	root := t.TempDir()
	write(t, root+"/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n")
	write(t, root+"/unified/cgroup.controllers", "\n")
	for _, file := range []string{"memory.memsw.limit_in_bytes", "memory.limit_in_bytes", "memory.swappiness"} {
		write(t, root+"/memory/"+file, "")
	}
	host, err := cgroup.Parse(strings.ReplaceAll(mounts, "%ROOT%", root), init, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	return host, root
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		mounts, init, layout string
		hierarchies          int
	}{
		"a machine with both versions": {hybridMounts, hybridInit, "hybrid", 8},
		"version 2 alone":              {unifiedMounts, unifiedInit, "unified", 1},
	} {
		host, root := machine(t, tc.mounts, tc.init)
		if host.Layout() != tc.layout || len(host.Hierarchies) != tc.hierarchies {
			t.Errorf("%s: %s with %+v; want %s with %d", name, host.Layout(), host.Hierarchies, tc.layout, tc.hierarchies)
		}
		for _, h := range host.Hierarchies {
			base := "/"
			if h.Mount == root+"/memory" {
				base = "/jail"
			}
			if h.Base != base {
				t.Errorf("%s: the base of %s is %s; want %s", name, h.Mount, h.Base, base)
			}
		}
	}
	if _, err := cgroup.Parse("", "", os.ReadFile); err == nil {
		t.Error("a machine without control groups is accepted")
	}
}

func TestSettings(t *testing.T) {
	five := 5
	for name, tc := range map[string]struct {
		limits          runtime.Limits
		hybrid, unified []string
	}{
		"nothing": {runtime.Limits{}, nil, nil},
		"a number of processors": {
			runtime.Limits{CPU: runtime.CPULimits{Count: 2}},
			[]string{"lxc.cgroup.cpuset.cpus=4,5"},
			[]string{"lxc.cgroup2.cpuset.cpus=4,5"},
		},
		"certain processors": {
			runtime.Limits{CPU: runtime.CPULimits{Set: "0-1"}},
			[]string{"lxc.cgroup.cpuset.cpus=0-1"},
			[]string{"lxc.cgroup2.cpuset.cpus=0-1"},
		},
		"a hard part of a processor": {
			runtime.Limits{CPU: runtime.CPULimits{Quota: 25000, Period: 100000}},
			[]string{"lxc.cgroup.cpu.cfs_period_us=100000", "lxc.cgroup.cpu.cfs_quota_us=25000"},
			[]string{"lxc.cgroup2.cpu.max=25000 100000"},
		},
		"a soft part of a processor": {
			runtime.Limits{CPU: runtime.CPULimits{Share: 50, Priority: &five}},
			[]string{"lxc.cgroup.cpu.shares=507"},
			[]string{"lxc.cgroup2.cpu.weight=45"},
		},
		"memory": {
			runtime.Limits{Memory: runtime.MemoryLimits{Limit: 1000}},
			[]string{"lxc.cgroup.memory.limit_in_bytes=1000", "lxc.cgroup.memory.memsw.limit_in_bytes=1000"},
			[]string{"lxc.cgroup2.memory.max=1000", "lxc.cgroup2.memory.swap.max=1000"},
		},
		"memory that swap does not extend": {
			runtime.Limits{Memory: runtime.MemoryLimits{Limit: 1000, NoSwap: true}},
			[]string{"lxc.cgroup.memory.limit_in_bytes=1000", "lxc.cgroup.memory.memsw.limit_in_bytes=1000", "lxc.cgroup.memory.swappiness=0"},
			[]string{"lxc.cgroup2.memory.max=1000", "lxc.cgroup2.memory.swap.max=0"},
		},
		"memory while there is room": {
			runtime.Limits{Memory: runtime.MemoryLimits{Limit: 1000, Soft: true, SwapPriority: &five}},
			[]string{"lxc.cgroup.memory.soft_limit_in_bytes=1000", "lxc.cgroup.memory.swappiness=55"},
			[]string{"lxc.cgroup2.memory.high=1000"},
		},
		"processes": {
			runtime.Limits{Processes: 7},
			[]string{"lxc.cgroup.pids.max=7"},
			[]string{"lxc.cgroup2.pids.max=7"},
		},
	} {
		for layout, want := range map[string][]string{"hybrid": tc.hybrid, "unified": tc.unified} {
			mounts, init := hybridMounts, hybridInit
			if layout == "unified" {
				mounts, init = unifiedMounts, unifiedInit
			}
			host, _ := machine(t, mounts, init)
			settings, err := host.Settings(tc.limits, "4,5")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range settings {
				got = append(got, s.Key()+"="+s.Value)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, layout, diff)
			}
		}
	}
	host, _ := machine(t, hybridMounts, hybridInit)
	_, err := host.Settings(runtime.Limits{Memory: runtime.MemoryLimits{Hugepages: map[string]int64{"2MB": 1}}}, "")
	if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), "hugetlb") {
		t.Errorf("a limit that the kernel can't keep: %v; want ErrInvalid that names the controller", err)
	}
}

// Limits of a running container are changed in its group, and those not set are
// lifted.
func TestApply(t *testing.T) {
	host, root := machine(t, unifiedMounts, unifiedInit)
	group := host.Group("muster/c1")
	files := map[string]string{
		"memory.max": "1", "memory.high": "1", "memory.swap.max": "1", "pids.max": "1", "cpu.max": "1 1",
		"cpu.weight": "1", "cpuset.cpus": "1",
	}
	for file, text := range files {
		write(t, root+"/muster/c1/"+file, text)
	}
	settings, err := host.Settings(runtime.Limits{Memory: runtime.MemoryLimits{Limit: 5000}, Processes: 9}, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := group.Apply(settings); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"memory.max": "5000", "memory.high": "max", "memory.swap.max": "5000", "pids.max": "9", "cpu.max": "max 100000",
		"cpu.weight": "100", "cpuset.cpus": "\n",
	}
	for file, value := range want {
		text, err := os.ReadFile(root + "/muster/c1/" + file)
		// These are no kernel files: a write leaves what is behind it.
		if err != nil || !strings.HasPrefix(string(text), value) {
			t.Errorf("%s holds %q, %v; want %q", file, text, err, value)
		}
	}
}

func TestFullOfProcesses(t *testing.T) {
	for name, c := range map[string]struct {
		max, current string
		full         bool
	}{
		"no limit":    {"max\n", "500\n", false},
		"full":        {"5\n", "5\n", true},
		"room for 1":  {"5\n", "4\n", true},
		"room for 2":  {"5\n", "3\n", false},
		"above it":    {"5\n", "9\n", true},
		"no accounts": {"", "", false},
	} {
		host, root := machine(t, unifiedMounts, unifiedInit)
		if c.max != "" {
			write(t, root+"/muster/c1/pids.max", c.max)
			write(t, root+"/muster/c1/pids.current", c.current)
		}
		if limit, full := host.Group("muster/c1").FullOfProcesses(2); full != c.full || full && limit != 5 {
			t.Errorf("%s: limit %d, full %t; want full %t", name, limit, full, c.full)
		}
	}
}

func TestUsage(t *testing.T) {
	host, root := machine(t, unifiedMounts, unifiedInit)
	for file, text := range map[string]string{
		"memory.current": "5000\n", "memory.peak": "7000\n", "memory.stat": "anon 1\ninactive_file 1000\n", "memory.max": "9000\n",
		"memory.swap.current": "0\n", "pids.current": "3\n", "cpu.stat": "usage_usec 42\nuser_usec 1\n",
	} {
		write(t, root+"/muster/c1/"+file, text)
	}
	got := host.Group("muster/c1").Usage()
	want := runtime.Usage{Memory: 4000, MemoryPeak: 7000, MemoryLimit: 9000, SwapPeak: -1, CPU: 42000, Processes: 3}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("version 2 (-want +got):\n%s", diff)
	}
	host, root = machine(t, strings.Replace(hybridMounts, "/jail", "/", 1), strings.Replace(hybridInit, "/jail", "/", 1))
	for file, text := range map[string]string{
		"memory/muster/c1/memory.usage_in_bytes": "5000", "memory/muster/c1/memory.max_usage_in_bytes": "7000",
		"memory/muster/c1/memory.stat": "cache 1\ntotal_inactive_file 1000\n", "memory/muster/c1/memory.limit_in_bytes": "9000",
		"memory/muster/c1/memory.memsw.usage_in_bytes": "5500", "pids/muster/c1/pids.current": "3",
		"cpu,cpuacct/muster/c1/cpuacct.usage": "42000",
	} {
		write(t, root+"/"+file, text)
	}
	got = host.Group("muster/c1").Usage()
	want.Swap = 500
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("version 1 (-want +got):\n%s", diff)
	}
}

// In version 2 the kernel answers in another file than the one that is written.
func TestFreezeVersion2(t *testing.T) {
	host, root := machine(t, unifiedMounts, unifiedInit)
	group := host.Group("muster/c1")
	write(t, root+"/muster/c1/cgroup.freeze", "0")
	write(t, root+"/muster/c1/cgroup.events", "populated 1\nfrozen 0\n")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := group.Freeze(ctx, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Freeze of a group that does not freeze: %v; want the deadline", err)
	}
	if text, _ := os.ReadFile(root + "/muster/c1/cgroup.freeze"); string(text) != "1" {
		t.Errorf("cgroup.freeze holds %q; want 1", text)
	}
	write(t, root+"/muster/c1/cgroup.events", "populated 1\nfrozen 1\n")
	if err := group.Freeze(t.Context(), true); err != nil {
		t.Error(err)
	}
	if frozen, err := group.Frozen(); !frozen || err != nil {
		t.Errorf("Frozen: %v, %v; want true", frozen, err)
	}
	// The rules for devices are no files there.
	if done, err := group.Devices(true, "c 1:3 rwm"); done || err != nil {
		t.Errorf("Devices: %v, %v; want that the monitor must do it", done, err)
	}
}

func TestParseCPUs(t *testing.T) {
	for text, want := range map[string][]int{
		"": nil, "0": {0}, "0-2,5\n": {0, 1, 2, 5}, "3,1,1-2": {1, 2, 3},
	} {
		got, err := cgroup.ParseCPUs(text)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("ParseCPUs(%q): %v (-want +got):\n%s", text, err, diff)
		}
	}
	for _, text := range []string{"a", "2-1", "-1", "0-99999999"} {
		if _, err := cgroup.ParseCPUs(text); err == nil {
			t.Errorf("ParseCPUs(%q) succeeds", text)
		}
	}
}

func TestChooseCPUs(t *testing.T) {
	host, root := machine(t, unifiedMounts, unifiedInit)
	write(t, root+"/cpuset.cpus.effective", "0-3\n")
	var others []cgroup.Group
	for name, cpus := range map[string]string{"a": "0", "b": "0-1", "all": "0-3", "none": ""} {
		write(t, root+"/muster/"+name+"/cpuset.cpus", cpus)
		others = append(others, host.Group("muster/"+name))
	}
	for count, want := range map[int]string{1: "2", 2: "2,3", 3: "1,2,3", 4: "0,1,2,3", 9: "0,1,2,3"} {
		if got, err := host.ChooseCPUs(count, others); got != want || err != nil {
			t.Errorf("ChooseCPUs(%d) = %s, %v; want %s", count, got, err, want)
		}
	}
}
