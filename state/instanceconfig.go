package state

import (
	"strconv"
	"strings"
)

// instanceKeys are the configuration keys of instances and profiles.
var instanceKeys = table{
	what: "config key",
	keys: []Key{
		{Name: "boot.autostart", Help: "start the instance when the daemon starts; unset: if it ran when the daemon stopped", check: aBool},
		{Name: "boot.autostart.delay", Help: "seconds to wait after its start before the next instance", Default: "0", check: aNumber(0, 86400)},
		{Name: "boot.autostart.priority", Help: "the highest starts first", Default: "0", check: aNumber(-1<<31, 1<<31-1)},
		{Name: "boot.host_shutdown_timeout", Help: "seconds the instance may take to stop when the machine shuts down", Default: "30", check: aNumber(0, 86400)},
		{Name: "boot.stop.priority", Help: "the highest stops first", Default: "0", check: aNumber(-1<<31, 1<<31-1)},
		{Name: "cloud-init.network-config", Help: "passed through to the guest", lines: true},
		{Name: "cloud-init.user-data", Help: "passed through to the guest", lines: true},
		{Name: "cloud-init.vendor-data", Help: "passed through to the guest", lines: true},
		{Name: "cluster.evacuate", Help: "what evacuation does with the instance", Default: "auto", check: oneOf("auto", "migrate", "stop")},
		{Name: "environment.", Help: "environment variables of init and of exec", Live: true},
		{Name: "image.", Help: "properties of the image it was made from", lines: true},
		{Name: "limits.cpu", Help: "processors: a number, or a set such as 0-1,3", Live: true, check: func(v string) error { _, _, err := ParseCPULimit(v); return err }},
		{Name: "limits.cpu.allowance", Help: "share under load (50%) or time of each period (25ms/100ms)", Live: true, check: func(v string) error { _, err := ParseCPUAllowance(v); return err }},
		{Name: "limits.cpu.priority", Help: "the larger of two equal shares wins", Default: "10", Live: true, check: aNumber(0, 10)},
		{Name: "limits.kernel.", Help: "resource limits (setrlimit) of init: soft:hard, one number, or unlimited", check: aRlimit},
		{Name: "limits.memory", Help: "memory: a size, or a share of the member's (50%)", Live: true, check: aMemory},
		{Name: "limits.memory.enforce", Help: "soft lets the instance use more while there is room", Default: "hard", Live: true, check: oneOf("hard", "soft")},
		{Name: "limits.memory.swap", Help: "whether it may be swapped out", Default: "true", Live: true, check: aBool},
		{Name: "limits.memory.swap.priority", Help: "the higher, the less likely to be swapped", Default: "10", Live: true, check: aNumber(0, 10)},
		{Name: "limits.processes", Help: "processes and threads", Live: true, check: aNumber(1, 1<<22)},
		{Name: "linux.sysctl.", Help: "kernel settings of the instance's own namespaces"},
		{Name: "raw.lxc", Help: "lines of liblxc configuration, applied last", lines: true},
		{Name: "scheduler.affinity", Help: "labels, separated by commas: rather with instances that have one of them", Live: true, check: listOf(aLabel)},
		{Name: "scheduler.anti_affinity", Help: "labels, separated by commas: rather away from instances that have one of them", Live: true, check: listOf(aLabel)},
		{Name: "scheduler.labels", Help: "labels of the instance, separated by commas", Live: true, check: listOf(aLabel)},
		{Name: "security.devlxd", Help: "the guest API; not built yet, so only false is taken", Default: "false", check: onlyFalse("the guest API /dev/lxd is not built yet")},
		{Name: "security.idmap.isolated", Help: "every instance has the member's range of ids, so only false is taken", Default: "false", check: onlyFalse("instances of a member share one range of ids")},
		{Name: "security.idmap.size", Help: "every instance has the member's range of ids, which holds at least 65536", Default: "65536", check: oneOf("65536")},
		{Name: "security.nesting", Help: "let the instance run containers", Default: "false", check: aBool},
		{Name: "security.privileged", Help: "the instance's root is the machine's root", Default: "false", check: aBool},
		{Name: "security.protection.delete", Help: "refuse to delete the instance", Default: "false", Live: true, check: aBool},
		{Name: "security.protection.shift", Help: "never rewrite the owners of its files; muster never does", Default: "true", check: aBool},
		{Name: "security.syscalls.allow", Help: "system calls to allow, one a line; all others are refused", lines: true},
		{Name: "security.syscalls.deny", Help: "system calls to refuse besides the default list, one a line", lines: true},
		{Name: "security.syscalls.deny_compat", Help: "refuse system calls of 32 bit programs", Default: "false", check: aBool},
		{Name: "security.syscalls.deny_default", Help: "refuse what could harm the host", Default: "true", check: aBool},
		{Name: "snapshots.expiry", Help: "how long new snapshots are kept, such as 2w 3d", Live: true, check: aDuration},
		{Name: "snapshots.pattern", Help: "name of new snapshots; %d is a counter", Default: "snap%d", Live: true, check: aPattern},
		{Name: "user.", Help: "anything you like", Live: true, lines: true},
		{Name: "volatile.", Help: "kept by the server", Live: true, lines: true},
	},
	missing: []string{
		"agent.", "boot.debug_edk2", "limits.disk.priority", "limits.hugepages.", "limits.network.priority",
		"linux.kernel_modules", "migration.", "nvidia.", "raw.apparmor", "raw.idmap", "raw.qemu", "raw.qemu.conf", "raw.seccomp",
		"security.agent.metrics", "security.csm", "security.devlxd.images", "security.idmap.base",
		"security.secureboot", "security.sev", "security.syscalls.intercept.", "security.syscalls.blacklist",
		"security.syscalls.blacklist_compat", "security.syscalls.blacklist_default", "security.syscalls.whitelist",
		"snapshots.schedule", "snapshots.schedule.stopped", "ubuntu_pro.",
	},
}

