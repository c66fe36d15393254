package node

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"muster/state"
)

// memoryBytes reads limits.memory: a size, or a share of this machine's memory.
func memoryBytes(value string) (int64, error) {
	percent, isShare := strings.CutSuffix(value, "%")
	if !isShare {
		return state.ParseSize(value)
	}
	share, err := strconv.ParseInt(percent, 10, 64)
	if err != nil || share < 1 || share > 100 {
		return 0, state.Errorf(state.ErrInvalid, "limits.memory %q: want a share from 1%% to 100%%", value)
	}
	total, err := totalMemory()
	return total / 100 * share, err
}

// totalMemory is the memory of this machine in bytes.
func totalMemory() (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, err
	}
	return int64(info.Totalram) * int64(info.Unit), nil
}

// availableMemory is what proc(5) calls MemAvailable, in bytes.
func availableMemory() (int64, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, found := strings.CutPrefix(line, "MemAvailable:"); found {
			kibibytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kibibytes << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}
