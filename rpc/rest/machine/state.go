package machine

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"muster/rpc/rest/api"
)

// State is how the machine is doing at the moment. root is "/" but in tests.
func State(root string) (api.ClusterMemberSysInfo, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return api.ClusterMemberSysInfo{}, fmt.Errorf("sysinfo: %w", err)
	}
	// The kernel counts in units where bytes would not fit.
	bytes := func(n uint64) uint64 { return n * uint64(info.Unit) }
	return api.ClusterMemberSysInfo{
		Uptime: info.Uptime, LoadAverages: loads(root),
		TotalRAM: bytes(info.Totalram), FreeRAM: bytes(info.Freeram),
		SharedRAM: bytes(info.Sharedram), BufferRAM: bytes(info.Bufferram),
		TotalSwap: bytes(info.Totalswap), FreeSwap: bytes(info.Freeswap),
		Processes: info.Procs,
	}, nil
}

// loads are the averages of one, five and fifteen minutes in /proc/loadavg.
func loads(root string) []float64 {
	averages := []float64{}
	for field := range strings.FieldsSeq(read(root, "proc/loadavg")) {
		value, err := strconv.ParseFloat(field, 64)
		if err != nil || len(averages) == 3 {
			break // what follows counts processes
		}
		averages = append(averages, value)
	}
	return averages
}
