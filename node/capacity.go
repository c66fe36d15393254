package node

import (
	"runtime"

	"golang.org/x/sys/unix"

	"muster/state"
)

// diskGrain is what disk sizes are rounded to, so that a file system that changes its
// own bookkeeping is no news.
const diskGrain = 1 << 30

// Capacity is what this machine has to give: its processors, its memory and the size of
// the file system that holds the daemon's directory. What can't be found out is zero.
func (n *Node) Capacity() state.Resources {
	capacity := state.Resources{CPU: int64(runtime.NumCPU()) * 1000}
	if memory, err := totalMemory(); err == nil {
		capacity.Memory = memory
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(n.cfg.Dir, &fs); err == nil {
		capacity.Disk = int64(fs.Blocks) * fs.Bsize / diskGrain * diskGrain //nolint:gosec // no file system is that large
	}
	return capacity
}

// Load is what this machine has left right now: processors by the load of the last
// minute, memory that is available without swapping, and free space of the file system
// that holds the daemon's directory. What can't be found out is zero.
func (n *Node) Load() state.Resources {
	capacity := n.Capacity()
	var left state.Resources
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		// sysinfo(2): loads are fixed point with 16 bits after it.
		left.CPU = max(0, capacity.CPU-int64(info.Loads[0])*1000>>16)
		left.Memory = int64(info.Freeram+info.Bufferram) * int64(info.Unit)
	}
	if available, err := availableMemory(); err == nil {
		left.Memory = available
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(n.cfg.Dir, &fs); err == nil {
		left.Disk = int64(fs.Bavail) * fs.Bsize //nolint:gosec // no file system is that large
	}
	return left
}
