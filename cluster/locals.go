package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"muster/state"
	"muster/state/store"
)

// Pools and networks are made of a part on each member. What is recorded says what each
// part is to be, and every member sees to its own: so a member that was away, or joins,
// comes to have what the others have, and a crash in the middle is made good.

// localsEvery is how often a member tries again what failed.
const localsEvery = 15 * time.Second

// localWork bounds the work on one part.
const localWork = 10 * time.Minute

// part is this member's part of a pool or network.
type part struct {
	// subject names it in locks and errors, such as `storage pool "fast"`.
	subject string
	locals  state.Locals
	// config is what the part is to be like.
	config state.Config
	// make returns the configuration of the part to record.
	make func(ctx context.Context) (state.Config, error)
	// change makes the part like config, and brings it back if it is not there.
	change func(ctx context.Context) error
	// lost reports whether what was there is gone: somebody took it away.
	lost   func(ctx context.Context) bool
	remove func(ctx context.Context) error
	set    func(state.Local) store.Command
	drop   store.Command
}

// keeper remembers what this daemon has done to the parts.
type keeper struct {
	mu sync.Mutex
	// applied is the configuration of each part as the host has it. A part that is not
	// in it may have been left half-made by a crash, or was not there at the start.
	applied map[string]state.Config // guarded by mu
	// begun are the parts whose making this daemon began.
	begun map[string]bool // guarded by mu
}

func (k *keeper) has(subject string) (state.Config, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	config, found := k.applied[subject]
	return config, found
}

func (k *keeper) note(subject string, config state.Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.applied == nil {
		k.applied = map[string]state.Config{}
	}
	k.applied[subject] = config
}

// begin reports whether the making of the part is this daemon's first.
func (k *keeper) begin(subject string) (first bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.begun == nil {
		k.begun = map[string]bool{}
	}
	first = !k.begun[subject]
	k.begun[subject] = true
	return first
}

func (k *keeper) forget(subject string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.applied, subject)
	delete(k.begun, subject)
}

// parts are this member's parts of all pools and networks.
func (c *Cluster) parts(view *store.View) []part {
	var all []part
	for _, pool := range view.Pools() {
		all = append(all, c.poolPart(pool))
	}
	for _, network := range view.Networks("") {
		all = append(all, c.networkPart(network))
	}
	return all
}

