package machine

import (
	"strconv"
	"strings"

	"muster/rpc/rest/api"
)

// memory reads /proc/meminfo, and the same of each NUMA node.
func memory(root string) api.ResourcesMemory {
	info := memInfo(read(root, "proc/meminfo"))
	pages, pageSize := info["HugePages_Total"], info["Hugepagesize"]
	result := api.ResourcesMemory{
		Total: info["MemTotal"], Used: used(info["MemTotal"], info["MemAvailable"]),
		HugepagesSize: pageSize, HugepagesTotal: pages * pageSize,
		HugepagesUsed: used(pages, info["HugePages_Free"]) * pageSize,
	}
	base := root + "/sys/devices/system/node"
	for _, name := range names(base) {
		n, ok := numbered(name, "node")
		if !ok {
			continue
		}
		info := memInfo(read(base, name, "meminfo"))
		free := info["MemFree"] + info["FilePages"] + info["SReclaimable"]
		result.Nodes = append(result.Nodes, api.ResourcesMemoryNode{
			NUMANode: n, Total: info["MemTotal"], Used: used(info["MemTotal"], free),
			HugepagesTotal: info["HugePages_Total"] * pageSize,
			HugepagesUsed:  used(info["HugePages_Total"], info["HugePages_Free"]) * pageSize,
		})
	}
	return result
}

func used(total, free uint64) uint64 { return total - min(free, total) }

// memInfo reads lines such as "MemTotal: 16 kB" and "Node 0 MemTotal: 16 kB";
// sizes become bytes.
func memInfo(text string) map[string]uint64 {
	info := map[string]uint64{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		key = key[strings.LastIndexByte(key, ' ')+1:]
		amount, isSize := strings.CutSuffix(strings.TrimSpace(value), " kB")
		n, err := strconv.ParseUint(amount, 10, 64)
		if err != nil {
			continue
		}
		if isSize {
			n *= 1024
		}
		info[key] = n
	}
	return info
}
