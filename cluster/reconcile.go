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
	view := c.store.View()
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
	found, err := c.node.Reconcile(ctx, known)
	if err != nil {
		return err
	}
	for _, pool := range known.Pools {
		c.keeper.note(poolSubject(pool.Name), pool.Config)
	}
	for _, network := range known.Networks {
		c.keeper.note(networkSubject(network.Name), network.Config)
	}
	for _, problem := range found.Problems {
		c.log.Error("bring the machine in order", "error", problem)
	}
	for _, fingerprint := range found.MissingImages {
		c.log.Error("the files of an image are gone: import it again", "fingerprint", fingerprint)
	}
	for _, intent := range view.Intents(self) {
		if err := c.resume(ctx, intent); err != nil {
			c.log.Error("finish what was under way", "kind", intent.Kind, "subject", intent.Subject, "name", intent.Name, "error", err)
		}
	}
	for _, inst := range c.store.View().InstancesOn(self) {
		if err := c.adopt(ctx, inst); err != nil {
			c.log.Error("record how an instance is", "instance", inst.Name, "error", err)
		}
	}
	return nil
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

// resume finishes or takes back a change that a crash cut off.
func (c *Cluster) resume(ctx context.Context, intent *state.Intent) error {
	c.log.Info("finishing what was under way", "kind", intent.Kind, "subject", intent.Subject, "name", intent.Name)
	switch intent.Subject {
	case store.SubjectInstance:
		return c.resumeInstance(ctx, intent)
	case store.SubjectSnapshot:
		return c.resumeSnapshot(ctx, intent)
	case store.SubjectNetwork:
		return c.resumeNetwork(ctx, intent)
	case store.SubjectLeftover:
		return c.resumeLeftover(ctx, intent)
	case store.SubjectImage:
		return c.apply(ctx, store.End{ID: intent.ID})
	}
	return state.Errorf(state.ErrInvalid, "nothing is known of the subject %q", intent.Subject)
}

func (c *Cluster) resumeInstance(ctx context.Context, intent *state.Intent) error {
	inst, err := c.store.View().Instance(intent.Project, intent.Name)
	if err != nil {
		return err
	}
	expanded, err := nodeInstance(c.store.View(), inst)
	if err != nil {
		return err
	}
	switch intent.Kind {
	case "create":
		return c.undoCreate(ctx, expanded, intent.ID)
	case "delete":
		if err := c.node.Delete(ctx, expanded); err != nil {
			return err
		}
		return c.apply(ctx, store.DeleteInstance{Project: inst.Project, Name: inst.Name, IntentID: intent.ID})
	case "rename":
		input, err := decodeInput[renameInput](intent)
		if err != nil {
			return err
		}
		volatile, err := c.node.Rename(ctx, expanded, input.NewName)
		if err != nil {
			return err
		}
		if err := c.apply(ctx, store.RenameInstance{Project: inst.Project, Name: inst.Name, NewName: input.NewName, IntentID: intent.ID}); err != nil {
			return err
		}
		renamed := *inst
		renamed.Name = input.NewName
		return c.record(ctx, &renamed, "", volatile, "")
	case "restore":
		return c.resumeRestore(ctx, inst, expanded, intent)
	case kindMove:
		return c.resumeMove(ctx, inst, intent)
	}
	return c.apply(ctx, store.End{ID: intent.ID})
}

func (c *Cluster) resumeRestore(ctx context.Context, inst *state.Instance, expanded node.Instance, intent *state.Intent) error {
	input, err := decodeInput[restoreInput](intent)
	if err != nil {
		return err
	}
	snapshot, err := c.store.View().Snapshot(inst.Project, inst.Name, input.Snapshot)
	if err != nil {
		return err
	}
	if status, err := c.node.Status(ctx, expanded); err != nil {
		return err
	} else if status != state.StatusStopped {
		// The crash came before the stop: nothing has been restored yet.
		return c.apply(ctx, store.End{ID: intent.ID})
	}
	if err := c.node.Restore(ctx, expanded, input.Snapshot); err != nil {
		return err
	}
	return c.recordRestore(ctx, inst, snapshot, intent.ID)
}

func (c *Cluster) resumeSnapshot(ctx context.Context, intent *state.Intent) error {
	instance, name, _ := cutLast(intent.Name, "/")
	inst, err := c.store.View().Instance(intent.Project, instance)
	if err != nil {
		return err
	}
	expanded, err := nodeInstance(c.store.View(), inst)
	if err != nil {
		return err
	}
	switch intent.Kind {
	case "create", "delete":
		if err := c.node.DeleteSnapshot(ctx, expanded, name); err != nil {
			return err
		}
		hint := store.Hint{}
		if intent.Kind == "create" {
			hint.Action = store.NoEvent
			// A snapshot freezes what runs; the crash may have come before the thaw.
			if status, err := c.node.Status(ctx, expanded); err == nil && status == state.StatusFrozen && inst.Status == state.StatusRunning {
				if err := c.node.Unfreeze(ctx, expanded); err != nil {
					return err
				}
			}
		}
		return c.apply(ctx, store.DeleteSnapshot{Project: intent.Project, Instance: instance, Name: name, IntentID: intent.ID, Hint: hint})
	case "rename":
		input, err := decodeInput[renameInput](intent)
		if err != nil {
			return err
		}
		if err := c.node.RenameSnapshot(ctx, expanded, name, input.NewName); err != nil {
			return err
		}
		return c.apply(ctx, store.RenameSnapshot{Project: intent.Project, Instance: instance, Name: name, NewName: input.NewName, IntentID: intent.ID})
	}
	return c.apply(ctx, store.End{ID: intent.ID})
}

func cutLast(text, separator string) (before, after string, found bool) {
	for i := len(text) - len(separator); i >= 0; i-- {
		if text[i:i+len(separator)] == separator {
			return text[:i], text[i+len(separator):], true
		}
	}
	return text, "", false
}

func (c *Cluster) resumeNetwork(ctx context.Context, intent *state.Intent) error {
	network, err := c.store.View().Network(intent.Project, intent.Name)
	if err != nil {
		return err
	}
	// A rename that was not recorded is taken back.
	if input, err := decodeInput[renameInput](intent); err == nil {
		if err := c.node.Networks().Delete(ctx, input.NewName); err != nil {
			return err
		}
	}
	if err := c.node.Networks().Start(ctx, network.On(c.Self())); err != nil {
		return err
	}
	return c.apply(ctx, store.End{ID: intent.ID})
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
