package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"muster/cmd/muster/table"
	"muster/rpc/rest/api"
)

// column is one column of the list.
type column struct {
	header string
	show   func(api.InstanceFull) string
	// state says that it shows something only a look into the instance tells.
	state bool
}

// letters are the columns with a short name.
var letters = map[rune]column{
	'4': {"IPV4", func(i api.InstanceFull) string { return addresses(i, "inet") }, true},
	'6': {"IPV6", func(i api.InstanceFull) string { return addresses(i, "inet6") }, true},
	'a': {"ARCHITECTURE", func(i api.InstanceFull) string { return i.Architecture }, false},
	'b': {"STORAGE POOL", rootPool, false},
	'c': {"CREATED AT", func(i api.InstanceFull) string { return moment(i.CreatedAt) }, false},
	'd': {"DESCRIPTION", func(i api.InstanceFull) string { return i.Description }, false},
	'D': {"DISK USAGE", diskUsage, true},
	'e': {"PROJECT", func(i api.InstanceFull) string { return i.Project }, false},
	'f': {"BASE IMAGE", func(i api.InstanceFull) string { return elided(i.Config["volatile.base_image"], 12) }, false},
	'F': {"BASE IMAGE", func(i api.InstanceFull) string { return i.Config["volatile.base_image"] }, false},
	'l': {"LAST USED AT", func(i api.InstanceFull) string { return moment(i.LastUsedAt) }, false},
	'L': {"LOCATION", func(i api.InstanceFull) string { return i.Location }, false},
	'm': {"MEMORY USAGE", memoryUsage, true},
	'M': {"MEMORY USAGE%", memoryPercent, true},
	'n': {"NAME", func(i api.InstanceFull) string { return i.Name }, false},
	'N': {"PROCESSES", processes, true},
	'p': {"PID", pid, true},
	'P': {"PROFILES", func(i api.InstanceFull) string { return strings.Join(i.Profiles, "\n") }, false},
	's': {"STATE", func(i api.InstanceFull) string { return strings.ToUpper(i.Status) }, false},
	'S': {"SNAPSHOTS", func(i api.InstanceFull) string { return strconv.Itoa(len(i.Snapshots)) }, true},
	't': {"TYPE", instanceType, false},
	'u': {"CPU USAGE", cpuUsage, true},
}

// parseColumns reads the --columns language.
func parseColumns(text string) ([]column, error) {
	var all []column
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			return nil, fmt.Errorf("columns %q: a column is empty", text)
		}
		// A key has a dot, or a colon after its kind; letters have neither.
		if strings.ContainsAny(part, ".:") {
			custom, err := keyColumn(part)
			if err != nil {
				return nil, err
			}
			all = append(all, custom)
			continue
		}
		for _, letter := range part {
			known, ok := letters[letter]
			if !ok {
				return nil, fmt.Errorf("columns %q: no column is called %q", text, letter)
			}
			all = append(all, known)
		}
	}
	return all, nil
}

// keyColumn reads [config:|devices:]KEY[:NAME[:WIDTH]].
func keyColumn(text string) (column, error) {
	kind := "config"
	for _, prefix := range []string{"config", "devices"} {
		if rest, ok := strings.CutPrefix(text, prefix+":"); ok {
			kind, text = prefix, rest
			break
		}
	}
	parts := strings.Split(text, ":")
	key, width := parts[0], -1
	if len(parts) > 3 || key == "" {
		return column{}, fmt.Errorf("column %q is not of the form KEY[:NAME[:WIDTH]]", text)
	}
	c := column{header: strings.ToUpper(key)}
	if len(parts) > 1 && parts[1] != "" {
		c.header = parts[1]
	}
	if len(parts) > 2 {
		var err error
		if width, err = strconv.Atoi(parts[2]); err != nil || width < -1 {
			return column{}, fmt.Errorf("column %q: the width %q is no number", text, parts[2])
		}
		if width == 0 {
			width = len(c.header)
		}
	}
	value := func(i api.InstanceFull) string { return i.ExpandedConfig[key] }
	if kind == "devices" {
		device, option, found := strings.Cut(key, ".")
		if !found {
			return column{}, fmt.Errorf("column %q is not of the form devices:DEVICE.KEY", text)
		}
		value = func(i api.InstanceFull) string { return i.ExpandedDevices[device][option] }
	}
	c.show = func(i api.InstanceFull) string {
		if width < 0 {
			return value(i)
		}
		return elided(value(i), width)
	}
	return c, nil
}

