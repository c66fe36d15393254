package state

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// deviceTypes are the options of each type of device.
var deviceTypes = map[string]table{
	"none": {what: "option", keys: []Key{}},
	"disk": {
		what: "option", keys: []Key{
			{Name: "path", Help: "where it is mounted in the instance", check: aPathInside},
			{Name: "source", Help: "path on the host, or a block device with a file system", check: aPath},
			{Name: "pool", Help: "storage pool of the root disk"},
			{Name: "size", Help: "limit of the root disk", check: aSize},
			{Name: "readonly", Help: "mount read-only", check: aBool},
			{Name: "required", Help: "fail when the source does not exist", Default: "true", check: aBool},
			{Name: "raw.mount.options", Help: "options to mount the source with, separated by commas, such as noexec,nosuid"},
			{Name: "recursive", Help: "take mounts below the source along", check: aBool},
			{Name: "propagation", Help: "mount propagation", Default: "private", check: oneOf("private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable")},
			{Name: "shift", Help: "show the owners of the source as the instance's own", check: aBool},
			{Name: "boot.priority", Help: "order of virtual machines' boot; containers don't boot from devices", check: aNumber(0, 1<<31-1)},
		},
		missing: []string{"ceph.cluster_name", "ceph.user_name", "limits.read", "limits.write", "limits.max", "size.state", "io.cache", "initial."},
	},
	"nic": {
		what: "option", keys: []Key{
			{Name: "network", Help: "managed network", check: ValidateNetworkName},
			{Name: "nictype", Help: "how it is attached, when no network is named", check: oneOf("bridged", "macvlan", "p2p")},
			{Name: "parent", Help: "interface of the host it is attached to", check: func(v string) error { return ValidateInterfaceName("parent", v) }},
			{Name: "name", Help: "name inside the instance", check: func(v string) error { return ValidateInterfaceName("name", v) }},
			{Name: "hwaddr", Help: "hardware address", check: aHWAddr},
			{Name: "mtu", Help: "maximum transfer unit", check: aNumber(68, 65535)},
			{Name: "host_name", Help: "name of the host's end", check: func(v string) error { return ValidateInterfaceName("host_name", v) }},
			{Name: "ipv4.address", Help: "address handed out by the managed network", check: anIPv4},
			{Name: "ipv6.address", Help: "address handed out by the managed network (ipv6.dhcp.stateful)", check: anIPv6},
			{Name: "boot.priority", Help: "order of virtual machines' boot; containers don't boot from devices", check: aNumber(0, 1<<31-1)},
		},
		missing: []string{
			"acceleration", "gvrp", "ipv4.gateway", "ipv4.host_address", "ipv4.host_table", "ipv4.neighbor_probe", "ipv4.routes", "ipv4.routes.external",
			"ipv6.gateway", "ipv6.host_address", "ipv6.host_table", "ipv6.neighbor_probe", "ipv6.routes", "ipv6.routes.external", "limits.", "maas.subnet.",
			"mode", "nested", "queue.tx.length", "security.", "vlan", "vlan.tagged",
		},
	},
	"unix-char":  {what: "option", keys: unixKeys},
	"unix-block": {what: "option", keys: unixKeys},
	"proxy": {
		what: "option", keys: []Key{
			{Name: "listen", Help: "where connections are accepted: tcp:ADDRESS:PORT or unix:PATH", check: anEndpoint},
			{Name: "connect", Help: "where they are passed on to", check: anEndpoint},
			{Name: "bind", Help: "which side listens", Default: "host", check: oneOf("host", "instance", "guest", "container")},
			{Name: "uid", Help: "owner of a listening socket", check: anID},
			{Name: "gid", Help: "group of a listening socket", check: anID},
			{Name: "mode", Help: "mode of a listening socket", Default: "0644", check: aMode},
			{Name: "security.uid", Help: "user the helper connects as", check: anID},
			{Name: "security.gid", Help: "group the helper connects as", check: anID},
			{Name: "proxy_protocol", Help: "send the client's address ahead (tcp)", check: aBool},
			{Name: "nat", Help: "forward in the kernel; not built, so only false is taken", Default: "false", check: onlyFalse("forwarding in the kernel is not built: connections are passed on by a helper")},
		},
	},
}

var unixKeys = []Key{
	{Name: "source", Help: "path on the host", check: aPath},
	{Name: "path", Help: "path in the instance", check: aPathInside},
	{Name: "major", Help: "major number", check: aNumber(0, 4095)},
	{Name: "minor", Help: "minor number", check: aNumber(0, 1<<20-1)},
	{Name: "uid", Help: "owner in the instance", Default: "0", check: anID},
	{Name: "gid", Help: "group in the instance", Default: "0", check: anID},
	{Name: "mode", Help: "permission bits", Default: "0660", check: aMode},
	{Name: "required", Help: "fail when the source does not exist", Default: "true", check: aBool},
}

// unsupportedDevices are types that LXD knows and muster does not.
var unsupportedDevices = []string{"gpu", "infiniband", "pci", "tpm", "unix-hotplug", "usb"}

