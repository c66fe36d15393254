package cluster

import (
	"context"
	"errors"
	"time"

	"muster/node"
	"muster/node/runtime"
	"muster/state"
	"muster/state/store"
)

// Instance returns an instance as it is recorded. It says that there is none
// only after asking the leader.
func (c *Cluster) Instance(_ context.Context, project, name string) (*state.Instance, error) {
	return c.store.View().Instance(project, name)
}

// nodeInstance is an instance with its profiles laid under it and the networks it
// names, for the node.
func nodeInstance(view *store.View, inst *state.Instance) (node.Instance, error) {
	config, devices, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
	if err != nil {
		return node.Instance{}, err
	}
	networks := map[string]*state.Network{}
	for _, device := range devices {
		for _, name := range []string{device["network"], device["parent"]} {
			if device["type"] != "nic" || name == "" {
				continue
			}
			if network, err := view.Network(state.DefaultProject, name); err == nil {
				here := network.On(inst.Location)
				networks[name] = &here
			}
		}
	}
	return node.Instance{
		Project: inst.Project, Name: inst.Name, Architecture: inst.Architecture, Ephemeral: inst.Ephemeral,
		Config: config, Devices: devices, Networks: networks,
	}, nil
}

// expand lays a configuration over the profiles it names.
func expand(view *store.View, project string, names []string, config state.Config, devices state.Devices) (state.Config, state.Devices, error) {
	profiles := make([]*state.Profile, 0, len(names))
	for _, name := range names {
		profile, err := view.Profile(project, name)
		if err != nil {
			return nil, nil, err
		}
		profiles = append(profiles, profile)
	}
	expandedConfig, expandedDevices := state.Expand(profiles, config, devices)
	return expandedConfig, expandedDevices, nil
}

// held is an instance that the caller may change: it is locked, and as recorded
// now.
type held struct {
	*state.Instance
	node    node.Instance
	release func()
}

// hold locks the instance for an action and reads it. An instance with a change
// under way (it is being created, deleted, …) is state.ErrConflict.
func (c *Cluster) hold(ctx context.Context, project, name, action string) (*held, error) {
	release, err := c.locks.acquire(ctx, "instance "+node.HostName(project, name), action)
	if err != nil {
		return nil, err
	}
	inst, err := c.Instance(ctx, project, name)
	if err == nil && inst.Busy != "" {
		err = errBusy(inst)
	}
	var expanded node.Instance
	if err == nil {
		expanded, err = nodeInstance(c.store.View(), inst)
	}
	if err != nil {
		release()
		return nil, err
	}
	return &held{Instance: inst, node: expanded, release: release}, nil
}

func errBusy(inst *state.Instance) error {
	return state.Errorf(state.ErrConflict, "instance %q is busy: %s is under way; wait until it has ended", inst.Name, inst.Busy)
}

// record notes what the node did to an instance: its status, the volatile keys,
// and the event to make of it.
func (c *Cluster) record(ctx context.Context, inst *state.Instance, status state.Status, volatile state.Config, event string) error {
	command := store.SetInstanceState{Project: inst.Project, Name: inst.Name, Status: status, Set: state.Config{}}
	for key, value := range volatile {
		if value == "" {
			command.Unset = append(command.Unset, key)
		} else {
			command.Set[key] = value
		}
	}
	if status == state.StatusRunning && event == "instance-started" {
		command.LastUsedAt = time.Now().UTC()
	}
	command.Hint = store.Hint{Action: event}
	if event == "" {
		command.Hint.Action = store.NoEvent
	}
	return c.finish(ctx, command)
}

// Usage tells how an instance is and what it uses. It is asked of the member
// that hosts it.
func (c *Cluster) Usage(ctx context.Context, project, name string) (node.Usage, error) {
	inst, err := c.Instance(ctx, project, name)
	if err != nil {
		return node.Usage{}, err
	}
	expanded, err := nodeInstance(c.store.View(), inst)
	if err != nil {
		return node.Usage{}, err
	}
	return c.node.Usage(ctx, expanded)
}

// defaultStopTimeout is how long a clean stop may take when nobody says.
const defaultStopTimeout = 30 * time.Second

