package runtime

// Spec is everything that the runtime must know to start a container.
type Spec struct {
	// ID is the container's name on the host: letters, digits, "-", "_" and ".",
	// at most 128 characters, no dot first. The run directory has this name.
	ID string
	// Hostname is what the container calls itself.
	Hostname string
	// Rootfs is the path of the mounted root file system. Its owners, as this
	// path shows them, lie in IDMap.
	Rootfs string
	// IDMap is nil for a privileged container.
	IDMap *IDMap
	// Nesting lets the container run containers: fresh proc and sys are kept
	// reachable, and nothing of the seccomp policy is in the way.
	Nesting bool
	// Architecture is a personality ("x86_64", "i686", …); empty is the host's.
	Architecture string
	// Init is the command of the first process; empty is /sbin/init.
	Init []string
	// Signals overrides the signals that ask init to act; the zero value means
	// what fits the init found in Rootfs.
	Signals Signals
	// Environment is that of init, and the base of nothing else: Exec gets its
	// own.
	Environment map[string]string
	Limits      Limits
	// Sysctls are kernel settings of the container's own namespaces, with dots.
	Sysctls map[string]string
	// NICs, Mounts, Devices and Proxies are given to the container in order.
	NICs    []NIC
	Mounts  []Mount
	Devices []Device
	Proxies []Proxy
	Seccomp Seccomp
	// NoLXCFS keeps /proc and /sys as the kernel shows them even if lxcfs runs.
	NoLXCFS bool
	// RawLXC is lines of liblxc configuration, applied last.
	RawLXC string
}

// Signals are names like "SIGPWR" or "SIGRTMIN+3".
type Signals struct {
	// Halt asks init to shut down, Reboot to start again.
	Halt, Reboot string
}

// NICKind says how an interface reaches the world.
type NICKind string

// The kinds of interface.
const (
	// NICVeth is a pair; Parent is the bridge of the host's end, or empty for a
	// bare pair (p2p, routed).
	NICVeth NICKind = "veth"
	// NICMacvlan is a child of Parent.
	NICMacvlan NICKind = "macvlan"
	// NICPhys is the host's interface Parent itself.
	NICPhys NICKind = "phys"
)

// NIC is a network interface of a container.
type NIC struct {
	// Name is the name inside: "eth0".
	Name   string
	Kind   NICKind
	Parent string
	// HostName names the host's end of a veth; at most 15 characters, unique on
	// the machine. It is how Cleanup finds a leftover, so it must be set.
	HostName string
	// HWAddr is the address inside, "00:16:3e:…"; empty leaves it to the kernel.
	HWAddr string
	// MTU zero is the parent's.
	MTU int
	// HostAddresses are given to the host's end, and Addresses (CIDR) and
	// Gateways to the container's, for routed interfaces.
	HostAddresses, Addresses, Gateways []string
}

// Mount is a path of the host shown in the container.
type Mount struct {
	// Source is a directory, file, socket or device of the host.
	Source string
	// Path is absolute, inside the container. It is made if missing.
	Path     string
	ReadOnly bool
	// Recursive takes the mounts below Source along.
	Recursive bool
	// Optional leaves the mount out when Source does not exist.
	Optional bool
	// Propagation is "private" (when empty), "shared", "slave", "unbindable" or
	// one of them with an "r" before it.
	Propagation string
	// Shift shows the owners of Source as the container's own (an idmapped
	// mount): root is root.
	Shift bool
}

// Device is a device node in a container.
type Device struct {
	// Path is absolute, inside the container: "/dev/net/tun".
	Path string
	// Block tells block devices from character devices.
	Block        bool
	Major, Minor uint32
	// Mode holds permission bits; zero is 0660. UID and GID are the container's.
	Mode     uint32
	UID, GID uint32
}

// Seccomp says which system calls are refused. The zero value is the default
// policy: what could harm the host and no container needs.
type Seccomp struct {
	// NoDefault leaves the default list out.
	NoDefault bool
	// DenyCompat refuses the system calls that only programs of the processor's
	// 32-bit architecture make.
	DenyCompat bool
	// Deny adds system calls by name, each answered with EPERM.
	Deny []string
	// Allow, if not empty, refuses everything else; the lists above are not
	// used then.
	Allow []string
	// Raw is a policy in liblxc's format, used instead of all others.
	Raw string
}
