package cluster

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"muster/state"
	"muster/state/store"
)

// AutoStart starts the instances that are to run: those with boot.autostart, and
// without that key those that ran when the machine or the daemon went down.
// Higher boot.autostart.priority comes first; boot.autostart.delay is waited for
// after an instance.
func (c *Cluster) AutoStart(ctx context.Context) {
	type candidate struct {
		inst     *state.Instance
		priority int
		delay    time.Duration
	}
	var list []candidate
	view := c.store.View()
	for _, inst := range view.InstancesOn(c.Self()) {
		config, wanted := startsItself(view, inst)
		if !wanted {
			continue
		}
		priority, _ := strconv.Atoi(config["boot.autostart.priority"])
		delay, _ := strconv.Atoi(config["boot.autostart.delay"])
		list = append(list, candidate{inst, priority, time.Duration(delay) * time.Second})
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return b.priority - a.priority })
	for _, candidate := range list {
		inst := candidate.inst
		err := c.autoStart(ctx, inst)
		if err != nil && !errors.Is(err, state.ErrConflict) && !errors.Is(err, state.ErrNotFound) && ctx.Err() == nil {
			c.log.Error("start an instance by itself", "instance", inst.Name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(candidate.delay):
		}
	}
}

// startsItself says whether an instance that is stopped is to run, and gives its
// expanded configuration.
func startsItself(view *store.View, inst *state.Instance) (config state.Config, wanted bool) {
	config, _, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
	if err != nil || inst.Status != state.StatusStopped || inst.Busy != "" {
		return nil, false
	}
	wanted = inst.Config["volatile.last_state.power"] == "RUNNING"
	if value := config["boot.autostart"]; value != "" {
		wanted, _ = state.ParseBool(value)
	}
	return config, wanted
}

// autoStart starts an instance as it was found when the daemon came up. Somebody
// may have dealt with it since, and what they did last stands: one that was
// started and stopped again stays stopped.
func (c *Cluster) autoStart(ctx context.Context, was *state.Instance) error {
	inst, err := c.hold(ctx, was.Project, was.Name, "start")
	if err != nil {
		return err
	}
	defer inst.release()
	_, wanted := startsItself(c.store.View(), inst.Instance)
	if !wanted || inst.ID != was.ID || !inst.LastUsedAt.Equal(was.LastUsedAt) {
		return nil
	}
	return c.start(ctx, inst)
}
