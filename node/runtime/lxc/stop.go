package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/runtime/lxc/wire"
	"muster/state"
)

// monitorGrace is how long a monitor may take to clean up after its container
// before it is killed and the rest is done for it.
const monitorGrace = 10 * time.Second

// Stop implements runtime.Runtime.
func (r *Runtime) Stop(ctx context.Context, id string, how runtime.Stop) error {
	c, err := r.find(ctx, id)
	if err != nil {
		return err
	}
	defer c.close()
	if !how.Force {
		// Not under the lock: who runs out of patience may force it meanwhile.
		if err := r.shutDown(ctx, c, wire.GoalStop, how.Timeout); err != nil {
			return err
		}
	}
	defer r.locks.lock(id)()
	return r.kill(ctx, id)
}

// kill ends whatever of a container there is and cleans up after it. The caller
// holds its lock.
func (r *Runtime) kill(ctx context.Context, id string) error {
	for {
		c, between, err := r.look(id)
		if err != nil {
			return err
		}
		if c == nil && !between {
			return r.cleanup(ctx, id)
		}
		if err := r.killOnce(ctx, id, c); err != nil {
			return err
		}
	}
}

// killOnce kills init, if there is one, and waits until the monitor has gone, or
// until another init is there: a reboot can come in between.
func (r *Runtime) killOnce(ctx context.Context, id string, c *container) error {
	if c == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
			return nil
		}
	}
	defer c.close()
	if err := r.setGoal(id, wire.GoalKill); err != nil {
		return err
	}
	release := r.holdPhys(c)
	err := r.killInit(ctx, c)
	release()
	if err != nil {
		return fmt.Errorf("kill container %s: %w", id, err)
	}
	return r.endMonitor(ctx, c)
}

// killInit kills init and waits until it has ended.
func (r *Runtime) killInit(ctx context.Context, c *container) error {
	if err := c.init.signal(unix.SIGKILL); err != nil {
		return err
	}
	// What is frozen does not even die.
	if err := r.thaw(ctx, c.id); err != nil {
		return err
	}
	return c.init.wait(ctx)
}

// endMonitor ends the monitor of a container whose init has ended for good. What
// it would do now, cleanup does in half the time, since it need not move itself
// out of its own control groups first; only what nobody else can do is waited
// for.
func (r *Runtime) endMonitor(ctx context.Context, c *container) error {
	if c.monitor == nil {
		return nil
	}
	spec, err := r.readSpec(c.id)
	if err != nil || needsMonitor(spec) {
		if c.monitor.waitFor(ctx, monitorGrace) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r.log.Warn("the monitor of a container did not end with it and is killed", "container", c.id, "pid", c.monitor.pid)
	}
	if err := c.monitor.signal(unix.SIGKILL); err != nil {
		return err
	}
	return c.monitor.wait(ctx)
}

// needsMonitor says whether there is something that the monitor does best: it moves
// physical interfaces back and runs the hooks of raw.lxc.
func needsMonitor(spec runtime.Spec) bool {
	return strings.Contains(spec.RawLXC, "lxc.hook.") || len(physNICs(spec)) > 0
}

// goalSize is the size of the file that holds a goal: it is written when the container
// starts, and overwritten where it stands, because stopping must need no room on the disk.
const goalSize = 16

func (r *Runtime) setGoal(id, goal string) error {
	file, err := os.OpenFile(filepath.Join(r.run(id), wire.Goal), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	text := make([]byte, goalSize) // zeros after the goal
	copy(text, goal)
	_, err = file.Write(text)
	return errors.Join(err, file.Close())
}

// goal is what setGoal wrote last, or "".
func (r *Runtime) goal(id string) string {
	text, err := os.ReadFile(filepath.Join(r.run(id), wire.Goal))
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(text), "\x00")
}

// dropGoal forgets a goal that was not reached.
func (r *Runtime) dropGoal(id, goal string) {
	if r.goal(id) == goal {
		_ = r.setGoal(id, "") // it is read again when the container ends only
	}
}

