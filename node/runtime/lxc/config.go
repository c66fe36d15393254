package lxc

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"muster/node/runtime"
	"muster/node/runtime/lxc/cgroup"
	"muster/node/runtime/lxc/wire"
)

// consoleLogSize bounds the console log; when it is full, liblxc moves it to
// console.log.1 and begins anew, so at least half of it is always there.
const consoleLogSize = 128 << 10

// droppedCapabilities are taken from privileged containers, since with them root
// reaches the host itself (the list of Debian's lxc, common.conf).
const droppedCapabilities = "mac_admin mac_override sys_time sys_module sys_rawio"

// config builds a container's configuration for liblxc
// (lxc.container.conf(5)), line by line.
type config struct{ strings.Builder }

func (c *config) set(key, value string) { fmt.Fprintf(c, "%s = %s\n", key, value) }

func (c *config) setf(key, format string, args ...any) { c.set(key, fmt.Sprintf(format, args...)) }

// liblxcConfig is what liblxc reads to start a container with this spec.
func (r *Runtime) liblxcConfig(spec runtime.Spec, settings []cgroup.Setting) string {
	c := &config{}
	run := r.run(spec.ID)
	c.set("lxc.log.file", filepath.Join(run, wire.Log))
	// Warnings come with every command that is run, and the log is not bounded.
	c.set("lxc.log.level", "ERROR")
	c.set("lxc.console.logfile", filepath.Join(run, wire.ConsoleLog))
	c.setf("lxc.console.size", "%d", consoleLogSize)
	c.set("lxc.console.rotate", "1")
	c.set("lxc.tty.max", "0")
	c.set("lxc.pty.max", "1024")
	c.set("lxc.autodev", "1")
	c.set("lxc.uts.name", spec.Hostname)
	if spec.Architecture != "" {
		c.set("lxc.arch", spec.Architecture)
	}
	// The monitor starts a rebooted container itself, with the configuration as
	// it is then. liblxc, left alone, would start it with the one it has in
	// memory; a hook that fails keeps it from that.
	c.set("lxc.hook.version", "1")
	c.set("lxc.hook.post-stop", `/usr/bin/test "$LXC_TARGET" != reboot`)

	c.set("lxc.rootfs.path", "dir:"+spec.Rootfs)
	r.confinement(c, spec)
	r.mounts(c, spec)
	r.groupConfig(c, spec, settings)
	for _, key := range sortedKeys(spec.Environment) {
		c.setf("lxc.environment", "%s=%s", key, spec.Environment[key])
	}
	for _, key := range sortedKeys(spec.Sysctls) {
		c.set("lxc.sysctl."+key, spec.Sysctls[key])
	}
	for _, key := range sortedKeys(spec.Limits.Kernel) {
		c.set("lxc.prlimit."+key, spec.Limits.Kernel[key])
	}
	if len(spec.NICs) == 0 {
		// A network of its own all the same, with the loopback interface up.
		c.set("lxc.net.0.type", "empty")
		c.set("lxc.net.0.flags", "up")
	}
	for i, nic := range spec.NICs {
		nicConfig(c, i, nic)
	}
	c.WriteString(spec.RawLXC)
	c.WriteString("\n")
	return c.String()
}

// confinement is what keeps the container from the host.
func (r *Runtime) confinement(c *config, spec runtime.Spec) {
	if m := spec.IDMap; m != nil {
		c.setf("lxc.idmap", "u 0 %d %d", m.Host, m.Size)
		c.setf("lxc.idmap", "g 0 %d %d", m.Host, m.Size)
	} else {
		c.set("lxc.cap.drop", droppedCapabilities)
	}
	if seccompPolicy(spec) != "" {
		c.set("lxc.seccomp.profile", filepath.Join(r.run(spec.ID), wire.Seccomp))
	}
	if r.apparmor {
		c.set("lxc.apparmor.profile", "generated")
		if spec.Nesting {
			c.set("lxc.apparmor.allow_nesting", "1")
		}
	}
}