// DeviceOptions lists the options of each supported type of device.
func DeviceOptions() map[string][]Key {
	options := make(map[string][]Key, len(deviceTypes))
	for name, kind := range deviceTypes {
		options[name] = kind.keys
	}
	return options
}

// ValidateDevices checks the devices of an instance, own or expanded, or of a
// profile when profile is true. The error names the device, the option and the
// nearest valid one.
func ValidateDevices(devices Devices, profile bool) error {
	roots := 0
	for _, name := range sortedNames(devices) {
		if err := ValidateDeviceName(name); err != nil {
			return err
		}
		if err := validateDevice(devices[name]); err != nil {
			return Errorf(ErrInvalid, "device %q: %w", name, err)
		}
		if devices[name]["type"] == "disk" && devices[name]["path"] == "/" {
			roots++
		}
	}
	if roots > 1 {
		owner := "an instance"
		if profile {
			owner = "a profile"
		}
		return Errorf(ErrInvalid, "%d devices are mounted at \"/\": %s has one root disk", roots, owner)
	}
	return devicesClash(devices)
}

// devicesClash refuses two devices that want the same place in the instance, or
// the same name on the host. Two unix devices may have one path, as in LXD: an instance can
// replace what its profile has under another name.
func devicesClash(devices Devices) error {
	type place struct{ option, value string }
	taken := map[place]string{}
	for _, name := range sortedNames(devices) {
		device := devices[name]
		var claims []place
		switch device["type"] {
		case "disk":
			claims = []place{{"path", path.Clean(device["path"])}}
		case "unix-char", "unix-block":
			at := device["path"]
			if at == "" {
				at = device["source"]
			}
			claims = []place{{"path", path.Clean(at)}}
		case "nic":
			claims = []place{{"name", device["name"]}, {"host_name", device["host_name"]}, {"hwaddr", strings.ToLower(device["hwaddr"])}}
			for _, address := range []string{"ipv4.address", "ipv6.address"} {
				claims = append(claims, place{address + " on " + device["network"] + device["parent"], device[address]})
			}
		}
		for _, claim := range claims {
			other, clash := taken[claim]
			if clash && isUnix(device) && isUnix(devices[other]) {
				continue // the last of their names is what the instance gets
			}
			if clash && claim.value != "" {
				return Errorf(ErrInvalid, "devices %q and %q have the same %s %q", other, name, claim.option, claim.value)
			}
			taken[claim] = name
		}
	}
	return nil
}

func isUnix(device map[string]string) bool {
	return device["type"] == "unix-char" || device["type"] == "unix-block"
}

func validateDevice(device map[string]string) error {
	kind := device["type"]
	options, ok := deviceTypes[kind]
	switch {
	case kind == "":
		return Errorf(ErrInvalid, "\"type\" is missing: want disk, nic, none, proxy, unix-block or unix-char")
	case slices.Contains(unsupportedDevices, kind):
		return Errorf(ErrInvalid, "devices of type %q are not supported by muster: use disk, nic, none, proxy, unix-block or unix-char", kind)
	case !ok:
		return unknown("type", kind, sortedNames(deviceTypes))
	}
	for _, key := range sortedNames(device) {
		if key == "type" || strings.HasPrefix(key, "user.") {
			continue
		}
		if err := options.validate(key, device[key]); err != nil {
			return err
		}
	}
	switch kind {
	case "disk":
		return validateDisk(device)
	case "nic":
		return validateNIC(device)
	case "unix-char", "unix-block":
		if device["source"] == "" && device["path"] == "" {
			return Errorf(ErrInvalid, "\"source\" and \"path\" are missing: give one")
		}
		if (device["major"] == "") != (device["minor"] == "") {
			return Errorf(ErrInvalid, "\"major\" and \"minor\" go together: give both or neither")
		}
	case "proxy":
		return validateProxy(device)
	}
	return nil
}

func validateDisk(device map[string]string) error {
	switch {
	case device["path"] == "":
		return Errorf(ErrInvalid, "\"path\" is missing: say where in the instance")
	case path.Clean(device["path"]) == "/":
		return validateRoot(device)
	case device["pool"] != "":
		return Errorf(ErrInvalid, "\"pool\": custom volumes are not supported as devices yet; give a \"source\" on the host")
	case device["source"] == "":
		return Errorf(ErrInvalid, "\"source\" is missing: give a path on the host")
	case device["size"] != "":
		return Errorf(ErrInvalid, "\"size\" is for the root disk only")
	}
	return nil
}

func validateRoot(device map[string]string) error {
	if device["path"] != "/" {
		return Errorf(ErrInvalid, "\"path\" %q: write \"/\" for the root disk", device["path"])
	}
	if device["source"] != "" {
		return Errorf(ErrInvalid, "the root disk (path \"/\") has no \"source\": leave it out")
	}
	for _, key := range []string{"readonly", "recursive", "shift"} {
		if on, _ := ParseBool(device[key]); on {
			return Errorf(ErrInvalid, "%q is not for the root disk (path \"/\"): leave it out", key)
		}
	}
	if device["raw.mount.options"] != "" {
		return Errorf(ErrInvalid, "\"raw.mount.options\" is not for the root disk (path \"/\"): leave it out")
	}
	if device["propagation"] != "" {
		return Errorf(ErrInvalid, "\"propagation\" is not for the root disk (path \"/\"): leave it out")
	}
	return nil
}

