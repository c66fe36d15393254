package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"time"

	"github.com/google/uuid"

	"muster/node"
	"muster/state"
	"muster/state/store"
)

// A root file system goes from one member to another by streams that the receiver pulls:
// it tells what it has, and gets what that lacks. A stream that is cut leaves the source
// as it is, and the next one goes on where it was.

const (
	// pullTries is how often a stream is taken up again.
	pullTries = 10
	// pullPause is the wait before the second try; it doubles.
	pullPause = 200 * time.Millisecond
)

// SendSpec says what is sent of an instance.
type SendSpec struct {
	// Snapshots go along, the oldest first.
	Snapshots []string
	// Hold keeps the instance from changing while it is sent, frozen if it runs. Without
	// it somebody else sees to that, or sends again later.
	Hold bool
}

// SendInstance writes the root file system of an instance of this member to w: what the
// member with this inventory lacks.
func (c *Cluster) SendInstance(ctx context.Context, project, name string, spec SendSpec, inventory io.Reader, w io.Writer) error {
	inst, err := c.Instance(ctx, project, name)
	if err != nil {
		return err
	}
	if inst.Location != c.Self() {
		return state.Errorf(state.ErrConflict, "instance %q is on member %q", name, inst.Location)
	}
	expanded, err := nodeInstance(c.store.View(), inst)
	if err != nil {
		return err
	}
	if spec.Hold {
		release, err := c.locks.acquire(ctx, "instance "+expanded.HostName(), "send")
		if err != nil {
			return err
		}
		defer release()
		if status, err := c.node.Status(ctx, expanded); err != nil {
			return err
		} else if status == state.StatusRunning {
			if err := c.node.Freeze(ctx, expanded); err != nil {
				return err
			}
			defer func() {
				if err := c.node.Unfreeze(context.WithoutCancel(ctx), expanded); err != nil {
					c.log.Error("unfreeze an instance that was sent", "instance", name, "error", err)
				}
			}()
		}
	}
	stats, err := c.node.Send(ctx, expanded, spec.Snapshots, inventory, w)
	c.log.Info("sent a root file system", "instance", name, "files", stats.Files, "bytes", stats.Bytes, "removed", stats.Removed, "error", err)
	return err
}

// pull gets the root file system of here, an instance as it is to be on this member,
// from an instance of another.
func (c *Cluster) pull(ctx context.Context, here node.Instance, member, project, name string, spec SendSpec) error {
	query := url.Values{"project": {project}, "snapshot": spec.Snapshots}
	if spec.Hold {
		query.Set("hold", "1")
	}
	path := "/internal/instances/" + url.PathEscape(name) + "/send?" + query.Encode()
	pause := pullPause
	for try := 1; ; try++ {
		err := c.pullOnce(ctx, here, member, path)
		kind := state.Kind(err)
		if err == nil || try == pullTries || kind != nil && !errors.Is(kind, state.ErrUnavailable) {
			return err
		}
		if !c.onlineByName(c.store.View(), member) {
			return state.Errorf(state.ErrUnavailable, "member %q went offline while it sent: %w", member, err)
		}
		c.log.Warn("a stream broke off and is taken up again", "instance", name, "member", member, "error", err)
		select {
		case <-time.After(pause):
			pause = min(2*pause, 5*time.Second)
		case <-ctx.Done():
			return state.Errorf(state.ErrUnavailable, "gave up receiving: %w", errors.Join(ctx.Err(), err))
		}
	}
}

func (c *Cluster) pullOnce(ctx context.Context, here node.Instance, member, path string) error {
	var inventory bytes.Buffer
	if err := c.node.Inventory(ctx, here, &inventory); err != nil {
		return err
	}
	body, err := c.cfg.Remote.Exchange(ctx, member, path, &inventory)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = c.node.Receive(ctx, here, body)
	return err
}

