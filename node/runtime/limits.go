package runtime

// Limits bound what a container may use. The zero value bounds nothing.
type Limits struct {
	CPU    CPULimits
	Memory MemoryLimits
	// Processes bounds processes and threads; zero does not.
	Processes int64
	// Kernel are resource limits (setrlimit) of init by short name, "nofile":
	// "soft:hard" or one value for both, "unlimited" allowed.
	Kernel map[string]string
}

// CPULimits bound processor time.
type CPULimits struct {
	// Count is how many processors the container sees; which ones is chosen so
	// that containers spread. Zero: all.
	Count int
	// Set is a list of processors, "0-1,3", instead of Count.
	Set string
	// Quota of each Period may be used, both in microseconds (a hard limit).
	Quota, Period int64
	// Share is a soft limit in percent of one full share, 1 to 100; zero: 100.
	Share int
	// Priority is 0 to 10: the larger of two containers with equal shares wins.
	// Nil is 10.
	Priority *int
}

// MemoryLimits bound memory.
type MemoryLimits struct {
	// Limit is in bytes; zero: none.
	Limit int64
	// Soft lets the container use more than Limit while the machine has room.
	Soft bool
	// NoSwap keeps the container out of swap.
	NoSwap bool
	// SwapPriority is 0 to 10, the least likely to be swapped last; nil: 10.
	SwapPriority *int
	// Hugepages bounds huge pages in bytes by their size ("2MB": bytes).
	Hugepages map[string]int64
}
