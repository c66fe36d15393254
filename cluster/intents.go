package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"muster/node"
	"muster/state"
	"muster/state/store"
)

// carrying holds the intents of this member that a goroutine of this daemon works on.
// Every other open intent of this member was left behind: by a daemon that ended, by a
// command whose outcome stayed unknown, or by an older copy of the database that was put
// back. tendIntents finishes those.
type carrying struct {
	mu sync.Mutex
	// by has the intents that a goroutine works on, by their IDs. Guarded by mu.
	by map[string]bool
	// failed counts how often finishing an intent failed. Guarded by mu.
	failed map[string]failure
	// left gets a value when a goroutine stops working on an intent.
	left chan struct{}
}

type failure struct {
	times int
	// again is when to try again.
	again time.Time
}

// carry notes that the caller works on the intent until it calls done, which may be called
// twice. It must be called before the intent is recorded.
func (c *Cluster) carry(intent string) (done func()) {
	c.carrying.mu.Lock()
	defer c.carrying.mu.Unlock()
	c.carrying.by[intent] = true
	return sync.OnceFunc(func() {
		c.carrying.mu.Lock()
		defer c.carrying.mu.Unlock()
		delete(c.carrying.by, intent)
		select {
		case c.carrying.left <- struct{}{}:
		default: // tendIntents is going to look already
		}
	})
}

// claimIntent is carry for an intent that is open and that nobody here works on.
func (c *Cluster) claimIntent(intent string) (done func(), claimed bool) {
	c.carrying.mu.Lock()
	defer c.carrying.mu.Unlock()
	if c.carrying.by[intent] || time.Now().Before(c.carrying.failed[intent].again) {
		return nil, false
	}
	c.carrying.by[intent] = true
	return func() {
		c.carrying.mu.Lock()
		defer c.carrying.mu.Unlock()
		delete(c.carrying.by, intent)
	}, true
}

const (
	// intentsEvery is how often a member looks for intents that nobody works on.
	intentsEvery = time.Second
	// intentTries is how often finishing an intent is tried. After that its subject is
	// freed as it is: users can look at it, and delete it.
	intentTries = 3
	// intentTime bounds one try.
	intentTime = 10 * time.Minute
)

// tendIntents finishes, until ctx ends, what is recorded as under way on this member and
// that nobody works on.
func (c *Cluster) tendIntents(ctx context.Context) error {
	ticker := time.NewTicker(intentsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.carrying.left:
		case <-ticker.C:
		}
		c.finishIntents(ctx)
	}
}

// finishIntents finishes each intent of this member that nobody works on, or notes when
// to try again.
func (c *Cluster) finishIntents(ctx context.Context) {
	for _, intent := range c.store.View().Intents(c.Self()) {
		done, claimed := c.claimIntent(intent.ID)
		if !claimed {
			continue
		}
		c.finishIntent(ctx, intent)
		done()
	}
}

func (c *Cluster) finishIntent(ctx context.Context, intent *state.Intent) {
	if intent.Subject == store.SubjectLeftover {
		if err := c.resumeLeftover(ctx, intent); err != nil && ctx.Err() == nil {
			c.postpone(intent.ID, "")
			c.log.Error("remove what a move left here", "instance", intent.Name, "error", err)
		}
		return
	}
	log := c.log.With("kind", intent.Kind, "subject", intent.Subject, "name", intent.Name)
	// A command that names the intent by its old ID may still be on its way to the leader.
	// With the new ID the store refuses it, so it can't record what is taken back here.
	renewed := *intent
	renewed.ID = uuid.NewString()
	if err := c.apply(ctx, store.Renew{ID: intent.ID, NewID: renewed.ID}); err != nil {
		if !errors.Is(err, state.ErrNotFound) && ctx.Err() == nil {
			c.postpone(intent.ID, "")
			log.Warn("finish what was under way: try again later", "error", err)
		}
		return
	}
	done := c.carry(renewed.ID)
	defer done()
	log.Info("finishing what was under way")
	resuming, cancel := context.WithTimeout(ctx, intentTime)
	defer cancel()
	err := c.resume(resuming, &renewed)
	if ctx.Err() != nil {
		return // the next start finishes it
	}
	if err == nil {
		c.forgetFailure(intent.ID)
		return
	}
	if times := c.postpone(intent.ID, renewed.ID); times < intentTries && !errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUnavailable) {
		log.Warn("finish what was under way: try again later", "error", err)
		return
	}
	log.Error("what was under way can't be finished: it ends as it is", "error", err)
	c.forgetFailure(renewed.ID)
	c.end(ctx, renewed.ID)
}

