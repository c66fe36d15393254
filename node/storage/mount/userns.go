package mount

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Mapping says that Size ids, from Disk on in the file system, appear from
// Shown on through the mount.
type Mapping struct {
	Disk, Shown, Size uint32
}

// Namespaces makes and remembers the user namespaces that describe how a mount
// maps ids. The zero value is ready; Close lets go of them.
type Namespaces struct {
	mu   sync.Mutex
	held map[string]*os.File
}

// A member has few maps unless its containers are isolated from each other.
// Making one anew costs less than a millisecond.
const maxHeld = 64

// For returns the user namespace for a map. The caller closes the file.
func (n *Namespaces) For(uids, gids []Mapping) (*os.File, error) {
	key := fmt.Sprint(uids, gids)
	n.mu.Lock()
	defer n.mu.Unlock()
	ns, ok := n.held[key]
	if !ok {
		var err error
		if ns, err = newUserNamespace(uids, gids); err != nil {
			return nil, err
		}
		if len(n.held) >= maxHeld {
			n.drop()
		}
		if n.held == nil {
			n.held = map[string]*os.File{}
		}
		n.held[key] = ns
	}
	fd, err := unix.FcntlInt(ns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate a user namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), ns.Name()), nil
}

// Close releases all namespaces. n can be used again.
func (n *Namespaces) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop()
}

func (n *Namespaces) drop() {
	for _, ns := range n.held {
		ns.Close()
	}
	n.held = nil
}

// newUserNamespace makes a user namespace with the given map. A namespace needs
// a process to be born with; ours is a traced copy of this program, which the
// kernel stops before its first instruction, so it runs no code at all.
func newUserNamespace(uids, gids []Mapping) (*os.File, error) {
	// The tracer is a thread: it must not end before the child does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess("/proc/self/exe", []string{"muster-userns"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: sysMappings(uids),
		GidMappings: sysMappings(gids),
		Ptrace:      true,
		Pdeathsig:   syscall.SIGKILL,
	}})
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", p.Pid))
	// The child is a zombie at worst, and Wait says so; neither error matters.
	_ = p.Kill()
	_, _ = p.Wait()
	if err != nil {
		return nil, fmt.Errorf("open a user namespace: %w", err)
	}
	return ns, nil
}

func sysMappings(mappings []Mapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, len(mappings))
	for i, m := range mappings {
		out[i] = syscall.SysProcIDMap{ContainerID: int(m.Disk), HostID: int(m.Shown), Size: int(m.Size)}
	}
	return out
}