// shutDown asks init to halt and waits until it has.
func (r *Runtime) shutDown(ctx context.Context, c *container, goal string, timeout time.Duration) error {
	err := func() error {
		defer r.locks.lock(c.id)()
		if err := r.setGoal(c.id, goal); err != nil {
			return err
		}
		return r.thaw(ctx, c.id)
	}()
	if err != nil {
		return err
	}
	wait := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	release := r.holdPhys(c)
	err = r.waitHalted(wait, c)
	release()
	if err != nil {
		r.dropGoal(c.id, goal)
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return state.Errorf(state.ErrUnavailable, "container %s did not shut down within %s; it still runs, force would stop it", c.id, timeout)
		}
		return err
	}
	if goal == wire.GoalStop {
		return r.endMonitor(ctx, c)
	}
	return nil
}

// Restart implements runtime.Runtime.
func (r *Runtime) Restart(ctx context.Context, id string, how runtime.Stop) (runtime.Info, error) {
	c, err := r.find(ctx, id)
	if err != nil {
		return runtime.Info{}, err
	}
	defer c.close()
	spec, err := r.readSpec(id)
	if err != nil {
		return runtime.Info{}, err
	}
	if c.monitor == nil {
		// Nobody is left to start it again.
		if err := r.Stop(ctx, id, how); err != nil {
			return runtime.Info{}, err
		}
		return r.Start(ctx, spec)
	}
	var logged int64
	if log, err := os.Stat(r.LogFile(id, wire.Log)); err == nil {
		logged = log.Size()
	}
	if how.Force {
		err = r.killToRestart(ctx, c)
	} else {
		err = r.shutDown(ctx, c, wire.GoalRestart, how.Timeout)
	}
	if err != nil {
		return runtime.Info{}, err
	}
	next, err := r.find(ctx, id)
	if errors.Is(err, state.ErrNotFound) {
		return runtime.Info{}, state.Errorf(state.ErrConflict, "start container %s again: %s", id, r.lastWords(id, logged))
	}
	if err != nil {
		return runtime.Info{}, err
	}
	defer next.close()
	if err := r.settleNICs(spec); err != nil {
		return runtime.Info{}, err
	}
	return r.info(next), nil
}

// killToRestart kills init in a way that makes the monitor start it again.
func (r *Runtime) killToRestart(ctx context.Context, c *container) error {
	defer r.locks.lock(c.id)()
	if err := r.setGoal(c.id, wire.GoalRestart); err != nil {
		return err
	}
	release := r.holdPhys(c)
	defer release()
	return r.killInit(ctx, c)
}

// Freeze implements runtime.Runtime.
func (r *Runtime) Freeze(ctx context.Context, id string) error {
	return r.setFrozen(ctx, id, true)
}

// Unfreeze implements runtime.Runtime.
func (r *Runtime) Unfreeze(ctx context.Context, id string) error {
	return r.setFrozen(ctx, id, false)
}

func (r *Runtime) setFrozen(ctx context.Context, id string, freeze bool) error {
	defer r.locks.lock(id)()
	c, err := r.find(ctx, id)
	if err != nil {
		return err
	}
	defer c.close()
	if err := r.group(id).Freeze(ctx, freeze); err != nil {
		if freeze {
			// Half a freeze would look like a hang.
			err = errors.Join(err, r.group(id).Freeze(context.WithoutCancel(ctx), false))
		}
		return fmt.Errorf("freeze or unfreeze container %s: %w", id, err)
	}
	return nil
}

// thaw unfreezes a container if it is frozen. One whose groups are gone is not.
func (r *Runtime) thaw(ctx context.Context, id string) error {
	frozen, err := r.group(id).Frozen()
	if errors.Is(err, os.ErrNotExist) || err == nil && !frozen {
		return nil
	}
	if err == nil {
		err = r.group(id).Freeze(ctx, false)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
