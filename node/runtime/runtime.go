// Package runtime runs containers on one machine: it starts them from a Spec,
// stops, freezes and watches them, runs commands in them, reaches their files,
// changes their limits and devices while they run, and finds them again after
// the daemon was restarted or killed.
//
// It never decides anything: it knows no state plane, project or profile,
// prepares no storage (the root file system of a Spec is mounted already) and
// makes no bridge. What it is asked for it does, or says why it can't.
package runtime

import (
	"context"
	"io"
	"time"

	"muster/state"
)

// Runtime is the contract of every implementation; runtimetest holds it to it.
// All methods may be called at the same time from many goroutines; calls that
// change one container wait for each other.
//
// Errors have the kinds of package state: ErrNotFound when the container does
// not run (or, for ConsoleLog, Remove and Rename, has no run directory),
// ErrConflict when it is in the wrong state, ErrInvalid when a Spec can never
// work, ErrUnavailable when the machine has no room now.
type Runtime interface {
	// Driver names the implementation and its version, as clients are shown.
	Driver() Driver

	// CPUs returns the numbers of the processors that containers may use, sorted.
	CPUs() ([]int, error)
	// Check says whether Start would accept the spec, without touching
	// anything; raw.lxc lines are tried by liblxc itself, and the error names
	// the bad line.
	Check(ctx context.Context, spec Spec) error
	// Try starts a container as Start would, up to the moment when its init would be
	// executed, and takes everything away again: ErrInvalid with the last words of liblxc
	// when it does not come so far. Mounts, devices and proxies of the spec are left
	// out, interfaces hang on nothing, and hooks of raw.lxc are not run. The container
	// itself may run meanwhile.
	Try(ctx context.Context, spec Spec) error
	// Start starts a container and returns once its init runs. What a dead
	// container of the same ID left behind is removed first. On failure nothing
	// is left but the run directory with its logs, and the error carries the
	// last words of liblxc. ErrConflict when it runs already.
	Start(ctx context.Context, spec Spec) (Info, error)
	// Stop ends a container and returns once everything it held on the host is
	// released. A frozen container is thawed first.
	Stop(ctx context.Context, id string, how Stop) error
	// Restart stops a running container and starts it again from the Spec it
	// has now, in place: its monitor stays.
	Restart(ctx context.Context, id string, how Stop) (Info, error)
	// Freeze stops every process of the container until Unfreeze. Both do
	// nothing to a container that is already so.
	Freeze(ctx context.Context, id string) error
	// Unfreeze lets a frozen container go on.
	Unfreeze(ctx context.Context, id string) error

	// Info tells how a container is; ErrNotFound when it does not run.
	Info(ctx context.Context, id string) (Info, error)
	// List returns the containers that really run, ordered by ID, whoever
	// started them: found from the run directories and the living processes.
	// What it returns is watched from then on (see Run).
	List(ctx context.Context) ([]Info, error)
	// Spec returns what a running container was given: what it was started with, with
	// what was changed since.
	Spec(ctx context.Context, id string) (Spec, error)
	// Usage returns what the container uses now.
	Usage(ctx context.Context, id string) (Usage, error)
	// Interfaces returns the network interfaces inside the container, with
	// their addresses and counters.
	Interfaces(ctx context.Context, id string) ([]Interface, error)
	// Run watches the containers that Start or List returned and calls handle
	// for each that ends or reboots, one call at a time, in order; events wait
	// while handle runs. It returns when ctx ends.
	Run(ctx context.Context, handle func(Event)) error

	// Exec runs a command in the container. The context bounds the start of the
	// command only, not its life. A command that can't be executed is no error
	// here: its process ends with exit code 127 (not found) or 126.
	Exec(ctx context.Context, id string, spec ExecSpec) (Process, error)
	// Console attaches to the container's console. One attachment at a time:
	// ErrConflict while another holds it.
	Console(ctx context.Context, id string) (Terminal, error)
	// ConsoleLog returns the newest output of the console, of a running or a
	// stopped container.
	ConsoleLog(ctx context.Context, id string) ([]byte, error)
	// ClearConsoleLog empties the console log.
	ClearConsoleLog(ctx context.Context, id string) error
	// Files serves SFTP (version 3) on the returned connection over the files
	// as the container's own root sees them: paths, symbolic links, owners.
	// Only regular files, directories and links can be opened.
	Files(ctx context.Context, id string) (io.ReadWriteCloser, error)
	// RootFiles is Files for a container that does not run: root is its mounted
	// root file system and ids the map its owners are shown through.
	RootFiles(ctx context.Context, root string, ids *IDMap) (io.ReadWriteCloser, error)

	// SetLimits changes the limits of a running container; those not set are
	// lifted. They hold across a reboot of the container.
	SetLimits(ctx context.Context, id string, limits Limits) error
	// AddNIC gives a running container a network interface, as if it had been
	// in the Spec: it comes back when the container reboots.
	AddNIC(ctx context.Context, id string, nic NIC) error
	// RemoveNIC takes the interface away, by its name inside the container. A
	// physical one returns to the host under its own name.
	RemoveNIC(ctx context.Context, id, name string) error
	// AddMount mounts a path of the host in a running container.
	AddMount(ctx context.Context, id string, mount Mount) error
	// RemoveMount unmounts it, by its path inside the container.
	RemoveMount(ctx context.Context, id, path string) error
	// AddDevice gives a running container a device node and the right to it.
	AddDevice(ctx context.Context, id string, device Device) error
	// RemoveDevice takes both away, by its path inside the container.
	RemoveDevice(ctx context.Context, id, path string) error
	// AddProxy starts a helper process that passes connections between the host
	// and the container. It ends with the container, follows its reboots and
	// outlives the daemon. ErrExists when one of that name runs.
	AddProxy(ctx context.Context, id string, proxy Proxy) error
	// RemoveProxy ends the helper.
	RemoveProxy(ctx context.Context, id, name string) error
	// Proxies returns the helpers that really run, ordered by name.
	Proxies(ctx context.Context, id string) ([]Proxy, error)

	// Cleanup removes what a container that no longer runs left on the host:
	// processes, cgroups, host ends of veths, helpers. Logs stay. Nothing left
	// is no error; ErrConflict when the container runs.
	Cleanup(ctx context.Context, id string) error
	// Remove is Cleanup and removes the run directory with its logs.
	Remove(ctx context.Context, id string) error
	// Rename moves the run directory of a container that does not run. No run
	// directory is no error.
	Rename(ctx context.Context, id, newID string) error
	// LogFile returns the path of a log of the container: "lxc.log" or
	// "console.log".
	LogFile(id, name string) string

	// Close releases what the runtime holds. Containers go on.
	Close() error
}

