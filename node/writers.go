package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"muster/state"
)

// busyFor is how long it is looked whether an instance works. One whose writes the kernel
// holds up takes very little processor time, but wakes five times a second.
const busyFor = 500 * time.Millisecond

// FreezeBusy freezes every running instance that works at the moment, so that it does not
// use up room that is to be made free. It returns the host names of those that it froze,
// for Thaw. Which of them write cannot be told: a write that fails is not counted anywhere,
// neither are those that go from file to file, and their processes may live for an instant.
func (n *Node) FreezeBusy(ctx context.Context) ([]string, error) {
	running, err := n.cfg.Runtime.List(ctx)
	if err != nil {
		return nil, err
	}
	before := n.worked(ctx)
	select {
	case <-time.After(busyFor):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	after := n.worked(ctx)
	var frozen []string
	var failed []error
	for _, info := range running {
		then, known := before[info.ID]
		if info.Status != state.StatusRunning || known && after[info.ID] == then {
			continue
		}
		if err := n.cfg.Runtime.Freeze(ctx, info.ID); err != nil {
			failed = append(failed, fmt.Errorf("freeze %s: %w", info.ID, err))
			continue
		}
		frozen = append(frozen, info.ID)
	}
	return frozen, errors.Join(failed...)
}

// worked is how much processor time each running instance has taken, by host name.
func (n *Node) worked(ctx context.Context) map[string]time.Duration {
	taken := map[string]time.Duration{}
	running, err := n.cfg.Runtime.List(ctx)
	if err != nil {
		return taken
	}
	for _, info := range running {
		if usage, err := n.cfg.Runtime.Usage(ctx, info.ID); err == nil {
			taken[info.ID] = time.Duration(usage.CPU)
		}
	}
	return taken
}

// Thaw takes back what FreezeBusy did to instances that are still there.
func (n *Node) Thaw(ctx context.Context, frozen []string) error {
	var failed []error
	for _, id := range frozen {
		info, err := n.cfg.Runtime.Info(ctx, id)
		if err != nil || info.Status != state.StatusFrozen {
			continue // stopped or deleted since
		}
		failed = append(failed, n.cfg.Runtime.Unfreeze(ctx, id))
	}
	return errors.Join(failed...)
}
