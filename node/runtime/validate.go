package runtime

import (
	"maps"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"muster/state"
)

var (
	validID = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$`)
	// The kernel takes anything of 15 bytes without "/" and space (dev_valid_name);
	// liblxc and people are happier with less.
	validInterface = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,14}$`)
	validSignal    = regexp.MustCompile(`^SIG[A-Z0-9]+([+-][0-9]{1,2})?$`)
	validCPUs      = regexp.MustCompile(`^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$`)
	validSyscall   = regexp.MustCompile(`^[a-z0-9_]+$`)
)

// propagations are the words of mount(8).
var propagations = map[string]bool{
	"": true, "private": true, "shared": true, "slave": true, "unbindable": true,
	"rprivate": true, "rshared": true, "rslave": true, "runbindable": true,
}

// ValidateID says what is wrong with a container's ID.
func ValidateID(id string) error {
	if !validID.MatchString(id) {
		return state.Errorf(state.ErrInvalid, "container id %q: want 1 to 128 letters, digits, -, _ and ., not starting with a .", id)
	}
	return nil
}

// Validate says what in the spec can never work. It looks at nothing but the
// spec.
func (s Spec) Validate() error {
	if err := ValidateID(s.ID); err != nil {
		return err
	}
	if err := s.validateText(); err != nil {
		return err
	}
	if !path.IsAbs(s.Rootfs) {
		return state.Errorf(state.ErrInvalid, "root file system %q: want an absolute path", s.Rootfs)
	}
	if s.IDMap != nil {
		if err := s.IDMap.Validate(); err != nil {
			return err
		}
	}
	for _, signal := range []string{s.Signals.Halt, s.Signals.Reboot} {
		if signal != "" && !validSignal.MatchString(signal) {
			return state.Errorf(state.ErrInvalid, "%q is not the name of a signal", signal)
		}
	}
	if err := s.Limits.Validate(); err != nil {
		return err
	}
	if err := s.Seccomp.validate(); err != nil {
		return err
	}
	return s.validateDevices()
}

// validateText refuses what would break out of its line in a configuration.
func (s Spec) validateText() error {
	texts := map[string]string{"hostname": s.Hostname, "root file system": s.Rootfs, "architecture": s.Architecture}
	for key, value := range s.Environment {
		if key == "" || strings.ContainsAny(key, "= \n") {
			return state.Errorf(state.ErrInvalid, "environment.%s: not the name of a variable", key)
		}
		texts["environment."+key] = value
	}
	for key, value := range s.Sysctls {
		if strings.ContainsAny(key, "/= \n") || strings.Contains(key, "..") {
			return state.Errorf(state.ErrInvalid, "linux.sysctl.%s: not the name of a kernel setting", key)
		}
		texts["linux.sysctl."+key] = value
	}
	for name, text := range texts {
		if strings.ContainsAny(text, "\n\x00") {
			return state.Errorf(state.ErrInvalid, "%s: contains a line break", name)
		}
	}
	if s.Hostname == "" || len(s.Hostname) > 64 {
		return state.Errorf(state.ErrInvalid, "hostname %q: want 1 to 64 characters", s.Hostname)
	}
	for _, arg := range s.Init {
		if strings.ContainsRune(arg, 0) {
			return state.Errorf(state.ErrInvalid, "the command of init contains a NUL byte")
		}
	}
	return nil
}

func (s Spec) validateDevices() error {
	nics := map[string]bool{}
	for _, nic := range s.NICs {
		if err := nic.Validate(); err != nil {
			return err
		}
		if nics[nic.Name] {
			return state.Errorf(state.ErrInvalid, "two interfaces are called %s", nic.Name)
		}
		nics[nic.Name] = true
	}
	paths := map[string]bool{}
	for _, mount := range s.Mounts {
		if err := mount.Validate(); err != nil {
			return err
		}
		if paths[path.Clean(mount.Path)] {
			return state.Errorf(state.ErrInvalid, "two devices are at %s", mount.Path)
		}
		paths[path.Clean(mount.Path)] = true
	}
	for _, device := range s.Devices {
		if err := device.Validate(); err != nil {
			return err
		}
		if paths[path.Clean(device.Path)] {
			return state.Errorf(state.ErrInvalid, "two devices are at %s", device.Path)
		}
		paths[path.Clean(device.Path)] = true
	}
	proxies := map[string]bool{}
	for _, proxy := range s.Proxies {
		if err := proxy.Validate(); err != nil {
			return err
		}
		if proxies[proxy.Name] {
			return state.Errorf(state.ErrInvalid, "two proxies are called %s", proxy.Name)
		}
		proxies[proxy.Name] = true
	}
	return nil
}

