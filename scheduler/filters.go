package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"muster/state"
)

// refuse returns the first filter that objects to the member, and its reason.
// What the request says comes first, so that members it never meant say so.
func (b *board) refuse(r Request, m *Member) (filter, reason string) {
	group, wantsGroup := strings.CutPrefix(r.Target, "@")
	named := !wantsGroup && r.Target != ""
	switch {
	case named && r.Target != m.Name:
		return "target", "is not the target " + r.Target
	case wantsGroup && !slices.Contains(m.Groups, group):
		return "target", "is not in group " + group
	case len(r.Groups) > 0 && !slices.ContainsFunc(m.Groups, func(g string) bool { return slices.Contains(r.Groups, g) }):
		return "project", fmt.Sprintf("is in none of the groups project %s may use (%s)", r.Project, strings.Join(r.Groups, ", "))
	case !m.Online:
		return "status", "is " + orOffline(m.Status)
	case m.Scheduler == "manual" && !named:
		return "scheduler.instance", "takes only instances that name it (scheduler.instance=manual)"
	case m.Scheduler == "group" && r.Target == "":
		return "scheduler.instance", "takes only instances that target its group (scheduler.instance=group)"
	case r.Architecture != "" && !slices.ContainsFunc(m.Architectures, func(host string) bool { return state.RunsOn(r.Architecture, host) }):
		return "architecture", "does not run " + r.Architecture
	}
	for _, pool := range r.Pools {
		if !slices.Contains(m.Pools, pool) {
			return "storage", "has no storage pool " + pool
		}
	}
	for _, network := range r.Networks {
		if !slices.Contains(m.Networks, network) {
			return "network", "has no network " + network
		}
	}
	used := b.used[m.Name]
	for _, c := range []struct {
		what       string
		used, need int64
		limit      int64
	}{
		{"memory", used.Memory, r.Need.Memory, over(m.Capacity.Memory, b.ratios.Memory)},
		{"CPU", used.CPU, r.Need.CPU, over(m.Capacity.CPU, b.ratios.CPU)},
		{"disk", used.Disk, r.Need.Disk, over(m.Capacity.Disk, b.ratios.Disk)},
	} {
		// Subtracting cannot overflow where adding could.
		if c.need > 0 && c.need > c.limit-c.used {
			return "capacity", fmt.Sprintf("is short of %s (%s needed, %s of %s promised)",
				c.what, amount(c.what, c.need), amount(c.what, c.used), amount(c.what, c.limit))
		}
	}
	return "", ""
}

func orOffline(status string) string {
	if status == "" {
		return "offline"
	}
	return status
}

// Room is what may be promised of a member's means, all its instances together. What is
// not known of them stays zero.
func Room(capacity Resources, ratios Ratios) Resources {
	ratios = ratios.filled()
	return Resources{CPU: over(capacity.CPU, ratios.CPU), Memory: over(capacity.Memory, ratios.Memory), Disk: over(capacity.Disk, ratios.Disk)}
}

// filled puts the defaults where nothing is said.
func (r Ratios) filled() Ratios {
	return Ratios{cmp.Or(r.CPU, 16), cmp.Or(r.Memory, 1.5), cmp.Or(r.Disk, 1)}
}

func over(capacity int64, ratio float64) int64 { return int64(float64(capacity) * ratio) }

func amount(what string, n int64) string {
	if what == "CPU" {
		return fmt.Sprintf("%.2f processors", float64(n)/1000)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
