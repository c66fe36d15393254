package scheduler

import (
	"strconv"
	"strings"

	"muster/state"
)

// DefaultNeed is what an instance without limits counts for: what an idle
// system container of a small distribution takes, rounded up.
var DefaultNeed = Resources{CPU: 50, Memory: 64 << 20, Disk: 0}

// NeedOf reads an instance's needs from its expanded configuration and devices:
// limits.cpu (a number or a set of processors), limits.memory (a size; a
// percentage counts as no limit, since it grows with the member), and the size of
// the root disk. Errors are of kind state.ErrInvalid.
func NeedOf(config state.Config, devices state.Devices) (Resources, error) {
	need := DefaultNeed
	if value := config["limits.cpu"]; value != "" {
		count, set, err := state.ParseCPULimit(value)
		if err != nil {
			return need, err
		}
		for part := range strings.SplitSeq(set, ",") {
			first, last, isRange := strings.Cut(part, "-")
			from, errFrom := strconv.Atoi(first)
			to, errTo := strconv.Atoi(last)
			if errFrom == nil && isRange && errTo == nil {
				count += to - from + 1
			} else if errFrom == nil {
				count++
			}
		}
		need.CPU = int64(count) * 1000
	}
	if value := config["limits.memory"]; value != "" && !strings.HasSuffix(value, "%") {
		size, err := state.ParseSize(value)
		if err != nil {
			return need, err
		}
		need.Memory = size
	}
	for _, device := range devices {
		if device["type"] == "disk" && device["path"] == "/" && device["size"] != "" {
			size, err := state.ParseSize(device["size"])
			if err != nil {
				return need, err
			}
			need.Disk = size
		}
	}
	return need, nil
}
