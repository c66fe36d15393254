package cluster

import (
	"context"
	"slices"
	"strconv"
	"time"

	"muster/node/runtime"
	"muster/state"
)

// StopAll stops every instance of this member and then its networks, for a machine
// that goes down: higher boot.stop.priority first, each cleanly within its
// boot.host_shutdown_timeout and by force after that. What ran starts again with
// the daemon.
func (c *Cluster) StopAll(ctx context.Context) error {
	if err := c.stopInstances(ctx); err != nil {
		return err
	}
	if err := c.node.Networks().StopAll(ctx); err != nil {
		// The machine goes down all the same, and the next daemon finds what is left.
		c.log.Warn("take the networks from this machine", "error", err)
	}
	return nil
}

func (c *Cluster) stopInstances(ctx context.Context) error {
	type candidate struct {
		name     string
		project  string
		priority int
		timeout  time.Duration
	}
	byPriority := map[int][]candidate{}
	view := c.store.View()
	for _, inst := range view.InstancesOn(c.Self()) {
		if inst.Status == state.StatusStopped {
			continue
		}
		config, _, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
		if err != nil {
			config = inst.Config
		}
		priority, _ := strconv.Atoi(config["boot.stop.priority"])
		timeout := defaultStopTimeout
		if seconds, err := strconv.Atoi(config["boot.host_shutdown_timeout"]); err == nil {
			timeout = time.Duration(seconds) * time.Second
		}
		byPriority[priority] = append(byPriority[priority], candidate{inst.Name, inst.Project, priority, timeout})
	}
	priorities := make([]int, 0, len(byPriority))
	for priority := range byPriority {
		priorities = append(priorities, priority)
	}
	slices.Sort(priorities)
	for _, priority := range slices.Backward(priorities) {
		group := map[string]candidate{}
		var keys []string
		for _, candidate := range byPriority[priority] {
			key := candidate.project + "/" + candidate.name
			group[key] = candidate
			keys = append(keys, key)
		}
		err := forAll(ctx, keys, func(ctx context.Context, key string) error {
			candidate := group[key]
			return c.stopForShutdown(ctx, candidate.project, candidate.name, candidate.timeout)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) stopForShutdown(ctx context.Context, project, name string, timeout time.Duration) error {
	inst, err := c.hold(ctx, project, name, "stop")
	if err != nil {
		return err
	}
	defer inst.release()
	if inst.Status == state.StatusStopped {
		return nil
	}
	volatile, err := c.node.Stop(ctx, inst.node, runtime.Stop{Timeout: timeout})
	if err != nil {
		c.log.Warn("instance did not shut down in time and is killed", "instance", name, "error", err)
		if volatile, err = c.node.Stop(ctx, inst.node, forced); err != nil {
			return err
		}
	}
	// It is to run again: autostart goes by this key.
	volatile["volatile.last_state.power"] = "RUNNING"
	if err := c.record(ctx, inst.Instance, state.StatusStopped, volatile, "instance-shutdown"); err != nil {
		return err
	}
	return c.deleteIfEphemeral(ctx, inst)
}

var forced = runtime.Stop{Force: true}
