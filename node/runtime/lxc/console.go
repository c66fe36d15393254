package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"

	"muster/node/runtime"
	"muster/node/runtime/lxc/wire"
	"muster/state"
)

// Console implements runtime.Runtime.
func (r *Runtime) Console(ctx context.Context, id string) (runtime.Terminal, error) {
	c, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if c.monitor == nil {
		return nil, state.Errorf(state.ErrConflict, "container %s has lost its console; restart it", id)
	}
	h, release, err := startHelper(ctx, r.shim, []string{"console", r.dir, id}, [3]*os.File{})
	if err != nil {
		return nil, err
	}
	defer release()
	_, files, err := h.answers.expect("console", 2)
	h.giveUp()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, errBusy):
		return nil, state.Errorf(state.ErrConflict, "the console of container %s is in use", id)
	case err != nil:
		return nil, fmt.Errorf("attach to the console of container %s: %w", id, err)
	}
	terminal, err := newTerminal(files[0], files[1])
	if err == nil {
		err = terminal.raw()
	}
	if err != nil {
		return nil, errors.Join(err, files[0].Close(), files[1].Close())
	}
	return terminal, nil
}

// ConsoleLog implements runtime.Runtime.
func (r *Runtime) ConsoleLog(_ context.Context, id string) ([]byte, error) {
	path, err := r.consoleLog(id)
	if err != nil {
		return nil, err
	}
	var log []byte
	for _, name := range []string{path + ".1", path} {
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		log = append(log, text...)
	}
	return log, nil
}

// ClearConsoleLog implements runtime.Runtime.
func (r *Runtime) ClearConsoleLog(_ context.Context, id string) error {
	path, err := r.consoleLog(id)
	if err != nil {
		return err
	}
	// The monitor has the file open and appends, so it is emptied in place.
	if err := os.Truncate(path, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Remove(path + ".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// consoleLog is the path of the console log of a container that has a run
// directory.
func (r *Runtime) consoleLog(id string) (string, error) {
	if err := runtime.ValidateID(id); err != nil {
		return "", err
	}
	if _, err := os.Stat(r.run(id)); err != nil {
		return "", state.Errorf(state.ErrNotFound, "container %s has no console log: it has never run here", id)
	}
	return r.LogFile(id, wire.ConsoleLog), nil
}
