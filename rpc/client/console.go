package client

import (
	"context"
	"errors"
	"io"
	"net/http"

	"muster/rpc/rest/api"
)

// ErrDetached is what a Console's Stdin returns from Read when the user has
// asked to leave.
var ErrDetached = errors.New("detached")

// Console connects to an instance's console until the instance stops, ctx ends,
// or streams.Stdin ends or fails: leaving is the caller's to decide, by
// returning ErrDetached or io.EOF from Read. Without Stdin it only listens.
// Stderr is not used.
func (c *Client) Console(ctx context.Context, instance string, post api.InstanceConsolePost, streams ExecStreams) error {
	if post.Type == "" {
		post.Type = "console"
	}
	op, err := c.start(ctx, request{method: http.MethodPost, path: at("instances", instance, "console"), body: post})
	if err != nil {
		return err
	}
	s, err := op.attach(ctx, true)
	if err != nil {
		return err
	}
	detached, detach := context.WithCancelCause(ctx)
	defer detach(nil)
	if streams.Stdin == nil {
		s.mute = true
	} else {
		streams.Stdin = &untilLeft{from: streams.Stdin, leave: detach}
	}
	err = s.run(detached, streams, func() {})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if detached.Err() != nil {
		return nil
	}
	return err
}

// untilLeft calls leave when the reader has ended.
type untilLeft struct {
	from  io.Reader
	leave context.CancelCauseFunc
}

// Read implements io.Reader. It never ends with io.EOF, since leaving a console
// is no reason to press ctrl-d on it.
func (u *untilLeft) Read(p []byte) (int, error) {
	n, err := u.from.Read(p)
	if err != nil {
		u.leave(err)
		err = ErrDetached
	}
	return n, err
}
