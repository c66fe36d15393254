package machine

import (
	"strconv"
	"strings"

	"muster/rpc/rest/api"
)

// cpus reads /sys/devices/system/cpu, and names from /proc/cpuinfo.
func cpus(root string) api.ResourcesCPU {
	base := root + "/sys/devices/system/cpu"
	info := cpuInfo(root)
	isolated := set(read(base, "isolated"))
	result := api.ResourcesCPU{Architecture: Read(root).KernelArchitecture, Sockets: []api.ResourcesCPUSocket{}}
	sockets := map[uint64]int{}
	for _, name := range names(base) {
		id, ok := numbered(name, "cpu")
		if !ok {
			continue
		}
		dir := base + "/" + name
		online, told := number(dir, "online")
		thread := api.ResourcesCPUThread{
			ID: int64(id), NUMANode: cpuNode(dir), Online: online == 1 || !told, Isolated: isolated[id],
		}
		// A CPU that is off has no topology; it belongs to the first socket then.
		socketID, coreID := count(dir, "topology/physical_package_id"), count(dir, "topology/core_id")
		at, known := sockets[socketID]
		if !known {
			at = len(result.Sockets)
			sockets[socketID] = at
			result.Sockets = append(result.Sockets, api.ResourcesCPUSocket{
				Name: info[id]["model name"], Vendor: info[id]["vendor_id"], Socket: socketID, Cache: caches(dir),
				Cores:            []api.ResourcesCPUCore{},
				FrequencyMinimum: count(dir, "cpufreq/cpuinfo_min_freq") / 1000,
				FrequencyTurbo:   count(dir, "cpufreq/cpuinfo_max_freq") / 1000,
			})
		}
		addThread(&result.Sockets[at], coreID, count(dir, "topology/die_id"), frequency(dir, info[id]), thread)
		result.Total++
	}
	for i := range result.Sockets {
		result.Sockets[i].Frequency = average(result.Sockets[i].Cores)
	}
	return result
}

func addThread(socket *api.ResourcesCPUSocket, core, die, frequency uint64, thread api.ResourcesCPUThread) {
	for i := range socket.Cores {
		if known := &socket.Cores[i]; known.Core == core && known.Die == die {
			thread.Thread = uint64(len(known.Threads))
			known.Threads = append(known.Threads, thread)
			return
		}
	}
	socket.Cores = append(socket.Cores, api.ResourcesCPUCore{
		Core: core, Die: die, Frequency: frequency, Threads: []api.ResourcesCPUThread{thread},
	})
}

func average(cores []api.ResourcesCPUCore) uint64 {
	var sum, n uint64
	for _, core := range cores {
		if core.Frequency > 0 {
			sum, n = sum+core.Frequency, n+1
		}
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

// frequency is in MHz: from the governor, or what /proc/cpuinfo says.
func frequency(dir string, info map[string]string) uint64 {
	if kHz, ok := number(dir, "cpufreq/scaling_cur_freq"); ok {
		return kHz / 1000
	}
	mhz, _ := strconv.ParseFloat(info["cpu MHz"], 64)
	return uint64(mhz)
}

func caches(dir string) []api.ResourcesCPUCache {
	var found []api.ResourcesCPUCache
	for _, name := range names(dir, "cache") {
		if _, ok := numbered(name, "index"); !ok {
			continue
		}
		cache := dir + "/cache/" + name
		size, err := strconv.ParseUint(strings.TrimSuffix(read(cache, "size"), "K"), 10, 64)
		if err != nil {
			continue
		}
		found = append(found, api.ResourcesCPUCache{Level: count(cache, "level"), Type: read(cache, "type"), Size: size * 1024})
	}
	return found
}

// cpuNode finds the nodeN link in a CPU's directory.
func cpuNode(dir string) uint64 {
	for _, name := range names(dir) {
		if n, ok := numbered(name, "node"); ok {
			return n
		}
	}
	return 0
}

// cpuInfo is /proc/cpuinfo by processor.
func cpuInfo(root string) map[uint64]map[string]string {
	info, current := map[uint64]map[string]string{}, map[string]string{}
	for line := range strings.Lines(read(root, "proc/cpuinfo")) {
		key, value, _ := strings.Cut(line, ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if key == "processor" {
			if id, err := strconv.ParseUint(value, 10, 64); err == nil {
				current = map[string]string{}
				info[id] = current
			}
		}
		current[key] = value
	}
	return info
}

// set reads a list of ranges such as "0-3,8".
func set(text string) map[uint64]bool {
	members := map[uint64]bool{}
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		from, err := strconv.ParseUint(first, 10, 64)
		if err != nil {
			continue
		}
		to := from
		if ranged {
			to, _ = strconv.ParseUint(last, 10, 64)
		}
		for n := from; n <= to; n++ {
			members[n] = true
		}
	}
	return members
}
