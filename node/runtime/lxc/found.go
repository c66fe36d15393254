package lxc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/runtime/lxc/wire"
	"muster/state"
)

// specFile holds, in a run directory, the Spec that the container has now.
const specFile = "spec.json"

// pollEvery is how often what has no descriptor to wait on is looked at again:
// only while something is about to happen.
const pollEvery = 2 * time.Millisecond

// container is a container that was found running. Its init is held by a pidfd
// until close.
type container struct {
	id    string
	boots int
	start uint64
	init  *process
	// monitor is nil when somebody killed it.
	monitor *process
}

func (c *container) close() {
	_ = c.init.close()
	if c.monitor != nil {
		_ = c.monitor.close()
	}
}

// find returns a running container. One that is just starting or rebooting is
// waited for. The caller closes it.
func (r *Runtime) find(ctx context.Context, id string) (*container, error) {
	if err := runtime.ValidateID(id); err != nil {
		return nil, err
	}
	for {
		c, between, err := r.look(id)
		if err != nil || c != nil {
			return c, err
		}
		if !between {
			return nil, state.Errorf(state.ErrNotFound, "container %s does not run", id)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// look says what is true now: a running container, or between: its monitor lives,
// or is on its way, and its init does not, since it starts, reboots or ends.
func (r *Runtime) look(id string) (c *container, between bool, err error) {
	holder, coming, err := wire.Monitoring(filepath.Join(r.run(id), wire.Monitor))
	if err != nil {
		return nil, false, err
	}
	var monitor *process
	if holder != 0 {
		monitor, err = openProcess(wire.PID{Number: holder})
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			return nil, false, err
		}
	}
	between = monitor != nil || holder == 0 && coming
	found, err := r.readState(id)
	if err == nil && (monitor == nil || found.Monitor.Number == monitor.pid) {
		init, ierr := openProcess(found.Init)
		if ierr == nil {
			return &container{id: id, boots: found.Boots, start: found.Init.Start, init: init, monitor: monitor}, false, nil
		}
		if !errors.Is(ierr, os.ErrProcessDone) {
			err = ierr
		}
	}
	if monitor != nil {
		_ = monitor.close()
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return nil, between, err
}

// readState reads what the shim recorded. It may be about init that has ended.
func (r *Runtime) readState(id string) (wire.StateFile, error) {
	text, err := os.ReadFile(filepath.Join(r.run(id), wire.State))
	if err != nil {
		return wire.StateFile{}, err
	}
	return wire.ParseState(string(text))
}

// info describes a container that was found.
func (r *Runtime) info(c *container) runtime.Info {
	info := runtime.Info{
		ID: c.id, Status: state.StatusRunning, InitPID: c.init.pid, Boots: c.boots,
		StartedAt: since(c.start, time.Now()),
	}
	if c.monitor != nil {
		info.MonitorPID = c.monitor.pid
	}
	if frozen, err := r.group(c.id).Frozen(); err == nil && frozen {
		info.Status = state.StatusFrozen
	}
	return info
}

// Info implements runtime.Runtime.
func (r *Runtime) Info(ctx context.Context, id string) (runtime.Info, error) {
	c, err := r.find(ctx, id)
	if err != nil {
		return runtime.Info{}, err
	}
	defer c.close()
	return r.info(c), nil
}

// List implements runtime.Runtime.
func (r *Runtime) List(ctx context.Context) ([]runtime.Info, error) {
	ids, err := r.ids()
	if err != nil {
		return nil, err
	}
	var list []runtime.Info
	for _, id := range ids {
		info, err := r.Info(ctx, id)
		if errors.Is(err, state.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for container %s: %w", id, err)
		}
		list = append(list, info)
		r.watch.add(id)
	}
	return list, nil
}

// ids returns the containers that have a run directory, or groups without one.
func (r *Runtime) ids() ([]string, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, entry := range entries {
		if entry.IsDir() && runtime.ValidateID(entry.Name()) == nil {
			ids = append(ids, entry.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// readSpec reads the Spec that a container has now.
func (r *Runtime) readSpec(id string) (runtime.Spec, error) {
	text, err := os.ReadFile(filepath.Join(r.run(id), specFile))
	if err != nil {
		return runtime.Spec{}, fmt.Errorf("read the configuration of container %s: %w", id, err)
	}
	var spec runtime.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return runtime.Spec{}, fmt.Errorf("read the configuration of container %s: %w", id, err)
	}
	return spec, nil
}

// putFile replaces a file in one step.
func putFile(path string, content []byte, mode os.FileMode) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".daemon")
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func unixRenameNoReplace(from, to string) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
}

// initProgram is the name of the program that init runs: what the kernel says,
// not a path of the container.
func initProgram(pid int) string {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(filepath.Base(path), " (deleted)")
}
