package node

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/state"
)

// deviceNames returns the names in an order that stays the same, since the order
// decides what an unnamed interface is called.
func deviceNames(devices state.Devices) []string {
	names := make([]string, 0, len(devices))
	for name := range devices {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// addDevices gives the spec every device of the instance but the root disk, and
// returns the volatile keys that belong to them.
func (n *Node) addDevices(ctx context.Context, inst Instance, spec *runtime.Spec) (state.Config, error) {
	volatile := state.Config{}
	devices := withoutShadowed(inst.Devices)
	for _, name := range deviceNames(devices) {
		device := devices[name]
		switch device["type"] {
		case "nic":
			nic, err := n.nic(inst, name, device, volatile)
			if err != nil {
				return nil, err
			}
			spec.NICs = append(spec.NICs, nic)
		case "disk":
			if device["path"] == "/" {
				continue
			}
			mount, present, err := n.hostMount(ctx, inst, name, device)
			if err != nil {
				return nil, err
			}
			if present {
				spec.Mounts = append(spec.Mounts, mount)
			}
		case "unix-char", "unix-block":
			node, present, err := deviceNode(name, device)
			if err != nil {
				return nil, err
			}
			if present {
				spec.Devices = append(spec.Devices, node)
			}
		case "proxy":
			proxy, err := proxyOf(name, device)
			if err != nil {
				return nil, err
			}
			spec.Proxies = append(spec.Proxies, proxy)
		}
	}
	return volatile, ctx.Err()
}

func required(device map[string]string) bool {
	return device["required"] == "" || isTrue(device["required"])
}

// withoutShadowed leaves out the unix devices whose path another one has, too: the last of
// their names wins.
func withoutShadowed(devices state.Devices) state.Devices {
	last := map[string]string{}
	kept := maps.Clone(devices)
	for _, name := range deviceNames(devices) {
		at := unixPath(devices[name])
		if at == "" {
			continue
		}
		if other, taken := last[at]; taken {
			delete(kept, other)
		}
		last[at] = name
	}
	return kept
}

// unixPath is where a unix device is in the instance, empty for other devices.
func unixPath(device map[string]string) string {
	switch device["type"] {
	case "unix-char", "unix-block":
		return path.Clean(cmp.Or(device["path"], device["source"]))
	}
	return ""
}

// deviceNode is a unix-char or unix-block device.
func deviceNode(name string, device map[string]string) (node runtime.Device, present bool, err error) {
	source := cmp.Or(device["source"], device["path"])
	node = runtime.Device{Path: cmp.Or(device["path"], device["source"]), Block: device["type"] == "unix-block"}
	if node.Mode, err = modeOf(device["mode"]); err != nil {
		return node, false, state.Errorf(state.ErrInvalid, "device %q: %w", name, err)
	}
	if node.UID, err = idOf(device["uid"]); err != nil {
		return node, false, state.Errorf(state.ErrInvalid, "device %q: uid: %w", name, err)
	}
	if node.GID, err = idOf(device["gid"]); err != nil {
		return node, false, state.Errorf(state.ErrInvalid, "device %q: gid: %w", name, err)
	}
	if device["major"] != "" && device["minor"] != "" {
		major, errMajor := strconv.ParseUint(device["major"], 10, 32)
		minor, errMinor := strconv.ParseUint(device["minor"], 10, 32)
		if errMajor != nil || errMinor != nil {
			return node, false, state.Errorf(state.ErrInvalid, "device %q: major and minor must be numbers", name)
		}
		node.Major, node.Minor = uint32(major), uint32(minor)
		return node, true, nil
	}
	var stat unix.Stat_t
	if err := unix.Stat(source, &stat); err != nil {
		if errors.Is(err, unix.ENOENT) && !required(device) {
			return node, false, nil
		}
		return node, false, state.Errorf(state.ErrInvalid, "device %q: %s on this member: %w", name, source, err)
	}
	want := uint32(unix.S_IFCHR)
	if node.Block {
		want = unix.S_IFBLK
	}
	if stat.Mode&unix.S_IFMT != want {
		return node, false, state.Errorf(state.ErrInvalid, "device %q: %s is not a %s device", name, source, strings.TrimPrefix(device["type"], "unix-"))
	}
	node.Major, node.Minor = unix.Major(stat.Rdev), unix.Minor(stat.Rdev)
	return node, true, nil
}

func modeOf(value string) (uint32, error) {
	if value == "" {
		return 0, nil
	}
	mode, err := strconv.ParseUint(value, 8, 32)
	if err != nil || mode > 0o7777 {
		return 0, state.Errorf(state.ErrInvalid, "mode %q: want octal permission bits such as 0660", value)
	}
	return uint32(mode), nil
}

func idOf(value string) (uint32, error) {
	if value == "" {
		return 0, nil
	}
	id, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return 0, state.Errorf(state.ErrInvalid, "%q is not a numeric id", value)
	}
	return uint32(id), nil
}

// proxyOf is a proxy device.
func proxyOf(name string, device map[string]string) (runtime.Proxy, error) {
	proxy := runtime.Proxy{Name: name, ProxyProtocol: isTrue(device["proxy_protocol"])}
	switch device["bind"] {
	case "instance", "guest", "container":
		proxy.InContainer = true
	}
	var err error
	if proxy.Listen, err = endpoints(device["listen"]); err != nil {
		return proxy, state.Errorf(state.ErrInvalid, "device %q: listen: %w", name, err)
	}
	if proxy.Connect, err = endpoints(device["connect"]); err != nil {
		return proxy, state.Errorf(state.ErrInvalid, "device %q: connect: %w", name, err)
	}
	if len(proxy.Connect) != 1 && len(proxy.Connect) != len(proxy.Listen) {
		return proxy, state.Errorf(state.ErrInvalid, "device %q: listen has %d ports and connect has %d; give as many, or one to connect to",
			name, len(proxy.Listen), len(proxy.Connect))
	}
	if proxy.Mode, err = modeOf(device["mode"]); err != nil {
		return proxy, state.Errorf(state.ErrInvalid, "device %q: %w", name, err)
	}
	for key, target := range map[string]*uint32{
		"uid": &proxy.UID, "gid": &proxy.GID,
		"security.uid": &proxy.RunUID, "security.gid": &proxy.RunGID,
	} {
		if *target, err = idOf(device[key]); err != nil {
			return proxy, state.Errorf(state.ErrInvalid, "device %q: %s: %w", name, key, err)
		}
	}
	return proxy, nil
}

// endpoints reads "tcp:address:port[-port][,port…]", "udp:…" and "unix:path".
func endpoints(value string) ([]runtime.Endpoint, error) {
	network, address, found := strings.Cut(value, ":")
	if !found {
		return nil, state.Errorf(state.ErrInvalid, "%q: want tcp:ADDRESS:PORT or unix:PATH", value)
	}
	switch network {
	case "unix":
		return []runtime.Endpoint{{Network: network, Address: address}}, nil
	case "tcp", "udp":
	default:
		return nil, state.Errorf(state.ErrInvalid, "%q: unknown protocol %q: want tcp, udp or unix", value, network)
	}
	colon := strings.LastIndexByte(address, ':')
	if colon < 0 {
		return nil, state.Errorf(state.ErrInvalid, "%q: the port is missing", value)
	}
	host, ports := address[:colon], address[colon+1:]
	var list []runtime.Endpoint
	for part := range strings.SplitSeq(ports, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, errFrom := strconv.ParseUint(first, 10, 16)
		to, errTo := strconv.ParseUint(last, 10, 16)
		if errFrom != nil || errTo != nil || from == 0 || to < from {
			return nil, state.Errorf(state.ErrInvalid, "%q: %q is not a port or a range of ports", value, part)
		}
		for port := from; port <= to; port++ {
			list = append(list, runtime.Endpoint{Network: network, Address: host + ":" + strconv.FormatUint(port, 10)})
		}
	}
	return list, nil
}
