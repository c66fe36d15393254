package setup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

// undoTimeout bounds the clean-up after a failure.
const undoTimeout = time.Minute

// undo remembers how to take back what was done.
type undo struct {
	steps []func(context.Context) error
}

func (u *undo) add(step func(context.Context) error) { u.steps = append(u.steps, step) }

// config takes the changed keys of the server's configuration back to what they
// were.
func (u *undo) config(c *client.Client, before, changed map[string]any) {
	back := map[string]any{}
	for key := range changed {
		// A secret reads back as true, which is no value to write.
		old, ok := before[key].(string)
		if !ok && before[key] != nil {
			continue
		}
		back[key] = old
	}
	if len(back) > 0 {
		u.add(func(ctx context.Context) error { return c.PatchServer(ctx, api.ServerPut{Config: back}) })
	}
}

// roll takes back every step, newest first, and returns cause with what could
// not be undone.
func (u *undo) roll(ctx context.Context, cause error) error {
	// What broke may be the caller's patience; what was made must go anyway.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for _, step := range slices.Backward(u.steps) {
		if err := step(ctx); err != nil && !client.IsNotFound(err) {
			cause = errors.Join(cause, fmt.Errorf("undo: %w", err))
		}
	}
	return cause
}
