package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"muster/node"
	"muster/node/runtime"
	"muster/node/runtime/lxc"
	"muster/node/storage/mount"
	"muster/state"
)

// What runs on this machine is stopped here without records: the daemon does not serve, or
// there is none, and no majority is needed.

// haltTimeout is how long a container may take to end by itself.
const haltTimeout = 30 * time.Second

// giveUpWaiting ends a member that waits for the others, and what runs on it.
func (m *member) giveUpWaiting(ctx context.Context, stopInstances bool) error {
	if stopInstances {
		if _, err := node.HaltAll(ctx, m.runtime, haltTimeout); err != nil {
			return err
		}
		if err := unmountBelow(ctx, m.dir); err != nil {
			return err
		}
	}
	m.stopping.Store(true)
	m.end()
	return nil
}

// openContainers opens what runs containers in a directory of which no daemon takes care. A
// machine that could run none has none.
func openContainers(ctx context.Context, dir string, log *slog.Logger) (runtime.Runtime, error) {
	shim, err := program("muster-shim")
	if err != nil {
		return nil, err
	}
	return lxc.Open(ctx, lxc.Config{Dir: filepath.Join(dir, "containers"), Shim: shim, Log: log})
}

// runningHere are the names of the containers that run.
func runningHere(ctx context.Context, dir string, log *slog.Logger) ([]string, error) {
	containers, err := openContainers(ctx, dir, log)
	if err != nil {
		return nil, err
	}
	names, err := node.Running(ctx, containers)
	return names, errors.Join(err, containers.Close())
}

// haltHere ends every container that runs, takes their root file systems from the machine,
// and returns their names.
func haltHere(ctx context.Context, dir string, log *slog.Logger) ([]string, error) {
	containers, err := openContainers(ctx, dir, log)
	if err != nil {
		return nil, err
	}
	names, err := node.HaltAll(ctx, containers, haltTimeout)
	if err := errors.Join(err, containers.Close()); err != nil {
		return names, err
	}
	return names, unmountBelow(ctx, dir)
}

// unmountBelow unmounts what the daemon had mounted in its directory.
func unmountBelow(ctx context.Context, dir string) error {
	pools, err := mount.Clean(filepath.Join(dir, "storage-pools"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	table, err := mount.Table(pools)
	if err != nil {
		return err
	}
	var failed []error
	for _, entry := range slices.Backward(table) {
		_, err := mount.Unmount(ctx, entry.Path)
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// refuseWhatRuns returns an error that names the instances which run here, so that no command
// leaves them without a daemon.
func refuseWhatRuns(running []string) error {
	if len(running) == 0 {
		return nil
	}
	return state.Errorf(state.ErrConflict,
		"instances run here (%d), which nobody could see or stop any more: %s; say --stop-instances to stop them first",
		len(running), strings.Join(running, ", "))
}