// postpone notes that finishing an intent failed, and returns how often it has by now.
// next is the ID that it has from now on, empty when it was not even begun.
func (c *Cluster) postpone(intent, next string) int {
	c.carrying.mu.Lock()
	defer c.carrying.mu.Unlock()
	failed := c.carrying.failed[intent]
	delete(c.carrying.failed, intent)
	if next == "" {
		next = intent
		// It did not come to a try: without a leader, say.
		failed.again = time.Now().Add(10 * time.Second)
		c.carrying.failed[next] = failed
		return failed.times
	}
	failed.times++
	failed.again = time.Now().Add(time.Second << min(failed.times, 6))
	c.carrying.failed[next] = failed
	return failed.times
}

func (c *Cluster) forgetFailure(intent string) {
	c.carrying.mu.Lock()
	defer c.carrying.mu.Unlock()
	delete(c.carrying.failed, intent)
}

// begin records an intent of this member, with input for whoever has to finish it, before
// the first step of what it is about. The caller must call done when it stops working on
// it, whether the intent has ended or not; after an error done does nothing.
func (c *Cluster) begin(ctx context.Context, intent state.Intent, input any) (id string, done func(), err error) {
	intent.ID, intent.Input = uuid.NewString(), encodeInput(input)
	done = c.carry(intent.ID)
	if err := c.apply(ctx, store.Begin{Intent: intent}); err != nil {
		done()
		return "", func() {}, err
	}
	return intent.ID, done, nil
}

// beginInstance is begin for an instance that the caller holds.
func (c *Cluster) beginInstance(ctx context.Context, inst *held, kind string, input any) (id string, done func(), err error) {
	return c.begin(ctx, state.Intent{
		Member: inst.Location, Kind: kind, Project: inst.Project, Subject: store.SubjectInstance, Name: inst.Name,
	}, input)
}

// end closes an intent whose work was taken back.
func (c *Cluster) end(ctx context.Context, intent string) {
	if err := c.finish(ctx, store.End{ID: intent}); err != nil {
		c.log.Error("close an intent", "intent", intent, "error", err)
	}
}

// resume finishes or takes back a change that nobody works on any more.
func (c *Cluster) resume(ctx context.Context, intent *state.Intent) error {
	switch intent.Subject {
	case store.SubjectInstance:
		return c.resumeInstance(ctx, intent)
	case store.SubjectSnapshot:
		return c.resumeSnapshot(ctx, intent)
	case store.SubjectNetwork:
		return c.resumeNetwork(ctx, intent)
	}
	return c.apply(ctx, store.End{ID: intent.ID})
}

func (c *Cluster) resumeInstance(ctx context.Context, intent *state.Intent) error {
	release, err := c.locks.acquire(ctx, "instance "+node.HostName(intent.Project, intent.Name), intent.Kind)
	if err != nil {
		return err
	}
	defer release()
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
		return c.resumeCreate(ctx, expanded, intent)
	case "delete":
		if err := c.node.Delete(ctx, expanded); err != nil {
			return err
		}
		return c.apply(ctx, store.DeleteInstance{Project: inst.Project, Name: inst.Name, IntentID: intent.ID})
	case "rename":
		return c.resumeRename(ctx, inst, expanded, intent)
	case "restore":
		return c.resumeRestore(ctx, inst, expanded, intent)
	case kindMove:
		return c.resumeMove(ctx, inst, intent)
	}
	return c.apply(ctx, store.End{ID: intent.ID})
}

// resumeCreate takes a creation back, unless the instance has been started since: then it
// was complete, and an older copy of the database was put back that does not know so.
func (c *Cluster) resumeCreate(ctx context.Context, inst node.Instance, intent *state.Intent) error {
	status, err := c.node.Status(ctx, inst)
	if err != nil {
		return err
	}
	used, err := c.node.Used(inst)
	if err != nil {
		return err
	}
	if status == state.StatusStopped && !used {
		return c.undoCreate(ctx, inst, intent.ID)
	}
	return c.apply(ctx, store.FinishCreate{
		Project: inst.Project, Name: inst.Name, IntentID: intent.ID, Status: status, Hint: store.Hint{Action: store.NoEvent},
	})
}

func (c *Cluster) resumeRename(ctx context.Context, inst *state.Instance, expanded node.Instance, intent *state.Intent) error {
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
		// Nothing has been restored yet: the instance stops first.
		return c.apply(ctx, store.End{ID: intent.ID})
	}
	if err := c.node.Restore(ctx, expanded, input.Snapshot); err != nil {
		return err
	}
	missing, err := c.recordRestore(ctx, inst, snapshot, intent.ID)
	if err != nil {
		return err
	}
	for _, what := range missing {
		c.log.Warn("restored without all it had", "instance", inst.Name, "snapshot", snapshot.Name, "missing", what)
	}
	return nil
}

func (c *Cluster) resumeSnapshot(ctx context.Context, intent *state.Intent) error {
	instance, name, _ := cutLast(intent.Name, "/")
	release, err := c.locks.acquire(ctx, "instance "+node.HostName(intent.Project, instance), intent.Kind+" of a snapshot")
	if err != nil {
		return err
	}
	defer release()
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