func needState(columns []column) bool {
	return slices.ContainsFunc(columns, func(c column) bool { return c.state })
}

func sortInstances(all []api.InstanceFull) {
	slices.SortStableFunc(all, func(x, y api.InstanceFull) int {
		if x.Project != y.Project {
			return strings.Compare(x.Project, y.Project)
		}
		return table.Natural(x.Name, y.Name)
	})
}

// addresses lists what can be reached from outside, with the interface.
func addresses(i api.InstanceFull, family string) string {
	if i.State == nil {
		return ""
	}
	var lines []string
	for name, network := range i.State.Network {
		if network.Type == "loopback" || name == "lo" {
			continue
		}
		for _, address := range network.Addresses {
			if address.Family == family && address.Scope != "link" && address.Scope != "local" {
				lines = append(lines, address.Address+" ("+name+")")
			}
		}
	}
	slices.SortFunc(lines, table.Natural)
	return strings.Join(lines, "\n")
}

// hasAddress says whether one of the instance's addresses is in the network.
func hasAddress(i api.InstanceFull, network netip.Prefix) bool {
	if i.State == nil {
		return false
	}
	for _, device := range i.State.Network {
		for _, address := range device.Addresses {
			if ip, err := netip.ParseAddr(address.Address); err == nil && network.Contains(ip) {
				return true
			}
		}
	}
	return false
}

func rootPool(i api.InstanceFull) string {
	for _, device := range i.ExpandedDevices {
		if device["type"] == "disk" && device["path"] == "/" {
			return device["pool"]
		}
	}
	return ""
}

func diskUsage(i api.InstanceFull) string {
	if i.State == nil || i.State.Disk["root"].Usage <= 0 {
		return ""
	}
	return size(i.State.Disk["root"].Usage)
}

func memoryUsage(i api.InstanceFull) string {
	if i.State == nil || i.State.Memory.Usage <= 0 {
		return ""
	}
	return size(i.State.Memory.Usage)
}

func memoryPercent(i api.InstanceFull) string {
	limit, ok := byteLimit(i.ExpandedConfig["limits.memory"])
	if i.State == nil || i.State.Memory.Usage <= 0 || !ok {
		return ""
	}
	return fmt.Sprintf("%.1f%%", 100*float64(i.State.Memory.Usage)/float64(limit))
}

// byteLimit reads a size such as 512MiB; percentages are of a machine that is
// not ours to know.
func byteLimit(text string) (int64, bool) {
	digits := strings.TrimRight(text, "kKMGTPEiB ")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 {
		return 0, false
	}
	unit := strings.TrimSpace(text[len(digits):])
	base := int64(1000)
	if strings.HasSuffix(unit, "iB") {
		base = 1024
	}
	prefix := strings.TrimSuffix(strings.TrimSuffix(unit, "iB"), "B")
	if prefix == "" {
		return n, true
	}
	power := strings.Index("KMGTPE", strings.ToUpper(prefix))
	if power < 0 || len(prefix) != 1 {
		return 0, false
	}
	for range power + 1 {
		n *= base
	}
	return n, true
}

func processes(i api.InstanceFull) string {
	if i.State == nil || i.State.Processes <= 0 {
		return ""
	}
	return strconv.FormatInt(i.State.Processes, 10)
}

func pid(i api.InstanceFull) string {
	if i.State == nil || i.State.Pid <= 0 {
		return ""
	}
	return strconv.FormatInt(i.State.Pid, 10)
}

func cpuUsage(i api.InstanceFull) string {
	if i.State == nil || i.State.CPU.Usage <= 0 {
		return ""
	}
	return fmt.Sprintf("%ds", i.State.CPU.Usage/1e9)
}

func instanceType(i api.InstanceFull) string {
	kind := strings.ToUpper(string(i.Type))
	if i.Ephemeral {
		kind += " (EPHEMERAL)"
	}
	return kind
}
