package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"muster/node/runtime"
	"muster/state"
)

// Setting is one value for one file of a group.
type Setting struct {
	Controller string
	File       string
	Value      string
	// V2 says in which version's words it is.
	V2 bool
	// optional settings refine others; without the file they are left out.
	optional bool
}

// Key is the setting's name in liblxc's configuration (lxc.container.conf(5),
// "CONTROL GROUPS").
func (s Setting) Key() string {
	if s.V2 {
		return "lxc.cgroup2." + s.File
	}
	return "lxc.cgroup." + s.File
}

// Settings turns limits into the settings of a new group. cpus is the set chosen
// for limits.CPU.Count. ErrInvalid when the kernel can't enforce one here.
func (h *Host) Settings(limits runtime.Limits, cpus string) ([]Setting, error) {
	b := &builder{host: h}
	b.cpu(limits.CPU, cpus)
	b.memory(limits.Memory)
	if limits.Processes > 0 {
		b.set("pids", "limits.processes", "pids.max", "pids.max", strconv.FormatInt(limits.Processes, 10))
	}
	return b.settings, b.err
}

// builder collects settings until the first that can't be.
type builder struct {
	host *Host
	// made says that the group exists.
	made     bool
	settings []Setting
	err      error
}

// set adds a setting under the file's name in each version; an empty name means
// that the version has no such thing and that it is left out.
func (b *builder) set(controller, key, v1, v2, value string) {
	if b.err != nil {
		return
	}
	h, ok := b.host.find(controller)
	if !ok {
		b.err = state.Errorf(state.ErrInvalid, "%s: this machine's kernel has no %s controller", key, controller)
		return
	}
	file := v1
	if h.V2 {
		file = v2
	}
	if file != "" {
		b.settings = append(b.settings, Setting{Controller: controller, File: file, Value: value, V2: h.V2})
	}
}

// refine is set for what may be missing.
func (b *builder) refine(controller, v1, v2, value string) {
	h, ok := b.host.find(controller)
	if b.err != nil || !ok {
		return
	}
	file := v1
	if h.V2 {
		file = v2
	}
	if file == "" {
		return
	}
	// Where the group is not made yet, the root group of version 1 tells whether
	// the kernel has the file; that of version 2 lacks most.
	if !h.V2 && !b.made {
		if _, err := os.Stat(filepath.Join(h.Mount, file)); err != nil {
			return
		}
	}
	b.settings = append(b.settings, Setting{Controller: controller, File: file, Value: value, V2: h.V2, optional: true})
}

func (b *builder) isV2(controller string) bool {
	h, _ := b.host.find(controller)
	return h.V2
}

func (b *builder) cpu(cpu runtime.CPULimits, chosen string) {
	set := cpu.Set
	if cpu.Count > 0 {
		set = chosen
	}
	if set != "" {
		b.set("cpuset", "limits.cpu", "cpuset.cpus", "cpuset.cpus", set)
	}
	if cpu.Quota > 0 && b.isV2("cpu") {
		b.set("cpu", "limits.cpu.allowance", "", "cpu.max", fmt.Sprintf("%d %d", cpu.Quota, cpu.Period))
	} else if cpu.Quota > 0 {
		b.set("cpu", "limits.cpu.allowance", "cpu.cfs_period_us", "", strconv.FormatInt(cpu.Period, 10))
		b.set("cpu", "limits.cpu.allowance", "cpu.cfs_quota_us", "", strconv.FormatInt(cpu.Quota, 10))
	}
	if cpu.Share > 0 || cpu.Priority != nil {
		b.set("cpu", "limits.cpu.priority", "cpu.shares", "", strconv.Itoa(weight(cpu, 1024)))
		if b.isV2("cpu") {
			b.set("cpu", "limits.cpu.priority", "", "cpu.weight", strconv.Itoa(weight(cpu, 100)))
		}
	}
}

// weight is the group's part of the processor when others want it too: full is
// what an unlimited group has. The priority only decides between equals.
func weight(cpu runtime.CPULimits, full int) int {
	share, priority := 100, 10
	if cpu.Share > 0 {
		share = cpu.Share
	}
	if cpu.Priority != nil {
		priority = *cpu.Priority
	}
	// Version 1 knows nothing below 2 (kernel: MIN_SHARES).
	return max(full*share/100-(10-priority), 2)
}

