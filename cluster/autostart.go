package cluster

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"muster/state"
	"muster/state/store"
)

// AutoStart starts the instances that are to run: those with boot.autostart, and
// without that key those that ran when the machine or the daemon went down.
// Higher boot.autostart.priority comes first; boot.autostart.delay is waited for
// after an instance. One whose pool or network is missing starts when it comes.
func (c *Cluster) AutoStart(ctx context.Context) {
	c.startThemselves(ctx, c.store.View().InstancesOn(c.Self()))
}

func (c *Cluster) startThemselves(ctx context.Context, instances []*state.Instance) {
	type candidate struct {
		inst     *state.Instance
		missing  []string
		priority int
		delay    time.Duration
	}
	var list []candidate
	view := c.store.View()
	for _, inst := range instances {
		config, devices, wanted := startsItself(view, inst)
		if !wanted {
			continue
		}
		priority, _ := strconv.Atoi(config["boot.autostart.priority"])
		delay, _ := strconv.Atoi(config["boot.autostart.delay"])
		list = append(list, candidate{inst, c.missing(view, devices), priority, time.Duration(delay) * time.Second})
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return b.priority - a.priority })
	for _, candidate := range list {
		inst := candidate.inst
		if len(candidate.missing) > 0 {
			c.log.Warn("an instance is started when what it needs is there", "instance", inst.Name, "missing", candidate.missing)
			c.putOff(inst)
			continue
		}
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

// missing names the pools and networks among the devices that were made on this member and
// are not there now.
func (c *Cluster) missing(view *store.View, devices state.Devices) []string {
	needs, _ := requestFor(nil, devices)
	var missing []string
	for _, p := range c.parts(view) {
		named := slices.ContainsFunc(needs.Pools, func(name string) bool { return poolSubject(name) == p.subject }) ||
			slices.ContainsFunc(needs.Networks, func(name string) bool { return networkSubject(name) == p.subject })
		if _, there := c.keeper.has(p.subject); named && !there && p.locals.Ready(c.Self()) {
			missing = append(missing, p.subject)
		}
	}
	return missing
}

// delayed are the instances that would have been started and whose pool or network was
// missing, as they were then.
type delayed struct {
	mu        sync.Mutex
	instances []*state.Instance // guarded by mu
}

func (c *Cluster) putOff(inst *state.Instance) {
	c.delayed.mu.Lock()
	defer c.delayed.mu.Unlock()
	c.delayed.instances = append(c.delayed.instances, inst)
}

// delayedEvery is how often a member looks whether what a delayed start waits for is there.
const delayedEvery = time.Second

// tendDelayed starts, until ctx ends, what AutoStart could not when what it needs has come.
func (c *Cluster) tendDelayed(ctx context.Context) error {
	return every(ctx, delayedEvery, func() {
		c.startThemselves(ctx, c.startable())
	})
}

// startable takes the instances out of those that are put off of which nothing is missing.
func (c *Cluster) startable() []*state.Instance {
	c.delayed.mu.Lock()
	defer c.delayed.mu.Unlock()
	view := c.store.View()
	var now, later []*state.Instance
	for _, inst := range c.delayed.instances {
		_, devices, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
		if err == nil && len(c.missing(view, devices)) > 0 {
			later = append(later, inst)
		} else {
			now = append(now, inst)
		}
	}
	c.delayed.instances = later
	return now
}

// startsItself says whether an instance that is stopped is to run, and gives its
// expanded configuration and devices.
func startsItself(view *store.View, inst *state.Instance) (config state.Config, devices state.Devices, wanted bool) {
	config, devices, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
	if err != nil || inst.Status != state.StatusStopped || inst.Busy != "" {
		return nil, nil, false
	}
	wanted = inst.Config["volatile.last_state.power"] == "RUNNING"
	if value := config["boot.autostart"]; value != "" {
		wanted, _ = state.ParseBool(value)
	}
	return config, devices, wanted
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
	_, _, wanted := startsItself(c.store.View(), inst.Instance)
	if !wanted || inst.ID != was.ID || !inst.LastUsedAt.Equal(was.LastUsedAt) {
		return nil
	}
	return c.start(ctx, inst)
}
