package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"muster/node/runtime"
	"muster/state"
)

// Running are the names on this host of the containers that really run, whoever started
// them.
func (n *Node) Running(ctx context.Context) ([]string, error) { return Running(ctx, n.cfg.Runtime) }

// Running are the names of the containers that run.
func Running(ctx context.Context, containers runtime.Runtime) ([]string, error) {
	found, err := containers.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	names := make([]string, 0, len(found))
	for _, info := range found {
		names = append(names, info.ID)
	}
	return names, nil
}

// Halt ends a container of which only its name on the host is known: cleanly within the
// time, by force after that.
func (n *Node) Halt(ctx context.Context, host string, timeout time.Duration) error {
	return halt(ctx, n.cfg.Runtime, host, timeout)
}

func halt(ctx context.Context, containers runtime.Runtime, host string, timeout time.Duration) error {
	err := containers.Stop(ctx, host, runtime.Stop{Timeout: timeout})
	if err != nil && !errors.Is(err, state.ErrNotFound) && ctx.Err() == nil {
		err = containers.Stop(ctx, host, runtime.Stop{Force: true})
	}
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	return err
}

// haltsAtOnce is how many containers are ended at the same time.
const haltsAtOnce = 8

// HaltAll ends every container that runs, each as Halt does, and returns their names. It is
// for whoever has no records to go by.
func HaltAll(ctx context.Context, containers runtime.Runtime, timeout time.Duration) ([]string, error) {
	names, err := Running(ctx, containers)
	if err != nil {
		return nil, err
	}
	failures := make([]error, len(names))
	var group errgroup.Group
	group.SetLimit(haltsAtOnce)
	for i, name := range names {
		group.Go(func() error {
			if err := halt(ctx, containers, name, timeout); err != nil {
				failures[i] = fmt.Errorf("stop %s: %w", name, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	slices.Sort(names)
	return names, errors.Join(failures...)
}