// StateChange asks for another state of an instance.
type StateChange struct {
	// Action is start, stop, restart, freeze or unfreeze.
	Action string
	// Timeout bounds a clean stop; negative waits as long as it takes.
	Timeout  time.Duration
	Force    bool
	Stateful bool
}

var changeWords = map[string]string{
	"start": "Starting instance", "stop": "Stopping instance", "restart": "Restarting instance",
	"freeze": "Freezing instance", "unfreeze": "Unfreezing instance",
}

// check refuses a change that can never be.
func (s StateChange) check() error {
	if changeWords[s.Action] == "" {
		return state.Errorf(state.ErrInvalid, "action %q: want start, stop, restart, freeze or unfreeze", s.Action)
	}
	if s.Stateful {
		return state.Errorf(state.ErrInvalid, "stateful: keeping the memory of a container is not supported; leave it out")
	}
	return nil
}

// possible refuses a change of an instance that is as wanted already, or in no
// state to be changed so.
func (s StateChange) possible(inst *state.Instance) error {
	switch {
	case s.Action == "start" && inst.Status == state.StatusRunning:
		return state.Errorf(state.ErrInvalid, "instance %q is already running", inst.Name)
	case s.Action == "stop" && inst.Status == state.StatusStopped:
		return state.Errorf(state.ErrInvalid, "instance %q is already stopped", inst.Name)
	case (s.Action == "restart" || s.Action == "freeze") && inst.Status == state.StatusStopped:
		return state.Errorf(state.ErrInvalid, "instance %q is not running: start it first", inst.Name)
	case s.Action == "freeze" && inst.Status == state.StatusFrozen:
		return state.Errorf(state.ErrInvalid, "instance %q is already frozen", inst.Name)
	case s.Action == "unfreeze" && inst.Status != state.StatusFrozen:
		return state.Errorf(state.ErrInvalid, "instance %q is not frozen", inst.Name)
	}
	return nil
}

// ChangeState starts, stops, restarts, freezes or unfreezes an instance in the
// background. What is impossible now is said at once.
func (c *Cluster) ChangeState(ctx context.Context, project, name string, change StateChange) (OperationInfo, error) {
	if err := change.check(); err != nil {
		return OperationInfo{}, err
	}
	inst, err := c.Instance(ctx, project, name)
	if err != nil {
		return OperationInfo{}, err
	}
	if inst.Busy != "" {
		return OperationInfo{}, errBusy(inst)
	}
	if err := change.possible(inst); err != nil {
		return OperationInfo{}, err
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: changeWords[change.Action], Project: project, Resources: instanceResources(project, name),
	}, func(ctx context.Context, op *Operation) error {
		err := c.changeState(ctx, project, name, change)
		if err == nil && (change.Action == "start" || change.Action == "restart") {
			c.warn(ctx, op, project, name)
		}
		return err
	})
}

// warn shows, in the metadata of an operation that has worked on an instance, what of its
// configuration this member leaves out.
func (c *Cluster) warn(ctx context.Context, op *Operation, project, name string) {
	inst, err := c.store.View().Instance(project, name)
	if err != nil {
		return // an ephemeral one that is gone again
	}
	expanded, err := nodeInstance(c.store.View(), inst)
	if err != nil {
		return
	}
	warnings := c.node.Warnings(ctx, expanded)
	if len(warnings) == 0 {
		return
	}
	op.UpdateMetadata(map[string]any{"warnings": warnings})
	for _, warning := range warnings {
		c.log.Warn("an instance does not get all that it is to have", "instance", name, "warning", warning)
	}
}

// ChangeAllStates does it to every instance of a project that is not in that
// state yet, and fails naming those that could not be changed.
func (c *Cluster) ChangeAllStates(ctx context.Context, project string, change StateChange) (OperationInfo, error) {
	if err := change.check(); err != nil {
		return OperationInfo{}, err
	}
	var names []string
	elsewhere := map[string]string{}
	for _, inst := range c.store.View().Instances(project) {
		if inst.Busy == "" && applies(change.Action, inst.Status) {
			names = append(names, inst.Name)
			if inst.Location != c.Self() {
				elsewhere[inst.Name] = inst.Location
			}
		}
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: changeWords[change.Action] + "s", Project: project, Resources: instanceResources(project, names...),
	}, func(ctx context.Context, _ *Operation) error {
		return forAll(ctx, names, func(ctx context.Context, name string) error {
			if member := elsewhere[name]; member != "" {
				return c.cfg.Remote.Request(ctx, member, "PUT", resource(project, "instances", name, "state"), map[string]any{
					"action": change.Action, "timeout": int(change.Timeout / time.Second), "force": change.Force,
				}, nil)
			}
			return c.changeState(ctx, project, name, change)
		})
	})
}