func (b *builder) memory(memory runtime.MemoryLimits) {
	limit := strconv.FormatInt(memory.Limit, 10)
	switch {
	case memory.Limit > 0 && memory.Soft:
		b.set("memory", "limits.memory", "memory.soft_limit_in_bytes", "memory.high", limit)
	case memory.Limit > 0:
		b.set("memory", "limits.memory", "memory.limit_in_bytes", "memory.max", limit)
		if b.isV2("memory") && memory.NoSwap {
			limit = "0"
		}
		// Memory and swap together in version 1, swap alone in version 2.
		b.refine("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", limit)
	case memory.NoSwap:
		b.refine("memory", "", "memory.swap.max", "0")
	}
	switch {
	case memory.NoSwap:
		b.refine("memory", "memory.swappiness", "", "0")
	case memory.SwapPriority != nil:
		// 60 is the kernel's default (vm.swappiness).
		b.refine("memory", "memory.swappiness", "", strconv.Itoa(60-*memory.SwapPriority))
	}
	sizes := make([]string, 0, len(memory.Hugepages))
	for size := range memory.Hugepages {
		sizes = append(sizes, size)
	}
	sort.Strings(sizes)
	for _, size := range sizes {
		b.set("hugetlb", "limits.hugepages", "hugetlb."+size+".limit_in_bytes", "hugetlb."+size+".max",
			strconv.FormatInt(memory.Hugepages[size], 10))
	}
}

// lifted are the settings of a group without limits, in an order that the kernel
// takes: it refuses a memory limit above that of memory and swap together.
func (g Group) lifted() []Setting {
	b := &builder{host: g.host, made: true}
	b.refine("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", g.unlimited("memory"))
	b.refine("memory", "memory.limit_in_bytes", "memory.max", g.unlimited("memory"))
	b.refine("memory", "memory.soft_limit_in_bytes", "memory.high", g.unlimited("memory"))
	b.refine("memory", "memory.swappiness", "", "60")
	b.refine("pids", "pids.max", "pids.max", "max")
	b.refine("cpu", "cpu.cfs_quota_us", "", "-1")
	b.refine("cpu", "", "cpu.max", "max 100000")
	b.refine("cpu", "cpu.shares", "", "1024")
	b.refine("cpu", "", "cpu.weight", "100")
	b.refine("cpuset", "cpuset.cpus", "cpuset.cpus", g.parentCPUs())
	return b.settings
}

func (g Group) unlimited(controller string) string {
	if h, _ := g.host.find(controller); h.V2 {
		return "max"
	}
	return "-1"
}

// parentCPUs is what the group may use at most; in version 2 nothing means that.
func (g Group) parentCPUs() string {
	h, ok := g.host.find("cpuset")
	if !ok || h.V2 {
		return "\n"
	}
	text, _ := os.ReadFile(filepath.Join(filepath.Dir(g.dir(h)), "cpuset.cpus"))
	return strings.TrimSpace(string(text))
}

// Apply changes the limits of a group that exists: those not among the settings
// are lifted. What the container uses already can make a smaller limit of memory
// fail with ErrConflict; the limits are then as they were set up to there.
func (g Group) Apply(settings []Setting) error {
	wanted := map[string]bool{}
	for _, s := range settings {
		wanted[s.File] = true
	}
	for _, s := range g.lifted() {
		// Memory is lifted even if it is set again at once, so that any new pair
		// of limits is in an order that the kernel takes.
		if wanted[s.File] && s.Controller != "memory" {
			continue
		}
		if err := g.apply(s); err != nil {
			return err
		}
	}
	for _, s := range settings {
		if err := g.apply(s); err != nil {
			return err
		}
	}
	return nil
}

func (g Group) apply(s Setting) error {
	err := g.write(s.Controller, s.File, s.Value)
	switch {
	case err == nil, s.optional && os.IsNotExist(err):
		return nil
	case isBusy(err):
		return state.Errorf(state.ErrConflict, "%s: the container uses more than %s", s.File, s.Value)
	case isInvalid(err):
		return state.Errorf(state.ErrInvalid, "%s: the kernel does not accept %q", s.File, s.Value)
	}
	return fmt.Errorf("set %s to %s: %w", s.File, s.Value, err)
}