// InstanceKeys lists the configuration keys of instances and profiles.
func InstanceKeys() []Key { return instanceKeys.keys }

// LiveUpdatable reports whether a change of the key takes effect while the
// instance runs.
func LiveUpdatable(key string) bool {
	found, ok := instanceKeys.find(key)
	return ok && found.Live
}

// ValidateInstanceConfig checks the configuration of an instance, or of a profile
// when profile is true: a profile has no keys that belong to one instance. The
// error names the key and the nearest valid one.
func ValidateInstanceConfig(config Config, profile bool) error {
	if err := instanceKeys.validateAll(config); err != nil {
		return err
	}
	for _, key := range sortedNames(config) {
		switch {
		case profile && (strings.HasPrefix(key, "volatile.") || strings.HasPrefix(key, "image.")):
			return Errorf(ErrInvalid, "config key %q belongs to one instance: a profile can't have it", key)
		case strings.HasPrefix(key, "limits.kernel."):
			if !kernelLimits[strings.TrimPrefix(key, "limits.kernel.")] {
				return unknown("config key", key, kernelLimitNames())
			}
		case strings.HasPrefix(key, "environment."):
			if strings.ContainsAny(key, "= \t") {
				return Errorf(ErrInvalid, "config key %q: the name of an environment variable has no blank and no \"=\"", key)
			}
		case strings.HasPrefix(key, "linux.sysctl."):
			if strings.ContainsAny(key, "/= \t") || strings.Contains(key, "..") {
				return Errorf(ErrInvalid, "config key %q: want the name of a kernel setting, such as linux.sysctl.net.ipv4.ip_forward", key)
			}
		}
	}
	if config["security.syscalls.allow"] != "" && (config["security.syscalls.deny"] != "" || config["security.syscalls.deny_compat"] != "") {
		return Errorf(ErrInvalid, "config key \"security.syscalls.allow\" refuses everything else already: unset security.syscalls.deny*")
	}
	return nil
}

// kernelLimits are the resources of setrlimit(2) that liblxc sets.
var kernelLimits = map[string]bool{
	"as": true, "core": true, "cpu": true, "data": true, "fsize": true, "locks": true, "memlock": true, "msgqueue": true,
	"nice": true, "nofile": true, "nproc": true, "rss": true, "rtprio": true, "rttime": true, "sigpending": true, "stack": true,
}

func kernelLimitNames() []string {
	var names []string
	for name := range kernelLimits {
		names = append(names, "limits.kernel."+name)
	}
	return names
}

func aRlimit(value string) error {
	for part := range strings.SplitSeq(value, ":") {
		if _, err := strconv.ParseUint(part, 10, 64); err != nil && part != "unlimited" {
			return Errorf(ErrInvalid, "%q: want soft:hard, one number for both, or unlimited", value)
		}
	}
	if strings.Count(value, ":") > 1 {
		return Errorf(ErrInvalid, "%q: want soft:hard", value)
	}
	return nil
}

func aMemory(value string) error {
	if percent, ok := strings.CutSuffix(value, "%"); ok {
		return aNumber(1, 100)(percent)
	}
	if size, err := ParseSize(value); err != nil || size > 0 {
		return err
	}
	return Errorf(ErrInvalid, "%q leaves the instance no memory: give a size, or leave it out for no limit", value)
}

func aPattern(value string) error {
	if strings.Contains(value, "{{") {
		return Errorf(ErrInvalid, "%q: templates are not supported; use a name with %%d for a counter", value)
	}
	if strings.Count(value, "%") != strings.Count(value, "%d") || strings.Count(value, "%d") > 1 {
		return Errorf(ErrInvalid, "%q: want a name with at most one %%d", value)
	}
	return ValidateSnapshotName(strings.ReplaceAll(value, "%d", "0"))
}