func (r *Runtime) groupConfig(c *config, spec runtime.Spec, settings []cgroup.Setting) {
	base := r.prefix + "/" + spec.ID
	c.set("lxc.cgroup.dir.monitor", base+"/monitor")
	c.set("lxc.cgroup.dir.monitor.pivot", base+"/pivot")
	c.set("lxc.cgroup.dir.container", base+"/payload")
	if spec.IDMap == nil {
		// Root of a privileged container may write to the group it sees, so it
		// sees one below that with the limits.
		c.set("lxc.cgroup.dir.container.inner", "inner")
	}
	key := "lxc.cgroup."
	if r.groups.Layout() == "unified" {
		key = "lxc.cgroup2."
	}
	c.set(key+"devices.deny", "a")
	for _, rule := range deviceRules(spec) {
		c.set(key+"devices.allow", rule)
	}
	for _, s := range settings {
		c.set(s.Key(), s.Value)
	}
}

// mounts are those of every container, then those of the spec.
func (r *Runtime) mounts(c *config, spec runtime.Spec) {
	if spec.IDMap != nil {
		c.set("lxc.mount.auto", "proc:rw sys:rw cgroup:mixed")
	} else {
		c.set("lxc.mount.auto", "proc:mixed sys:mixed cgroup:mixed")
	}
	entry := func(source, target, kind, options string) {
		c.setf("lxc.mount.entry", "%s %s %s %s 0 0", escape(source), escape(strings.TrimLeft(target, "/")), kind, options)
	}
	entry("mqueue", "dev/mqueue", "mqueue", "rw,relatime,create=dir,optional")
	for _, node := range []string{"/dev/fuse", "/dev/net/tun"} {
		entry(node, node, "none", "bind,create=file,optional")
	}
	entry("/sys/fs/fuse/connections", "/sys/fs/fuse/connections", "none", "bind,optional")
	if spec.IDMap != nil {
		// systemd would mount these and may not in a user namespace; what is a mount already
		// it leaves alone. To the host's files there, root in the container is a stranger.
		for _, dir := range []string{
			"/proc/sys/fs/binfmt_misc", "/sys/fs/pstore", "/sys/kernel/config", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing",
		} {
			entry(dir, dir, "none", "bind,optional")
		}
	}
	if spec.Nesting {
		// The kernel lets a nested user namespace mount proc and sys only while a
		// whole one is in sight.
		entry("proc", "dev/.lxc/proc", "proc", "create=dir,optional")
		entry("sys", "dev/.lxc/sys", "sysfs", "create=dir,optional")
	}
	if !spec.NoLXCFS {
		for _, file := range lxcfsFiles() {
			entry(filepath.Join(lxcfsDir, file), file, "none", "bind,optional")
		}
	}
	for _, mount := range spec.Mounts {
		entry(mount.Source, mount.Path, "none", mountOptions(mount))
	}
	for _, device := range spec.Devices {
		entry(r.nodePath(spec.ID, device), device.Path, "none", "bind,create=file")
	}
}

func mountOptions(m runtime.Mount) string {
	options := []string{"bind"}
	if m.Recursive {
		options[0] = "rbind"
	}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	kind := "dir"
	if info, err := os.Stat(m.Source); err == nil && !info.IsDir() {
		kind = "file"
	}
	options = append(options, "create="+kind)
	if m.Optional {
		options = append(options, "optional")
	}
	if m.Propagation != "" {
		options = append(options, m.Propagation)
	}
	if m.Shift {
		options = append(options, "idmap=container")
	}
	return strings.Join(options, ",")
}

// escape writes a path as fstab(5) does.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "#", `\043`).Replace(path)
}

func nicConfig(c *config, i int, nic runtime.NIC) {
	key := func(name string) string { return "lxc.net." + strconv.Itoa(i) + "." + name }
	c.set(key("type"), string(nic.Kind))
	c.set(key("flags"), "up")
	c.set(key("name"), nic.Name)
	switch nic.Kind {
	case runtime.NICVeth:
		c.set(key("veth.pair"), nic.HostName)
		c.set(key("veth.mode"), "bridge")
	case runtime.NICMacvlan:
		c.set(key("macvlan.mode"), "bridge")
	case runtime.NICPhys:
	}
	if nic.Parent != "" {
		c.set(key("link"), nic.Parent)
	}
	if nic.HWAddr != "" {
		c.set(key("hwaddr"), nic.HWAddr)
	}
	if nic.MTU != 0 {
		c.set(key("mtu"), strconv.Itoa(nic.MTU))
	}
	for _, address := range nic.Addresses {
		c.set(key(family(address)+".address"), address)
	}
	for _, gateway := range nic.Gateways {
		c.set(key(family(gateway)+".gateway"), gateway)
	}
}

func family(address string) string {
	if strings.Contains(address, ":") {
		return "ipv6"
	}
	return "ipv4"
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