// copyFromElsewhere makes the root file system of a copy whose source is on another
// member, and returns the volatile keys to record.
func (c *Cluster) copyFromElsewhere(ctx context.Context, plan *createPlan) (state.Config, error) {
	source := plan.source.Copy
	spec := SendSpec{Snapshots: source.Snapshots, Hold: true}
	if source.Snapshot != "" {
		spec.Snapshots, spec.Hold = []string{source.Snapshot}, false
	} else if plan.fromRuns {
		// Most of it goes while it runs, so that it is held for a moment only.
		moving := spec
		moving.Hold = false
		if err := c.pull(ctx, plan.node, plan.from, source.From.Project, source.From.Name, moving); err != nil {
			return nil, err
		}
	}
	if err := c.pull(ctx, plan.node, plan.from, source.From.Project, source.From.Name, spec); err != nil {
		return nil, err
	}
	volatile, err := c.node.Copied(ctx, plan.node)
	if err != nil || source.Snapshot == "" {
		return volatile, err
	}
	if err := c.node.Restore(ctx, plan.node, source.Snapshot); err != nil {
		return nil, err
	}
	return volatile, c.node.DeleteSnapshot(ctx, plan.node, source.Snapshot)
}

// onMember is the instance for the node of the member, whoever hosts it now.
func onMember(view *store.View, inst *state.Instance, member string) (node.Instance, error) {
	there := *inst
	there.Memo = nil
	there.Location = member
	return nodeInstance(view, &there)
}

// ReceiveInstance gets the root file system of an instance that is moving to this member
// from where it is now. With last it becomes the instance's.
func (c *Cluster) ReceiveInstance(ctx context.Context, project, name string, last bool) error {
	inst, here, err := c.moving(ctx, project, name)
	if err != nil {
		return err
	}
	release, err := c.locks.acquire(ctx, "arrival of "+here.HostName(), "receive")
	if err != nil {
		return err
	}
	defer release()
	if err := c.noteLeftover(ctx, inst, here); err != nil {
		return err
	}
	names := snapshotNames(c.store.View().Snapshots(project, name))
	if err := c.pull(ctx, here, inst.Location, project, name, SendSpec{Snapshots: names}); err != nil || !last {
		return err
	}
	return c.node.Arrived(ctx, here)
}

// moving is an instance that another member is about to give to this one.
func (c *Cluster) moving(ctx context.Context, project, name string) (*state.Instance, node.Instance, error) {
	if err := c.store.Barrier(ctx); err != nil {
		return nil, node.Instance{}, err
	}
	inst, err := c.store.View().Instance(project, name)
	if err != nil {
		return nil, node.Instance{}, err
	}
	if inst.Location == c.Self() || inst.Busy != kindMove {
		return nil, node.Instance{}, state.Errorf(state.ErrConflict, "instance %q is not on its way to member %q", name, c.Self())
	}
	here, err := onMember(c.store.View(), inst, c.Self())
	return inst, here, err
}

// leftoverInput is what an intent keeps of what an instance may have on a member that it
// is not on.
type leftoverInput struct {
	Instance string `json:"instance"`
	Pool     string `json:"pool"`
}

// leftoverOf is an intent of the member to remove what it has of the instance.
func leftoverOf(id, member string, inst node.Instance) (state.Intent, error) {
	pool, err := inst.Pool()
	return state.Intent{
		ID: id, Member: member, Kind: "delete", Project: inst.Project, Subject: store.SubjectLeftover,
		Name: inst.Name + "/" + member, Input: encodeInput(leftoverInput{Instance: inst.Name, Pool: pool}),
	}, err
}

// leftoverID is the intent of a member for what it has of a moving instance: both ends
// know it without telling each other.
func leftoverID(inst *state.Instance, member string) string {
	return fmt.Sprintf("leftover-%d-%s", inst.ID, member)
}

// noteLeftover writes down, before anything arrives, that it is to be removed unless the
// instance does.
func (c *Cluster) noteLeftover(ctx context.Context, inst *state.Instance, here node.Instance) error {
	id := leftoverID(inst, c.cfg.MemberID)
	if _, err := c.store.View().IntentByID(id); err == nil {
		return nil
	}
	intent, err := leftoverOf(id, c.Self(), here)
	if err != nil {
		return err
	}
	return c.apply(ctx, store.Begin{Intent: intent})
}

