package cgroup

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"muster/node/runtime"
)

// Usage reads what the group uses. What is not accounted here is -1.
func (g Group) Usage() runtime.Usage {
	u := runtime.Usage{Memory: -1, MemoryPeak: -1, MemoryLimit: -1, Swap: -1, SwapPeak: -1, CPU: -1, Processes: -1}
	u.Processes = g.number("pids", "pids.current")
	g.memory(&u)
	if h, ok := g.host.find("cpuacct"); ok && !h.V2 {
		u.CPU = g.number("cpuacct", "cpuacct.usage")
	} else if h, ok := g.unified(); ok {
		// Version 2 accounts time in every group, whatever controllers it has.
		if usec, ok := fields(filepath.Join(g.dir(h), "cpu.stat"))["usage_usec"]; ok {
			u.CPU = usec * 1000
		}
	}
	return u
}

func (g Group) memory(u *runtime.Usage) {
	h, ok := g.host.find("memory")
	if !ok {
		return
	}
	dir := g.dir(h)
	stat := fields(filepath.Join(dir, "memory.stat"))
	if h.V2 {
		u.Memory = g.number("memory", "memory.current") - stat["inactive_file"]
		u.MemoryPeak = g.number("memory", "memory.peak")
		u.Swap = g.number("memory", "memory.swap.current")
		u.SwapPeak = g.number("memory", "memory.swap.peak")
		u.MemoryLimit = atMost(g.number("memory", "memory.max"))
		return
	}
	used := g.number("memory", "memory.usage_in_bytes")
	u.Memory = used - stat["total_inactive_file"]
	u.MemoryPeak = g.number("memory", "memory.max_usage_in_bytes")
	u.MemoryLimit = atMost(g.number("memory", "memory.limit_in_bytes"))
	// Version 1 counts memory and swap together, so its peak says nothing of
	// swap alone.
	if both := g.number("memory", "memory.memsw.usage_in_bytes"); both >= 0 {
		u.Swap = max(both-used, 0)
	}
}

// FullOfProcesses returns the limit of processes when fewer than spare more fit under it.
func (g Group) FullOfProcesses(spare int64) (limit int64, full bool) {
	limit, used := g.number("pids", "pids.max"), g.number("pids", "pids.current")
	return limit, limit >= 0 && used >= 0 && used+spare > limit
}

// atMost is the limit, or the machine's memory when there is none.
func atMost(limit int64) int64 {
	total := fields("/proc/meminfo")["MemTotal:"] * 1024
	if limit < 0 || limit > total {
		return total
	}
	return limit
}

// number reads a file with one number; -1 when there is none.
func (g Group) number(controller, name string) int64 {
	text, err := g.read(controller, name)
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// fields reads a file of names and numbers.
func fields(path string) map[string]int64 {
	found := map[string]int64{}
	file, err := os.Open(path)
	if err != nil {
		return found
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		parts := strings.Fields(lines.Text())
		if len(parts) < 2 {
			continue
		}
		if n, err := strconv.ParseInt(parts[1], 10, 64); err == nil {
			found[parts[0]] = n
		}
	}
	return found
}

func (g Group) unified() (Hierarchy, bool) {
	for _, h := range g.host.Hierarchies {
		if h.V2 {
			return h, true
		}
	}
	return Hierarchy{}, false
}
