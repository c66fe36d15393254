package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"muster/node"

	"muster/state"
	"muster/state/store"
)

// DeleteInstance removes a stopped instance with its snapshots in the background.
func (c *Cluster) DeleteInstance(ctx context.Context, project, name string) (OperationInfo, error) {
	inst, err := c.Instance(ctx, project, name)
	if err != nil {
		return OperationInfo{}, err
	}
	if inst.Busy != "" {
		return OperationInfo{}, errBusy(inst)
	}
	if inst.Status != state.StatusStopped {
		return OperationInfo{}, state.Errorf(state.ErrInvalid, "Instance is running: stop %q first", name)
	}
	config, _, err := expand(c.store.View(), project, inst.Profiles, inst.Config, inst.Devices)
	if err != nil {
		return OperationInfo{}, err
	}
	if protected, _ := state.ParseBool(config["security.protection.delete"]); protected {
		return OperationInfo{}, state.Errorf(state.ErrForbidden, "instance %q is protected: set security.protection.delete to false first", name)
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: "Deleting instance", Project: project, Resources: instanceResources(project, name),
	}, func(ctx context.Context, _ *Operation) error {
		inst, err := c.hold(ctx, project, name, "delete")
		if err != nil {
			return err
		}
		defer inst.release()
		if inst.Status != state.StatusStopped {
			return state.Errorf(state.ErrConflict, "instance %q was started meanwhile: stop it first", name)
		}
		return c.delete(ctx, inst)
	})
}

// delete removes an instance that the caller holds. Once begun it is carried
// through, now or when the daemon starts next.
func (c *Cluster) delete(ctx context.Context, inst *held) error {
	intent, done, err := c.beginInstance(ctx, inst, "delete", nil)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
	defer cancel()
	if err := c.node.Delete(ctx, inst.node); err != nil {
		c.end(ctx, intent)
		return err
	}
	return c.apply(ctx, store.DeleteInstance{Project: inst.Project, Name: inst.Name, IntentID: intent})
}

// deleteIfEphemeral removes an instance that was to live until it stops.
func (c *Cluster) deleteIfEphemeral(ctx context.Context, inst *held) error {
	if !inst.Ephemeral {
		return nil
	}
	if err := c.delete(ctx, inst); err != nil {
		return fmt.Errorf("delete the ephemeral instance: %w", err)
	}
	return nil
}

// renameInput is what the intent of a rename keeps.
type renameInput struct {
	NewName string `json:"new_name"`
}

// RenameInstance gives a stopped instance another name in the background.
func (c *Cluster) RenameInstance(ctx context.Context, project, name, newName string) (OperationInfo, error) {
	if err := state.ValidateInstanceName(newName); err != nil {
		return OperationInfo{}, err
	}
	inst, err := c.Instance(ctx, project, name)
	if err != nil {
		return OperationInfo{}, err
	}
	if inst.Busy != "" {
		return OperationInfo{}, errBusy(inst)
	}
	if inst.Status != state.StatusStopped {
		return OperationInfo{}, state.Errorf(state.ErrInvalid, "instance %q is running: stop it before renaming it", name)
	}
	if err := c.mustBeFree(ctx, project, newName); err != nil {
		return OperationInfo{}, err
	}
	return c.ops.Start(ctx, OperationSpec{
		Description: "Renaming instance", Project: project, Resources: instanceResources(project, name),
	}, func(ctx context.Context, _ *Operation) error {
		inst, err := c.hold(ctx, project, name, "rename")
		if err != nil {
			return err
		}
		defer inst.release()
		if inst.Status != state.StatusStopped {
			return state.Errorf(state.ErrConflict, "instance %q was started meanwhile: stop it first", name)
		}
		return c.rename(ctx, inst, newName)
	})
}

// rename changes the host first, under the lock of both names, and then the
// record; a crash between the two is made good at the next start, from the
// intent.
func (c *Cluster) rename(ctx context.Context, inst *held, newName string) error {
	unclaim, err := c.claim(ctx, inst.Project, newName)
	if err != nil {
		return err
	}
	defer unclaim()
	intent, done, err := c.beginInstance(ctx, inst, "rename", renameInput{NewName: newName})
	if err != nil {
		return err
	}
	defer done()
	release, err := c.locks.acquire(ctx, "instance "+node.HostName(inst.Project, newName), "rename")
	if err != nil {
		c.end(ctx, intent)
		return err
	}
	defer release()
	volatile, err := c.node.Rename(ctx, inst.node, newName)
	if err != nil {
		c.end(ctx, intent)
		return err
	}
	if err := c.finish(ctx, store.RenameInstance{Project: inst.Project, Name: inst.Name, NewName: newName, IntentID: intent}); err != nil {
		back := inst.node
		back.Name = newName
		if _, undo := c.node.Rename(context.WithoutCancel(ctx), back, inst.Name); undo != nil {
			c.log.Error("take back a rename", "instance", inst.Name, "error", undo)
			return err
		}
		c.end(ctx, intent)
		return err
	}
	renamed := *inst.Instance
	renamed.Name = newName
	return c.record(ctx, &renamed, "", volatile, "")
}

func decodeInput[T any](intent *state.Intent) (T, error) {
	var input T
	if err := json.Unmarshal([]byte(intent.Input), &input); err != nil {
		return input, fmt.Errorf("read the input of intent %s: %w", intent.ID, err)
	}
	return input, nil
}