// PushPrefix begins the names of files that a client of Files or RootFiles writes beside
// those that they are to replace. One that still has such a name when its connection ends
// is removed.
const PushPrefix = ".muster-push-"

// Driver is an implementation of Runtime.
type Driver struct {
	// Name is "lxc" or "sim".
	Name string
	// Version is that of liblxc.
	Version string
}

// Info is how a running container is.
type Info struct {
	ID string
	// Status is state.StatusRunning or state.StatusFrozen.
	Status state.Status
	// InitPID is the host's number of the container's first process.
	InitPID int
	// MonitorPID is the process that stays with the container, or zero when it
	// was killed.
	MonitorPID int
	// Boots counts the starts of init under this monitor: 1 until it reboots.
	Boots int
	// StartedAt is when init was started.
	StartedAt time.Time
}

// Stop says how to end a container.
type Stop struct {
	// Force kills it at once. Otherwise init is asked to shut down.
	Force bool
	// Timeout is how long init may take; zero: until the context ends. Stop
	// then fails with ErrUnavailable, and the container is still there.
	Timeout time.Duration
}

// EventKind says what happened to a container.
type EventKind string

// The kinds of event.
const (
	// EventExited means that the container has ended and that the host is clean
	// of it.
	EventExited EventKind = "exited"
	// EventRebooted means that its init was started again by its monitor, from
	// within or by Restart. Host settings of its interfaces were lost.
	EventRebooted EventKind = "rebooted"
)

// ExitReason says why a container ended.
type ExitReason string

// The reasons.
const (
	// ExitShutdown is a shutdown from inside, or a clean Stop.
	ExitShutdown ExitReason = "shutdown"
	// ExitStopped is a forced Stop.
	ExitStopped ExitReason = "stopped"
	// ExitCrash is an init that failed or was killed by somebody else.
	ExitCrash ExitReason = "crash"
)

// Event is something that happened to a container by itself or by a call.
type Event struct {
	ID   string
	Kind EventKind
	// Reason is set for EventExited.
	Reason ExitReason
	// Info is set for EventRebooted.
	Info Info
}

// Usage is what a container uses. Values that the kernel does not account here
// are -1.
type Usage struct {
	InitPID int
	// Memory figures are in bytes. Memory does not count cache that can be
	// dropped at once.
	Memory     int64
	MemoryPeak int64
	// MemoryLimit is what the container may use at most; the machine's memory
	// when it is not limited.
	MemoryLimit int64
	Swap        int64
	SwapPeak    int64
	// CPU is in nanoseconds since the container started.
	CPU int64
	// Processes counts threads too, as limits.processes does.
	Processes int64
}

// Interface is a network interface as the container sees it.
type Interface struct {
	Name   string
	HWAddr string
	// HostName is the name of the host's end of a veth, if there is one.
	HostName string
	MTU      int
	// Up and Type are as in LXD: Type is "loopback", "broadcast" or
	// "point-to-point".
	Up        bool
	Type      string
	Addresses []Address
	Counters  Counters
}

// Address is an address of an interface.
type Address struct {
	// Family is "inet" or "inet6".
	Family  string
	Address string
	// Netmask is the prefix length.
	Netmask int
	// Scope is "global", "link" or "local".
	Scope string
}

// Counters are those of an interface, as the container sees them.
type Counters struct {
	BytesReceived, BytesSent                      int64
	PacketsReceived, PacketsSent                  int64
	ErrorsReceived, ErrorsSent                    int64
	PacketsDroppedInbound, PacketsDroppedOutbound int64
}
