package cluster

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"muster/node"
	"muster/node/runtime"
	"muster/state"
)

// StopAll stops everything that runs on this member and then its networks, for a machine
// that goes down: higher boot.stop.priority first, each cleanly within its
// boot.host_shutdown_timeout and by force after that. What runs is found on the machine,
// and stopping it waits for no other member: what can't be recorded now is found when the
// daemon starts next, as after a crash. What ran starts again with the daemon; nothing
// starts from here on, unless StopAll fails.
func (c *Cluster) StopAll(ctx context.Context) error {
	c.closing.set(true)
	if err := c.stopInstances(ctx); err != nil {
		c.closing.set(false)
		return err
	}
	if err := c.node.Networks().StopAll(ctx); err != nil {
		// The machine goes down all the same, and the next daemon finds what is left.
		c.log.Warn("take the networks from this machine", "error", err)
	}
	return nil
}

// closing says that this member goes down, so that nothing starts on it any more.
type closing struct {
	// starts is read-held while something starts: who goes down waits for that.
	starts sync.RWMutex
	closed bool // guarded by starts
}

func (g *closing) set(closed bool) {
	g.starts.Lock()
	defer g.starts.Unlock()
	g.closed = closed
}

func (g *closing) is() bool {
	g.starts.RLock()
	defer g.starts.RUnlock()
	return g.closed
}

// starting is held by who starts an instance; started must be called.
func (g *closing) starting() (started func(), err error) {
	g.starts.RLock()
	if g.closed {
		g.starts.RUnlock()
		return nil, state.Errorf(state.ErrUnavailable, "this member is shutting down: nothing starts on it now")
	}
	return g.starts.RUnlock, nil
}

// stopping is a container that is to be stopped.
type stopping struct {
	host     string
	priority int
	timeout  time.Duration
}

// stopInstances goes by what runs, again and again until that is nothing: one that was
// started just before is found too.
func (c *Cluster) stopInstances(ctx context.Context) error {
	for {
		running, err := c.node.Running(ctx)
		if err != nil || len(running) == 0 {
			return err
		}
		byPriority := map[int][]string{}
		timeouts := map[string]time.Duration{}
		for _, host := range running {
			s := c.howToStop(host)
			byPriority[s.priority] = append(byPriority[s.priority], host)
			timeouts[host] = s.timeout
		}
		priorities := make([]int, 0, len(byPriority))
		for priority := range byPriority {
			priorities = append(priorities, priority)
		}
		slices.Sort(priorities)
		for _, priority := range slices.Backward(priorities) {
			err := forAll(ctx, byPriority[priority], func(ctx context.Context, host string) error {
				return c.stopForShutdown(ctx, host, timeouts[host])
			})
			if err != nil {
				return err
			}
		}
	}
}

// howToStop reads what is recorded of a container; of one that nothing is known of, the
// usual holds.
func (c *Cluster) howToStop(host string) stopping {
	s := stopping{host: host, timeout: defaultStopTimeout}
	view := c.store.View()
	inst, err := view.Instance(node.SplitHostName(host))
	if err != nil {
		return s
	}
	config, _, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
	if err != nil {
		config = inst.Config
	}
	s.priority, _ = strconv.Atoi(config["boot.stop.priority"])
	if seconds, err := strconv.Atoi(config["boot.host_shutdown_timeout"]); err == nil {
		s.timeout = time.Duration(seconds) * time.Second
	}
	return s
}

// shutdownPatience is how long somebody else's change of an instance is waited for beyond
// the time that the instance itself may take.
const shutdownPatience = 10 * time.Second

func (c *Cluster) stopForShutdown(ctx context.Context, host string, timeout time.Duration) error {
	project, name := node.SplitHostName(host)
	waiting, cancel := context.WithTimeout(ctx, timeout+shutdownPatience)
	release, err := c.locks.acquire(waiting, "instance "+host, "stop")
	cancel()
	if err == nil {
		defer release()
	} else if ctx.Err() != nil {
		return err
	}
	inst, unknown := c.store.View().Instance(project, name)
	if err != nil || unknown != nil || inst.Busy != "" {
		// A change is under way, which goes on or is taken back with the next start, or
		// nobody knows this one: only that it ends is seen to.
		c.log.Warn("a container is stopped that is being changed or that nothing is known of", "container", host)
		return c.node.Halt(ctx, host, timeout)
	}
	expanded, err := nodeInstance(c.store.View(), inst)
	if err != nil {
		return c.node.Halt(ctx, host, timeout)
	}
	volatile, err := c.node.Stop(ctx, expanded, runtime.Stop{Timeout: timeout})
	if err != nil && ctx.Err() == nil {
		c.log.Warn("instance did not shut down in time and is killed", "instance", name, "error", err)
		volatile, err = c.node.Stop(ctx, expanded, forced)
	}
	if err != nil {
		return err
	}
	return c.recordShutdown(ctx, &held{Instance: inst, node: expanded, release: release}, volatile)
}

// recordShutdown records that an instance ended because this member goes down. Without a
// majority nothing is recorded: the next daemon finds it stopped, and starts it again.
func (c *Cluster) recordShutdown(ctx context.Context, inst *held, volatile state.Config) error {
	if c.store.Stale() > 0 {
		return nil
	}
	// It is to run again: autostart goes by this key.
	volatile["volatile.last_state.power"] = "RUNNING"
	err := c.record(ctx, inst.Instance, state.StatusStopped, volatile, "instance-shutdown")
	if err == nil {
		err = c.deleteIfEphemeral(ctx, inst)
	}
	if errors.Is(err, state.ErrUnavailable) {
		c.log.Warn("an instance was stopped without a majority that could record it", "instance", inst.Name, "error", err)
		return nil
	}
	return err
}

var forced = runtime.Stop{Force: true}
