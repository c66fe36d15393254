package cluster

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"muster/node/runtime"
	"muster/scheduler"
	"muster/state"
	"muster/state/store"
)

// kindMove is the intent of an instance that goes to another member.
const kindMove = "move"

// moveInput is what the intent of a move keeps.
type moveInput struct {
	Target string `json:"target"`
	// Ran says that the instance ran when the move began.
	Ran bool `json:"ran"`
}

// moveTime bounds a move.
const moveTime = 12 * time.Hour

// tellTime bounds a word to another member at the end of a move.
const tellTime = 2 * time.Minute

// MoveInstance brings an instance of this member to another one in the background:
// target is the member's name, or "@" and a group. One that runs is stopped for as long
// as it takes to send what changed while the most of it was sent, and started there.
// Until it has arrived whole the instance is here, and stays whatever happens. newName,
// when not empty, is the name it has then.
func (c *Cluster) MoveInstance(ctx context.Context, project, name, target, newName string) (OperationInfo, error) {
	if !c.Clustered() {
		return OperationInfo{}, errAlone()
	}
	if newName == name {
		newName = ""
	}
	if newName != "" {
		if err := state.ValidateInstanceName(newName); err != nil {
			return OperationInfo{}, err
		}
		if err := c.mustBeFree(ctx, project, newName); err != nil {
			return OperationInfo{}, err
		}
	}
	inst, err := c.Instance(ctx, project, name)
	if err != nil {
		return OperationInfo{}, err
	}
	if inst.Busy != "" {
		return OperationInfo{}, errBusy(inst)
	}
	if err := c.targetExists(ctx, target); err != nil {
		return OperationInfo{}, err
	}
	to, err := c.placeMove(c.store.View(), inst, target)
	if err != nil {
		return OperationInfo{}, err
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: "Migrating instance", Project: project, Resources: instanceResources(project, name),
		Metadata: map[string]any{"target": to},
	}, func(ctx context.Context, op *Operation) error {
		return c.move(ctx, project, name, to, newName, op)
	})
}

// placeMove chooses where an instance goes.
func (c *Cluster) placeMove(view *store.View, inst *state.Instance, target string) (string, error) {
	config, devices, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
	if err != nil {
		return "", err
	}
	request, err := requestFor(config, devices)
	if err != nil {
		return "", err
	}
	request.Project, request.Name, request.Target = inst.Project, inst.Name, target
	request.Architecture, request.Image, request.Seed = inst.Architecture, config["volatile.base_image"], rand.Uint64()
	if target == inst.Location {
		return "", state.Errorf(state.ErrInvalid, "instance %q is on member %q already", inst.Name, target)
	}
	c.placing.mu.Lock()
	defer c.placing.mu.Unlock()
	snapshot := c.snapshot()
	snapshot.Instances = slices.DeleteFunc(snapshot.Instances, func(i scheduler.Instance) bool {
		return i.Project == inst.Project && i.Name == inst.Name
	})
	snapshot.Members = slices.DeleteFunc(snapshot.Members, func(m scheduler.Member) bool { return m.Name == inst.Location })
	decision, err := c.choose(request, snapshot)
	return decision.Member, err
}

// move carries a move out. Whatever fails before the instance is recorded as being
// there, it is here as it was.
func (c *Cluster) move(ctx context.Context, project, name, to, newName string, op *Operation) error {
	ctx, cancel := context.WithTimeout(ctx, moveTime)
	defer cancel()
	held, err := c.hold(ctx, project, name, "move")
	if err != nil {
		return err
	}
	ran := held.Status != state.StatusStopped
	intent, done, err := c.beginInstance(ctx, held, kindMove, moveInput{Target: to, Ran: ran})
	// From here on the intent keeps others off; what the instance does by itself is
	// still recorded.
	held.release()
	if err != nil {
		return err
	}
	defer done()
	left, err := c.handOver(ctx, held, intent, to, ran, op)
	if err != nil {
		c.stayHere(ctx, held, intent, to, ran)
		return err
	}
	// It is there now; nothing that fails from here on brings it back.
	ctx = context.WithoutCancel(ctx)
	failed := c.goOnThere(ctx, held, to, newName, ran)
	if err := c.dropLeftover(ctx, left); err != nil {
		c.log.Error("remove what a moved instance left", "instance", name, "error", err)
	}
	return failed
}