// DropArrival removes what has arrived here of an instance that stays where it is.
func (c *Cluster) DropArrival(ctx context.Context, project, name string) error {
	if err := c.store.Barrier(ctx); err != nil {
		return err
	}
	view := c.store.View()
	inst, err := view.Instance(project, name)
	if err != nil {
		return err
	}
	intent, err := view.IntentByID(leftoverID(inst, c.cfg.MemberID))
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.dropLeftover(ctx, intent)
}

// dropLeftover removes what this member has of an instance that is on another.
func (c *Cluster) dropLeftover(ctx context.Context, intent *state.Intent) error {
	input, err := decodeInput[leftoverInput](intent)
	if err != nil {
		return err
	}
	left := node.Instance{
		Project: intent.Project, Name: input.Instance, Config: state.Config{},
		Devices: state.Devices{"root": {"type": "disk", "path": "/", "pool": input.Pool}},
	}
	release, err := c.locks.acquire(ctx, "arrival of "+left.HostName(), "remove")
	if err != nil {
		return err
	}
	defer release()
	if err := c.node.CheckRoot(ctx, left); err != nil {
		return err // before anything is written: it is tried again and again
	}
	// A move back to this member ends the intent by the ID that both ends know. From the
	// renewal on it is refused, so that what is removed here can't become the instance's.
	renewed := uuid.NewString()
	if err := c.apply(ctx, store.Renew{ID: intent.ID, NewID: renewed}); errors.Is(err, state.ErrNotFound) {
		return nil // it came after all, or somebody else removes it
	} else if err != nil {
		return err
	}
	if inst, err := c.store.View().Instance(intent.Project, input.Instance); err == nil && inst.Location == c.Self() {
		return c.apply(ctx, store.End{ID: renewed}) // another of its name was made here
	}
	if err := c.node.Delete(ctx, left); err != nil {
		return err
	}
	return c.apply(ctx, store.End{ID: renewed})
}

// claim makes way for an instance of that name on this member: what a move left of
// another one is removed first, and nothing is removed under that name until release is
// called. By then the instance is recorded. ErrExists is said at once when there is one of
// that name: it may be on its way here, and hold the name for long.
func (c *Cluster) claim(ctx context.Context, project, name string) (release func(), err error) {
	if err := c.mustBeFree(ctx, project, name); err != nil {
		return nil, err
	}
	for _, intent := range c.store.View().Intents(c.Self()) {
		if intent.Subject != store.SubjectLeftover || intent.Project != project || intent.Name != name+"/"+c.Self() {
			continue
		}
		if err := c.resumeLeftover(ctx, intent); err != nil {
			return nil, fmt.Errorf("remove what an earlier instance %q left on this member: %w", name, err)
		}
	}
	return c.locks.acquire(ctx, "arrival of "+node.HostName(project, name), "claim")
}

// arriving are the instances on their way here, whose root file systems are kept when
// the daemon starts.
func (c *Cluster) arriving(view *store.View) []node.Instance {
	var found []node.Instance
	for _, intent := range view.Intents(c.Self()) {
		if intent.Subject != store.SubjectLeftover {
			continue
		}
		input, err := decodeInput[leftoverInput](intent)
		if err != nil {
			continue
		}
		inst, err := view.Instance(intent.Project, input.Instance)
		if err != nil || inst.Busy != kindMove || inst.Location == c.Self() {
			continue
		}
		if here, err := onMember(view, inst, c.Self()); err == nil {
			found = append(found, here)
		}
	}
	return found
}

// resumeLeftover removes what is left of an instance, unless it is still on its way.
func (c *Cluster) resumeLeftover(ctx context.Context, intent *state.Intent) error {
	expected := slices.ContainsFunc(c.arriving(c.store.View()), func(inst node.Instance) bool {
		return inst.Project == intent.Project && inst.Name+"/"+c.Self() == intent.Name
	})
	if expected {
		return nil
	}
	return c.dropLeftover(ctx, intent)
}