func validateNIC(device map[string]string) error {
	network, kind, parent := device["network"], device["nictype"], device["parent"]
	switch {
	case network != "" && (kind != "" && kind != "bridged" || parent != ""):
		return Errorf(ErrInvalid, "\"network\" already says how it is attached: leave out \"nictype\" and \"parent\"")
	case network == "" && kind == "":
		return Errorf(ErrInvalid, "name a \"network\", or give a \"nictype\" (bridged, macvlan, p2p)")
	case network == "" && (kind == "bridged" || kind == "macvlan") && parent == "":
		return Errorf(ErrInvalid, "\"parent\" is missing: name the interface of the host that nictype %s attaches to", kind)
	case kind == "p2p" && parent != "":
		return Errorf(ErrInvalid, "nictype p2p has no \"parent\": leave it out")
	case (kind == "macvlan" || kind == "p2p") && (device["ipv4.address"] != "" || device["ipv6.address"] != ""):
		return Errorf(ErrInvalid, "addresses are handed out by managed networks only: leave out ipv4.address and ipv6.address")
	case kind == "macvlan" && device["host_name"] != "":
		return Errorf(ErrInvalid, "nictype macvlan has no end on the host: leave out \"host_name\"")
	}
	return nil
}

func validateProxy(device map[string]string) error {
	for _, key := range []string{"listen", "connect"} {
		if device[key] == "" {
			return Errorf(ErrInvalid, "%q is missing: want tcp:ADDRESS:PORT or unix:PATH", key)
		}
	}
	listen, listenPorts, err := endpoint(device["listen"])
	if err != nil {
		return Errorf(ErrInvalid, "\"listen\": %w", err)
	}
	connect, connectPorts, err := endpoint(device["connect"])
	if err != nil {
		return Errorf(ErrInvalid, "\"connect\": %w", err)
	}
	if (listen == "udp") != (connect == "udp") {
		return Errorf(ErrInvalid, "udp can only be passed on to udp")
	}
	if connectPorts != 1 && connectPorts != listenPorts {
		return Errorf(ErrInvalid, "\"listen\" has %d ports and \"connect\" has %d: give as many, or one to connect to", listenPorts, connectPorts)
	}
	if on, _ := ParseBool(device["proxy_protocol"]); on && (listen != "tcp" || connect != "tcp") {
		return Errorf(ErrInvalid, "\"proxy_protocol\" is for tcp on both sides")
	}
	for _, key := range []string{"uid", "gid", "mode"} {
		if device[key] != "" && (listen != "unix" || strings.HasPrefix(device["listen"], "unix:@")) {
			return Errorf(ErrInvalid, "%q is for a socket in the file system (unix:/path) to listen on: leave it out", key)
		}
	}
	return nil
}

func anID(value string) error {
	if _, err := strconv.ParseUint(value, 10, 32); err != nil {
		return Errorf(ErrInvalid, "%q is not a numeric id", value)
	}
	return nil
}

func anEndpoint(value string) error {
	_, _, err := endpoint(value)
	return err
}

// endpoint reads the kind of an end of a proxy, and how many ports it has; node
// reads the ports themselves.
func endpoint(value string) (kind string, ports int, err error) {
	kind, address, _ := strings.Cut(value, ":")
	switch kind {
	case "unix":
		if !strings.HasPrefix(address, "/") && (!strings.HasPrefix(address, "@") || address == "@") {
			return "", 0, Errorf(ErrInvalid, "%q: want an absolute path, or @name for an abstract socket", value)
		}
		return kind, 1, nil
	case "tcp", "udp":
	default:
		return "", 0, Errorf(ErrInvalid, "%q: want tcp:ADDRESS:PORT, udp:ADDRESS:PORT or unix:PATH", value)
	}
	colon := strings.LastIndexByte(address, ':')
	if colon < 0 {
		return "", 0, Errorf(ErrInvalid, "%q: the port is missing", value)
	}
	host := address[:colon]
	if inner, bracketed := strings.CutPrefix(host, "["); bracketed {
		err = anIPv6(strings.TrimSuffix(inner, "]"))
	} else if err = anAddress(host); err == nil && strings.Contains(host, ":") {
		err = Errorf(ErrInvalid, "%q: write an IPv6 address in brackets, such as %s:[%s]:80", value, kind, host)
	}
	if err != nil {
		return "", 0, err
	}
	for part := range strings.SplitSeq(address[colon+1:], ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, errFrom := strconv.ParseUint(first, 10, 16)
		to, errTo := strconv.ParseUint(last, 10, 16)
		if errFrom != nil || errTo != nil || from == 0 || to < from {
			return "", 0, Errorf(ErrInvalid, "%q: %q is not a port or a range of ports", value, part)
		}
		ports += int(to-from) + 1
	}
	return kind, ports, nil
}
