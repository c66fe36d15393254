package node

import (
	"context"
	"errors"

	"muster/node/runtime"
	"muster/state"
)

// Usage is how an instance is and what it uses right now.
type Usage struct {
	Status state.Status
	// Runtime and Interfaces are nil while the instance does not run.
	Runtime    *runtime.Usage
	Interfaces []runtime.Interface
	// Disk maps the name of the root disk device to the bytes it takes; empty
	// when that could not be found out.
	Disk map[string]int64
}

// Usage asks the machine; it never waits for the container.
func (n *Node) Usage(ctx context.Context, inst Instance) (Usage, error) {
	status, err := n.Status(ctx, inst)
	if err != nil {
		return Usage{}, err
	}
	usage := Usage{Status: status, Disk: map[string]int64{}}
	if device, _, err := RootDisk(inst.Devices); err == nil {
		if pool, volume, err := n.volume(ctx, inst); err == nil {
			if disk, err := pool.Usage(ctx, volume); err == nil {
				usage.Disk[device] = disk.Used
			} else {
				n.log.Debug("disk usage", "instance", inst.HostName(), "error", err)
			}
		}
	}
	if status == state.StatusStopped {
		return usage, nil
	}
	used, err := n.cfg.Runtime.Usage(ctx, inst.HostName())
	if errors.Is(err, state.ErrNotFound) {
		usage.Status = state.StatusStopped
		return usage, nil
	}
	if err != nil {
		return usage, err
	}
	usage.Runtime = &used
	if usage.Interfaces, err = n.cfg.Runtime.Interfaces(ctx, inst.HostName()); err != nil {
		n.log.Debug("interfaces", "instance", inst.HostName(), "error", err)
	}
	return usage, nil
}
