package node

import (
	"context"
	"io"

	"muster/node/image"
	"muster/node/storage/stream"
	"muster/state"
)

// An instance's root file system moves in two halves, one on each machine: the
// target tells what it has (Inventory), the source sends what that lacks (Send),
// the target takes it (Receive). After as many streams as it takes, the last of
// them from a stopped instance, the target makes it a volume (Arrived). Each
// half is given the instance as it is on its own machine: the pools may differ
// in name and driver.

// Inventory writes what this machine has of an instance that is to come. It is
// state.ErrExists when the root file system is here already.
func (n *Node) Inventory(ctx context.Context, inst Instance, w io.Writer) error {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return err
	}
	// The image saves the way of what it holds, if this machine's pool has it.
	return pool.Inventory(ctx, volume, inst.Config["volatile.base_image"], w)
}

// Send writes the root file system with the named snapshots, the oldest first,
// to w: what the target with this inventory lacks. The instance may run, and may
// not be deleted or restored meanwhile.
func (n *Node) Send(ctx context.Context, inst Instance, snapshots []string, inventory io.Reader, w io.Writer) (stream.Stats, error) {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return stream.Stats{}, err
	}
	return pool.Send(ctx, volume, snapshots, inventory, w)
}

// Receive reads what Send wrote. What came before an error is kept for the next
// Inventory, and over a restart if Known.Incoming says so.
func (n *Node) Receive(ctx context.Context, inst Instance, r io.Reader) (stream.Stats, error) {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return stream.Stats{}, err
	}
	return pool.Receive(ctx, volume, r)
}

// Arrived makes what was received the instance's root file system, limited as
// its device says. It can be repeated. It is state.ErrConflict unless the last
// stream was whole.
func (n *Node) Arrived(ctx context.Context, inst Instance) error {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return err
	}
	if err := pool.Commit(ctx, volume); err != nil {
		return err
	}
	if err := n.applyNewRootSize(ctx, inst, pool, volume); err != nil {
		return err
	}
	n.keepAddresses(ctx, inst)
	return nil
}

// Copied is Arrived for an instance that is a copy of one on another machine. It returns
// the volatile keys to record.
func (n *Node) Copied(ctx context.Context, inst Instance) (state.Config, error) {
	if err := n.Arrived(ctx, inst); err != nil {
		return nil, err
	}
	volatile := n.hwaddrs(inst)
	n.keepAddresses(ctx, inst.with(volatile))
	if inst.Config[applyTemplate] == "" {
		volatile[applyTemplate] = string(image.TriggerCopy)
	}
	return volatile, nil
}

// Abandon removes what was received of an instance that is not to come after
// all. Nothing is no error.
func (n *Node) Abandon(ctx context.Context, inst Instance) error {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return err
	}
	return pool.Abandon(ctx, volume)
}