// handOver sends an instance and records that it is there. It returns the intent to
// remove what is left here.
func (c *Cluster) handOver(ctx context.Context, inst *held, intent, to string, ran bool, op *Operation) (*state.Intent, error) {
	stage := func(text string) { op.UpdateMetadata(map[string]any{"move_progress": text}) }
	if ran {
		stage("sending while it runs")
		if err := c.receiveThere(ctx, inst, to, false); err != nil {
			return nil, err
		}
		stage("stopping")
		if err := c.stopToMove(ctx, inst); err != nil {
			return nil, err
		}
	}
	stage("sending")
	if err := c.receiveThere(ctx, inst, to, true); err != nil {
		return nil, err
	}
	there, err := c.store.View().Member(to)
	if err != nil {
		return nil, err
	}
	left, err := leftoverOf(leftoverID(inst.Instance, c.cfg.MemberID), c.Self(), inst.node)
	if err != nil {
		return nil, err
	}
	stage("switching")
	return &left, c.finish(ctx, store.MoveInstance{
		Project: inst.Project, Name: inst.Name, Location: to, IntentID: intent,
		ArrivedID: leftoverID(inst.Instance, there.ID), Left: &left,
	})
}

// goOnThere gives an instance that has arrived its new name, and starts it if it ran.
func (c *Cluster) goOnThere(ctx context.Context, inst *held, to, newName string, ran bool) error {
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	name := inst.Name
	if newName != "" {
		err := c.cfg.Remote.Request(ctx, to, "POST", resource(inst.Project, "instances", name), map[string]any{"name": newName}, nil)
		if err != nil {
			c.log.Error("rename an instance that was moved", "instance", name, "member", to, "error", err)
			return state.Errorf(state.ErrUnavailable, "instance %q was moved to member %q and can't be renamed there: %w", name, to, err)
		}
		name = newName
	}
	if !ran {
		return nil
	}
	err := c.cfg.Remote.Request(ctx, to, "PUT", resource(inst.Project, "instances", name, "state"), map[string]any{"action": "start"}, nil)
	if err != nil {
		c.log.Error("start an instance that was moved", "instance", name, "member", to, "error", err)
		return state.Errorf(state.ErrUnavailable, "instance %q was moved to member %q and does not start there: %w", name, to, err)
	}
	return nil
}

// receiveThere lets the target get what it lacks; with last that is all there is.
func (c *Cluster) receiveThere(ctx context.Context, inst *held, to string, last bool) error {
	path := resource(inst.Project, "instances", inst.Name, "receive")
	return c.cfg.Remote.Request(ctx, to, "POST", internalPath(path), map[string]any{"last": last}, nil)
}

// internalPath is the path between members of what has a public one.
func internalPath(path string) string { return "/internal" + path[len("/1.0"):] }

// stopToMove stops an instance, cleanly if it does so in time. What is recorded lets it
// start again with the daemon should this one end now.
func (c *Cluster) stopToMove(ctx context.Context, inst *held) error {
	release, err := c.locks.acquire(ctx, "instance "+inst.node.HostName(), "stop")
	if err != nil {
		return err
	}
	defer release()
	volatile, err := c.node.Stop(ctx, inst.node, runtime.Stop{Timeout: defaultStopTimeout})
	if err != nil {
		c.log.Warn("an instance that moves does not shut down in time and is killed", "instance", inst.Name, "error", err)
		if volatile, err = c.node.Stop(ctx, inst.node, forced); err != nil {
			return err
		}
	}
	volatile["volatile.last_state.power"] = "RUNNING"
	return c.record(ctx, inst.Instance, state.StatusStopped, volatile, "")
}

// stayHere takes a move back: what arrived there is removed, and what ran runs again.
func (c *Cluster) stayHere(ctx context.Context, inst *held, intent, to string, ran bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTime)
	defer cancel()
	now, err := c.Instance(ctx, inst.Project, inst.Name)
	if err == nil && now.Location != c.Self() {
		return // the record was made after all
	}
	c.dropArrivalThere(ctx, inst.Project, inst.Name, to)
	c.end(ctx, intent)
	if !ran {
		return
	}
	err = c.changeState(ctx, inst.Project, inst.Name, StateChange{Action: "start"})
	if now, look := c.store.View().Instance(inst.Project, inst.Name); look == nil && now.Status != state.StatusStopped {
		return // somebody else has started it
	}
	if err != nil {
		c.log.Error("start an instance that stays here", "instance", inst.Name, "error", err)
	}
}

func (c *Cluster) dropArrivalThere(ctx context.Context, project, name, to string) {
	path := internalPath(resource(project, "instances", name, "arrival"))
	telling, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := c.cfg.Remote.Request(telling, to, "DELETE", path, nil, nil); err != nil {
		// It removes it by itself when it starts next.
		c.log.Warn("tell a member that an instance does not come", "instance", name, "member", to, "error", err)
	}
}

// resumeMove takes back a move that the end of the daemon cut off. What ran starts again
// with the other instances.
func (c *Cluster) resumeMove(ctx context.Context, inst *state.Instance, intent *state.Intent) error {
	input, err := decodeInput[moveInput](intent)
	if err != nil {
		return err
	}
	c.dropArrivalThere(ctx, inst.Project, inst.Name, input.Target)
	return c.apply(ctx, store.End{ID: intent.ID})
}
