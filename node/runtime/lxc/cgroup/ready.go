package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Ready has the kernel do now what the next change of a process's group would wait for.
// To move a process it first waits until no thread of any process begins or ends, which
// takes a grace period of RCU, eight to fifteen milliseconds on a machine with little to
// do (cgroup_threadgroup_rwsem in kernel/cgroup/cgroup.c); what follows within the next
// such period does not wait again. Moving this process to where it is asks for just that.
// It returns when that is over.
func (h *Host) Ready() error {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		controllers := strings.Split(parts[1], ",")
		for _, hierarchy := range h.Hierarchies {
			if hierarchy.V2 && parts[1] == "" || !hierarchy.V2 && slices.Equal(hierarchy.Controllers, controllers) {
				return writeFile(filepath.Join(hierarchy.Mount, parts[2], "cgroup.procs"), strconv.Itoa(os.Getpid()))
			}
		}
	}
	return os.ErrNotExist
}