// Validate says what is wrong with the limits.
func (l Limits) Validate() error {
	cpu := l.CPU
	switch {
	case cpu.Count < 0:
		return state.Errorf(state.ErrInvalid, "limits.cpu %d: want a number of processors", cpu.Count)
	case cpu.Set != "" && !validCPUs.MatchString(cpu.Set):
		return state.Errorf(state.ErrInvalid, "limits.cpu %q: want a list of processors such as 0-1,3", cpu.Set)
	case cpu.Quota < 0, cpu.Quota > 0 && cpu.Period < 1000, cpu.Period > 1_000_000:
		return state.Errorf(state.ErrInvalid, "limits.cpu.allowance: want a time in each period of 1 ms to 1 s")
	case cpu.Quota > 0 && cpu.Quota < 1000:
		return state.Errorf(state.ErrInvalid, "limits.cpu.allowance: the kernel does not count below 1 ms")
	case cpu.Share < 0, cpu.Share > 100:
		return state.Errorf(state.ErrInvalid, "limits.cpu.allowance %d%%: want 1%% to 100%%", cpu.Share)
	case cpu.Priority != nil && (*cpu.Priority < 0 || *cpu.Priority > 10):
		return state.Errorf(state.ErrInvalid, "limits.cpu.priority %d: want 0 to 10", *cpu.Priority)
	case l.Memory.Limit < 0:
		return state.Errorf(state.ErrInvalid, "limits.memory %d: want a number of bytes", l.Memory.Limit)
	case l.Memory.SwapPriority != nil && (*l.Memory.SwapPriority < 0 || *l.Memory.SwapPriority > 10):
		return state.Errorf(state.ErrInvalid, "limits.memory.swap.priority %d: want 0 to 10", *l.Memory.SwapPriority)
	case l.Processes < 0:
		return state.Errorf(state.ErrInvalid, "limits.processes %d: want a number of processes", l.Processes)
	}
	for name, value := range l.Kernel {
		soft, hard, both := strings.Cut(value, ":")
		if !validSyscall.MatchString(name) || !validRlimit(soft) || both && !validRlimit(hard) {
			return state.Errorf(state.ErrInvalid, "limits.kernel.%s %q: want a number, soft:hard, or unlimited", name, value)
		}
	}
	return nil
}

func validRlimit(value string) bool {
	return value == "unlimited" || value != "" && strings.Trim(value, "0123456789") == ""
}

func (s Seccomp) validate() error {
	for _, list := range [][]string{s.Deny, s.Allow} {
		for _, name := range list {
			if !validSyscall.MatchString(name) {
				return state.Errorf(state.ErrInvalid, "security.syscalls: %q is not the name of a system call", name)
			}
		}
	}
	return nil
}

// Validate says what is wrong with the interface.
func (n NIC) Validate() error {
	bad := func(name, value string) error {
		return state.Errorf(state.ErrInvalid, "interface %s: %s %q: want at most 15 letters, digits, -, _, . and :", n.Name, name, value)
	}
	if !validInterface.MatchString(n.Name) {
		return bad("name", n.Name)
	}
	if n.Parent != "" && !validInterface.MatchString(n.Parent) {
		return bad("parent", n.Parent)
	}
	switch n.Kind {
	case NICVeth:
		if !validInterface.MatchString(n.HostName) {
			return bad("host name", n.HostName)
		}
	case NICMacvlan, NICPhys:
		if n.Parent == "" {
			return state.Errorf(state.ErrInvalid, "interface %s: a %s interface needs a parent", n.Name, n.Kind)
		}
	default:
		return state.Errorf(state.ErrInvalid, "interface %s: unknown kind %q", n.Name, n.Kind)
	}
	if n.HWAddr != "" {
		if mac, err := net.ParseMAC(n.HWAddr); err != nil || len(mac) != 6 {
			return state.Errorf(state.ErrInvalid, "interface %s: hwaddr %q: want six pairs of digits such as 00:16:3e:01:02:03", n.Name, n.HWAddr)
		}
	}
	if n.MTU < 0 || n.MTU > 65535 {
		return state.Errorf(state.ErrInvalid, "interface %s: mtu %d: want 68 to 65535", n.Name, n.MTU)
	}
	for _, address := range slices.Concat(n.HostAddresses, n.Addresses) {
		if _, err := netip.ParsePrefix(address); err != nil {
			return state.Errorf(state.ErrInvalid, "interface %s: address %q: want an address with its prefix length", n.Name, address)
		}
	}
	for _, gateway := range n.Gateways {
		if _, err := netip.ParseAddr(gateway); err != nil {
			return state.Errorf(state.ErrInvalid, "interface %s: gateway %q: want an address", n.Name, gateway)
		}
	}
	return nil
}

