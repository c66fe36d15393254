package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// companions is the proportional set size of what stays with each running container
// besides its own processes, as a mean: ours is muster-shim, LXD's forks itself.
func (s *server) companions() string {
	program := "muster-shim"
	if s.pool == "dir" {
		program = "lxd"
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return "?"
	}
	var total, count int
	for _, process := range processes {
		if filepath.Base(process) == strconv.Itoa(s.daemon.Process.Pid) {
			continue
		}
		exe, err := os.Readlink(filepath.Join(process, "exe"))
		if err != nil || filepath.Base(exe) != program {
			continue
		}
		arguments, err := os.ReadFile(filepath.Join(process, "cmdline"))
		if err != nil || !strings.Contains(string(arguments), s.dir) {
			continue
		}
		if size, found := pss(process); found {
			total += size
			count++
		}
	}
	if count == 0 {
		return "?"
	}
	return fmt.Sprintf("%.1f MB", float64(total)/float64(count)/1024)
}

// pss is a process's proportional set size in KiB (proc(5), smaps_rollup).
func pss(process string) (int, bool) {
	data, err := os.ReadFile(filepath.Join(process, "smaps_rollup"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if rest, found := strings.CutPrefix(line, "Pss:"); found {
			size, err := strconv.Atoi(strings.Fields(rest)[0])
			return size, err == nil
		}
	}
	return 0, false
}