func applies(action string, status state.Status) bool {
	switch action {
	case "start":
		return status != state.StatusRunning
	case "unfreeze":
		return status == state.StatusFrozen
	case "freeze":
		return status == state.StatusRunning
	}
	return status != state.StatusStopped
}

func (c *Cluster) changeState(ctx context.Context, project, name string, change StateChange) error {
	inst, err := c.hold(ctx, project, name, change.Action)
	if err != nil {
		return err
	}
	defer inst.release()
	if err := change.possible(inst.Instance); err != nil {
		return err
	}
	how := runtime.Stop{Force: change.Force, Timeout: change.Timeout}
	if how.Timeout < 0 {
		how.Timeout = 0
	} else if how.Timeout == 0 {
		how.Timeout = defaultStopTimeout
	}
	switch change.Action {
	case "start":
		return c.start(ctx, inst)
	case "stop":
		return c.stop(ctx, inst, how)
	case "restart":
		return c.restart(ctx, inst, how)
	case "freeze":
		return c.freeze(ctx, inst)
	default:
		return c.unfreeze(ctx, inst)
	}
}

func (c *Cluster) start(ctx context.Context, inst *held) error {
	if inst.Status == state.StatusFrozen {
		return c.unfreeze(ctx, inst)
	}
	if err := mayStart(c.store.View(), inst.Instance, inst.node); err != nil {
		return err
	}
	started, err := c.closing.starting()
	if err != nil {
		return err
	}
	volatile, err := c.node.Start(ctx, inst.node)
	started()
	if err != nil {
		return err
	}
	return c.record(ctx, inst.Instance, state.StatusRunning, volatile, "instance-started")
}

func (c *Cluster) stop(ctx context.Context, inst *held, how runtime.Stop) error {
	volatile, err := c.node.Stop(ctx, inst.node, how)
	if err != nil {
		return err
	}
	event := "instance-shutdown"
	if how.Force {
		event = "instance-stopped"
	}
	if err := c.record(ctx, inst.Instance, state.StatusStopped, volatile, event); err != nil {
		return err
	}
	return c.deleteIfEphemeral(ctx, inst)
}

func (c *Cluster) restart(ctx context.Context, inst *held, how runtime.Stop) error {
	ended, err := c.node.Stop(ctx, inst.node, how)
	if err != nil {
		return err
	}
	// Not while it stops, which may take as long as it likes: who shuts the member down
	// waits for what is starting.
	started, err := c.closing.starting()
	if err != nil {
		return errors.Join(err, c.recordShutdown(ctx, inst, ended))
	}
	volatile, err := c.node.StartAgain(ctx, inst.node, ended)
	started()
	if err != nil {
		// It stopped and did not come back.
		if err := c.record(ctx, inst.Instance, state.StatusStopped, ended, "instance-stopped"); err != nil {
			c.log.Error("record that an instance stopped", "instance", inst.Name, "error", err)
		}
		return err
	}
	return c.record(ctx, inst.Instance, state.StatusRunning, volatile, "instance-restarted")
}

func (c *Cluster) freeze(ctx context.Context, inst *held) error {
	if err := c.node.Freeze(ctx, inst.node); err != nil {
		return err
	}
	return c.record(ctx, inst.Instance, state.StatusFrozen, nil, "instance-paused")
}

func (c *Cluster) unfreeze(ctx context.Context, inst *held) error {
	if err := c.node.Unfreeze(ctx, inst.node); err != nil {
		return err
	}
	return c.record(ctx, inst.Instance, state.StatusRunning, nil, "instance-resumed")
}