// Validate says what is wrong with the mount.
func (m Mount) Validate() error {
	switch {
	case !path.IsAbs(m.Source):
		return state.Errorf(state.ErrInvalid, "disk source %q: want an absolute path", m.Source)
	case !path.IsAbs(m.Path) || path.Clean(m.Path) == "/":
		return state.Errorf(state.ErrInvalid, "disk path %q: want an absolute path below /", m.Path)
	case strings.ContainsAny(m.Source+m.Path, "\n\x00"):
		return state.Errorf(state.ErrInvalid, "disk %q: contains a line break", m.Path)
	case !propagations[m.Propagation]:
		return state.Errorf(state.ErrInvalid, "disk %s: propagation %q: want private, shared, slave, unbindable or one of them with an r before it",
			m.Path, m.Propagation)
	}
	return nil
}

// Validate says what is wrong with the device.
func (d Device) Validate() error {
	if !path.IsAbs(d.Path) || path.Clean(d.Path) == "/" || strings.ContainsAny(d.Path, "\n\x00") {
		return state.Errorf(state.ErrInvalid, "device path %q: want an absolute path below /", d.Path)
	}
	return nil
}

// Validate says what is wrong with the proxy.
func (p Proxy) Validate() error {
	if p.Name == "" || len(p.Name) > 100 {
		return state.Errorf(state.ErrInvalid, "proxy name %q: want 1 to 100 characters", p.Name)
	}
	if len(p.Listen) == 0 || len(p.Connect) != 1 && len(p.Connect) != len(p.Listen) {
		return state.Errorf(state.ErrInvalid, "proxy %s: want as many addresses to connect to as to listen on, or one", p.Name)
	}
	for _, list := range [][]Endpoint{p.Listen, p.Connect} {
		for _, endpoint := range list {
			if err := endpoint.Validate(); err != nil {
				return state.Errorf(state.ErrInvalid, "proxy %s: %w", p.Name, err)
			}
		}
	}
	return nil
}

// Validate says what is wrong with the endpoint. Addresses are numbers, since a
// name would be looked up on one side of the border and mean the other.
func (e Endpoint) Validate() error {
	switch e.Network {
	case "tcp":
		if at, err := netip.ParseAddrPort(e.Address); err != nil || at.Port() == 0 {
			return state.Errorf(state.ErrInvalid, "address %q: want an IP address and a port", e.Address)
		}
	case "unix":
		if !path.IsAbs(e.Address) && (len(e.Address) < 2 || e.Address[0] != '@') {
			return state.Errorf(state.ErrInvalid, "socket %q: want an absolute path, or @ and a name", e.Address)
		}
	case "udp":
		return state.Errorf(state.ErrInvalid, "udp: proxies pass tcp and unix connections only")
	default:
		return state.Errorf(state.ErrInvalid, "network %q: want tcp or unix", e.Network)
	}
	return nil
}

// Validate says what is wrong with the command, in a container with that map.
func (s ExecSpec) Validate(ids *IDMap) error {
	if len(s.Command) == 0 || s.Command[0] == "" {
		return state.Errorf(state.ErrInvalid, "the command is empty")
	}
	if s.Cwd != "" && !path.IsAbs(s.Cwd) {
		return state.Errorf(state.ErrInvalid, "working directory %q: want an absolute path", s.Cwd)
	}
	texts := append([]string{s.Cwd}, s.Command...)
	for name, value := range s.Env {
		if name == "" || strings.Contains(name, "=") {
			return state.Errorf(state.ErrInvalid, "%q is not the name of an environment variable", name)
		}
		texts = append(texts, name, value)
	}
	for _, text := range texts {
		if strings.ContainsRune(text, 0) {
			return state.Errorf(state.ErrInvalid, "%q contains a NUL byte", text)
		}
	}
	if ids != nil && (s.UID >= ids.Size || s.GID >= ids.Size) {
		return state.Errorf(state.ErrInvalid, "user %d, group %d: the container has ids up to %d", s.UID, s.GID, ids.Size-1)
	}
	if s.Width < 0 || s.Width > 65535 || s.Height < 0 || s.Height > 65535 {
		return state.Errorf(state.ErrInvalid, "a terminal of %d by %d characters is not possible", s.Width, s.Height)
	}
	return nil
}

// Environ returns the environment as the command gets it, with what is missing
// of the usual: sorted "NAME=value".
func (s ExecSpec) Environ() []string {
	home, user := "/", ""
	if s.UID == 0 {
		home, user = "/root", "root"
	}
	env := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME": home, "LANG": "C.UTF-8", "container": "lxc",
	}
	if user != "" {
		env["USER"] = user
	}
	maps.Copy(env, s.Env)
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}