// tendLocals makes, changes and removes this member's parts as it is recorded, until
// ctx ends.
func (c *Cluster) tendLocals(ctx context.Context) error {
	ticker := time.NewTicker(localsEvery)
	defer ticker.Stop()
	// One waiter stands for all revisions that come while a round is made.
	news := make(chan struct{}, 1)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	waiting.Go(func() {
		for {
			if err := c.store.WaitRevision(ctx, c.store.View().Revision()+1); err != nil {
				return
			}
			select {
			case news <- struct{}{}:
			default:
			}
		}
	})
	var seen state.Revision
	for again := true; ; {
		view := c.store.View()
		if newest := newestPart(view); again || newest != seen {
			seen = newest
			for _, p := range c.parts(view) {
				if again && !c.closing.is() && p.locals.Ready(c.Self()) && p.lost(ctx) {
					c.keeper.forget(p.subject)
				}
				if err := c.tendPart(ctx, p.subject, again); err != nil && ctx.Err() == nil {
					c.log.Error("see to this member's part", "of", p.subject, "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-news:
			again = false
		case <-ticker.C:
			again = true
		}
	}
}

// newestPart is the newest revision among pools and networks.
func newestPart(view *store.View) state.Revision {
	var newest state.Revision
	for _, pool := range view.Pools() {
		newest = max(newest, pool.Revision)
	}
	for _, network := range view.Networks("") {
		newest = max(newest, network.Revision)
	}
	return newest
}

// tendPart does what is to be done to this member's part; again also tries what failed
// before.
func (c *Cluster) tendPart(ctx context.Context, subject string, again bool) error {
	if !c.wanted(c.part(subject), again) {
		return nil
	}
	release, err := c.locks.acquire(ctx, subject, "make")
	if err != nil {
		return err
	}
	defer release()
	return c.makePart(ctx, subject, again)
}

// part is this member's part of what the subject names, as recorded now.
func (c *Cluster) part(subject string) *part {
	parts := c.parts(c.store.View())
	if i := slices.IndexFunc(parts, func(p part) bool { return p.subject == subject }); i >= 0 {
		return &parts[i]
	}
	return nil
}

// wanted reports whether there is something to do for the part.
func (c *Cluster) wanted(p *part, again bool) bool {
	if p == nil {
		return false
	}
	local, found := p.locals[c.Self()]
	if !found {
		return false
	}
	switch local.Status {
	case state.LocalCreating:
		return true
	case state.LocalErrored:
		return again
	case state.LocalDeleting:
		return again || local.Message == ""
	case state.LocalCreated:
		// What was recorded as wrong may be so no longer: it is looked again.
		applied, there := c.keeper.has(p.subject)
		wrong := !there || !maps.Equal(applied, p.config) || local.Message != ""
		return wrong && (again || local.Message == "")
	}
	return false
}

// makePart does what tendPart is for; the caller holds the lock.
func (c *Cluster) makePart(ctx context.Context, subject string, again bool) error {
	p := c.part(subject)
	if !c.wanted(p, again) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), localWork)
	defer cancel()
	local := p.locals[c.Self()]
	var err error
	switch local.Status {
	case state.LocalDeleting:
		if err = p.remove(ctx); err == nil {
			c.keeper.forget(subject)
			return c.finish(ctx, p.drop)
		}
	case state.LocalCreated:
		if err = p.change(ctx); err == nil {
			c.keeper.note(subject, p.config)
			if local.Message == "" {
				return nil
			}
			local.Message = ""
			return c.finish(ctx, p.set(local))
		}
	default:
		var config state.Config
		if config, err = c.makeNew(ctx, p); err == nil {
			if err := c.finish(ctx, p.set(state.Local{Status: state.LocalCreated, Config: config})); err != nil {
				return err
			}
			c.noteApplied(subject)
			return nil
		}
		local.Status = state.LocalErrored
	}
	if local.Message == err.Error() && local.Status == p.locals[c.Self()].Status {
		return err // as it is recorded
	}
	local.Message = err.Error()
	return errors.Join(err, c.finish(ctx, p.set(local)))
}

// repair tries at once to make a part that could not be made before, or was not in order,
// now that it was changed; the caller holds the lock. How that went is the part's status.
func (c *Cluster) repair(ctx context.Context, subject string, before state.Local) {
	if before.Status != state.LocalErrored && before.Message == "" {
		return
	}
	if err := c.makePart(ctx, subject, true); err != nil {
		c.log.Warn("a part that was changed still can't be made", "of", subject, "error", err)
	}
}

func (c *Cluster) makeNew(ctx context.Context, p *part) (state.Config, error) {
	_, there := c.keeper.has(p.subject)
	if c.keeper.begin(p.subject) || there {
		// A daemon before this one may have left something half-made, or a removal that
		// was taken back something half-removed.
		if err := p.remove(ctx); err != nil {
			return nil, err
		}
	}
	return p.make(ctx)
}

// noteApplied notes that the host has the part as it is recorded now.
func (c *Cluster) noteApplied(subject string) {
	if p := c.part(subject); p != nil {
		c.keeper.note(subject, p.config)
	}
}

// made waits until every member that is online has its part, or could not make it. The
// error names the members that could not.
func (c *Cluster) made(ctx context.Context, what string, locals func(*store.View) state.Locals) error {
	err := c.until(ctx, func(view *store.View) bool {
		for member, local := range locals(view) {
			if local.Status == state.LocalCreating && c.onlineByName(view, member) {
				return false
			}
		}
		return true
	})
	if err != nil {
		return state.Errorf(state.ErrUnavailable, "%s is still being made on some members: look at its status later: %w", what, err)
	}
	var failed []error
	parts := locals(c.store.View())
	for _, member := range parts.Members() {
		if local := parts[member]; local.Status == state.LocalErrored {
			failed = append(failed, fmt.Errorf("member %q: %s", member, local.Message))
		}
	}
	if len(failed) > 0 {
		return state.Errorf(state.ErrInvalid, "%s: %w", what, errors.Join(failed...))
	}
	return nil
}

// gone waits until every member that is online has removed its part. One that goes offline
// meanwhile removes it when it is back: the error names it.
func (c *Cluster) gone(ctx context.Context, what string, locals func(*store.View) state.Locals) error {
	var failed string
	var away []string
	err := c.until(ctx, func(view *store.View) bool {
		parts := locals(view)
		away = nil
		for _, member := range parts.Members() {
			if message := parts[member].Message; message != "" {
				failed = fmt.Sprintf("%s can't be removed from member %q, which goes on trying: %s", what, member, message)
			}
			if !c.onlineByName(view, member) {
				away = append(away, strconv.Quote(member))
			}
		}
		return len(parts) == len(away) || failed != ""
	})
	switch {
	case err != nil:
		return state.Errorf(state.ErrUnavailable, "%s is still being removed on some members: %w", what, err)
	case failed != "":
		return state.Errorf(state.ErrConflict, "%s", failed)
	case len(away) > 0:
		return state.Errorf(state.ErrUnavailable, "%s is removed, but from member %s, which went offline: it is removed there when that member is back or is removed from the cluster", what, strings.Join(away, ", "))
	}
	return nil
}

// allOnline refuses when one of the members that have a part can't see to it now.
func (c *Cluster) allOnline(view *store.View, what string, locals state.Locals) error {
	for _, member := range locals.Members() {
		if !c.onlineByName(view, member) {
			return state.Errorf(state.ErrConflict, "%s has a part on member %q, which is offline: bring it back, or remove it from the cluster first", what, member)
		}
	}
	return nil
}

func (c *Cluster) onlineByName(view *store.View, name string) bool {
	member, err := view.Member(name)
	return err == nil && c.Online(member.ID)
}

// everywhere gives every member that hosts a part with the given configuration.
func (c *Cluster) everywhere(config state.Config) (state.Locals, error) {
	locals := state.Locals{}
	for _, m := range c.store.View().Members() {
		if !store.Witness(m) {
			locals[m.Name] = state.Local{Config: config}
		}
	}
	if len(locals) == 0 {
		return nil, errNobodyHosts()
	}
	return locals, nil
}

// memberKeys refuses keys in the configuration of the whole that differ from member to
// member. A server alone has no such difference.
func (c *Cluster) memberKeys(what string, local state.Config) error {
	if len(c.store.View().Members()) == 1 || len(local) == 0 {
		return nil
	}
	return state.Errorf(state.ErrInvalid, "config key %q of a %s differs from member to member: give it with ?target=MEMBER (--target)", slices.Sorted(maps.Keys(local))[0], what)
}

// splitUpdate parts a changed configuration. With here, only what is this member's may
// differ from what is recorded; otherwise only what holds for the cluster. What the
// server itself put there stays unless it is named.
func (c *Cluster) splitUpdate(what string, before, changed, local state.Config, here bool, isLocal func(string) bool) (whole, own state.Config, err error) {
	whole, own = state.SplitConfig(changed, isLocal)
	alone := len(c.store.View().Members()) == 1
	if !here && !alone {
		return whole, local, c.memberKeys(what, own)
	}
	if here && !alone {
		recorded, _ := state.SplitConfig(before, isLocal)
		for _, key := range slices.Sorted(maps.Keys(whole)) {
			if whole[key] != recorded[key] {
				return nil, nil, state.Errorf(state.ErrInvalid, "config key %q of a %s holds for all members: leave out ?target= (--target)", key, what)
			}
		}
		whole = recorded
	}
	return whole, own, nil
}
