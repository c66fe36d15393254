package cgroup

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ParseCPUs reads a list of processors, "0-1,3".
func ParseCPUs(list string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || from < 0 || to < from || to > 1<<16 {
			return nil, fmt.Errorf("%q is not a list of processors such as 0-1,3", list)
		}
		for cpu := from; cpu <= to; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	slices.Sort(cpus)
	return slices.Compact(cpus), nil
}

// CPUs are the processors that containers of this machine may use.
func (h *Host) CPUs() ([]int, error) {
	hierarchy, ok := h.find("cpuset")
	if ok {
		for _, name := range []string{"cpuset.effective_cpus", "cpuset.cpus.effective", "cpuset.cpus"} {
			if text, err := os.ReadFile(filepath.Join(hierarchy.Mount, hierarchy.Base, name)); err == nil {
				return ParseCPUs(string(text))
			}
		}
	}
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, err
	}
	return ParseCPUs(string(text))
}

// ChooseCPUs picks count processors that the fewest of the given groups are
// confined to; all, if there are fewer. A group that may use all does not count.
func (h *Host) ChooseCPUs(count int, others []Group) (string, error) {
	all, err := h.CPUs()
	if err != nil {
		return "", err
	}
	count = min(count, len(all))
	taken := map[int]int{}
	for _, other := range others {
		text, err := other.read("cpuset", "cpuset.cpus")
		if err != nil {
			continue
		}
		its, err := ParseCPUs(text)
		if err != nil || len(its) == len(all) {
			continue
		}
		for _, cpu := range its {
			taken[cpu]++
		}
	}
	slices.SortFunc(all, func(a, b int) int { return cmp.Or(cmp.Compare(taken[a], taken[b]), cmp.Compare(a, b)) })
	chosen := slices.Sorted(slices.Values(all[:count]))
	words := make([]string, len(chosen))
	for i, cpu := range chosen {
		words[i] = strconv.Itoa(cpu)
	}
	return strings.Join(words, ","), nil
}
