package node

import (
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
