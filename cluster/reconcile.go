package cluster

import (
	"context"
	"errors"
	"slices"

	"muster/node"
	"muster/node/runtime"
	"muster/state"
	"muster/state/store"
)

// Reconcile brings this member in order after the daemon was started, whatever
// ended it before: it resumes or takes back what was under way, removes what was
// left half-made, and records which instances really run. It is called once,
// before the API is served.
func (c *Cluster) Reconcile(ctx context.Context) error {
	known := c.known(c.store.View())
	found, err := c.node.Reconcile(ctx, known)
	if err != nil {
		return err
	}
	// What is not noted is tried again (tendLocals).
	for _, pool := range known.Pools {
		if _, shut := c.node.Pool(ctx, pool.Name); shut == nil {
			c.keeper.note(poolSubject(pool.Name), pool.Config)
		}
	}
	for _, network := range known.Networks {
		if c.node.Networks().Running(network.Name) {
			c.keeper.note(networkSubject(network.Name), network.Config)
		}
	}
	for _, problem := range found.Problems {
		c.log.Error("bring the machine in order", "error", problem)
	}
	for _, fingerprint := range found.MissingImages {
		c.log.Error("the files of an image are gone: import it again", "fingerprint", fingerprint)
	}
	c.finishIntents(ctx)
	for _, inst := range c.store.View().InstancesOn(c.Self()) {
		if err := c.adopt(ctx, inst); err != nil {
			c.log.Error("record how an instance is", "instance", inst.Name, "error", err)
		}
	}
	return nil
}

// known is what is recorded that this machine should have.
func (c *Cluster) known(view *store.View) node.Known {
	self := c.Self()
	known := node.Known{Pools: c.readyPools(view), Networks: c.readyNetworks(view), Snapshots: map[string][]string{}}
	for _, inst := range view.InstancesOn(self) {
		expanded, err := nodeInstance(view, inst)
		if err != nil {
			c.log.Error("read an instance", "instance", inst.Name, "error", err)
			continue
		}
		known.Instances = append(known.Instances, expanded)
		for _, snapshot := range view.Snapshots(inst.Project, inst.Name) {
			known.Snapshots[expanded.HostName()] = append(known.Snapshots[expanded.HostName()], snapshot.Name)
		}
	}
	for _, image := range view.Images("") {
		if slices.Contains(image.Members, self) && !slices.Contains(known.Images, image.Fingerprint) {
			known.Images = append(known.Images, image.Fingerprint)
		}
	}
	known.Incoming = c.arriving(view)
	return known
}

// readyPools are the pools that this member has, as they are here.
func (c *Cluster) readyPools(view *store.View) []*state.Pool {
	var ready []*state.Pool
	for _, pool := range view.Pools() {
		if pool.Locals.Ready(c.Self()) {
			here := pool.On(c.Self())
			ready = append(ready, &here)
		}
	}
	return ready
}

// readyNetworks are the networks that this member has, as they are here.
func (c *Cluster) readyNetworks(view *store.View) []*state.Network {
	var ready []*state.Network
	for _, network := range view.Networks("") {
		if network.Locals.Ready(c.Self()) {
			here := network.On(c.Self())
			ready = append(ready, &here)
		}
	}
	return ready
}

// adopt records how an instance is now; its daemon was away.
func (c *Cluster) adopt(ctx context.Context, inst *state.Instance) error {
	expanded, err := nodeInstance(c.store.View(), inst)
	if err != nil {
		return err
	}
	status, err := c.node.Status(ctx, expanded)
	if err != nil {
		return err
	}
	if status != state.StatusStopped && inst.Busy == "" {
		// What was being changed when the daemon ended is on the host or in the record only.
		volatile, err := c.node.Converge(ctx, expanded)
		if err != nil {
			c.log.Error("give an instance the interfaces that it is recorded to have", "instance", inst.Name, "error", err)
		}
		if len(volatile) > 0 {
			if err := c.record(ctx, inst, "", volatile, ""); err != nil {
				return err
			}
		}
	}
	if status == inst.Status {
		return nil
	}
	c.log.Info("instance changed while the daemon was away", "instance", inst.Name, "was", inst.Status, "is", status)
	if status != state.StatusStopped {
		return c.record(ctx, inst, status, state.Config{"volatile.last_state.power": "RUNNING"}, "instance-started")
	}
	volatile := c.node.Ended(ctx, expanded)
	// It was to be running: an autostart that goes by the last state starts it.
	delete(volatile, "volatile.last_state.power")
	if err := c.record(ctx, inst, status, volatile, "instance-stopped"); err != nil {
		return err
	}
	if inst.Ephemeral {
		return c.delete(ctx, &held{Instance: inst, node: expanded})
	}
	return nil
}

// watch records what happens to instances by themselves, until ctx ends.
func (c *Cluster) watch(ctx context.Context) error {
	return c.node.Run(ctx, func(host string, event runtime.Event) {
		project, name := node.SplitHostName(host)
		if err := c.happened(ctx, project, name, event); err != nil && !errors.Is(err, state.ErrNotFound) && ctx.Err() == nil {
			c.log.Error("record what happened to an instance", "instance", name, "event", event.Kind, "error", err)
		}
	})
}

// happened records that an instance ended or rebooted. Ends that we asked for are
// recorded already when we get the lock.
func (c *Cluster) happened(ctx context.Context, project, name string, event runtime.Event) error {
	release, err := c.locks.acquire(ctx, "instance "+node.HostName(project, name), string(event.Kind))
	if err != nil {
		return err
	}
	defer release()
	inst, err := c.store.View().Instance(project, name)
	if err != nil {
		return err
	}
	expanded, err := nodeInstance(c.store.View(), inst)
	if err != nil {
		return err
	}
	status, err := c.node.Status(ctx, expanded)
	if err != nil {
		return err
	}
	switch {
	case event.Kind == runtime.EventRebooted && status != state.StatusStopped:
		return c.record(ctx, inst, status, nil, "instance-restarted")
	case status != state.StatusStopped || inst.Status == state.StatusStopped:
		return nil
	}
	volatile := c.node.Ended(ctx, expanded)
	ended := &held{Instance: inst, node: expanded, release: release}
	if c.closing.is() {
		return c.recordShutdown(ctx, ended, volatile)
	}
	if err := c.record(ctx, inst, state.StatusStopped, volatile, "instance-shutdown"); err != nil {
		return err
	}
	return c.deleteIfEphemeral(ctx, ended)
}
