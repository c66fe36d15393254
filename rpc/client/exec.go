package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"muster/rpc/rest/api"
)

// ExecStreams connects a command with the caller.
type ExecStreams struct {
	// Stdin is read until it ends; nil is an empty input. A Read that blocks
	// is left behind when the command ends first, so a caller that goes on
	// living should give a reader it can unblock.
	Stdin io.Reader
	// Stdout gets the output; of an interactive command all of it.
	Stdout io.Writer
	// Stderr gets the errors of a command that is not interactive.
	Stderr io.Writer
	// Control yields window sizes and signals; nil sends none. Exec stops
	// reading it when the command ends.
	Control <-chan api.InstanceExecControl
}

// Exec runs a command in an instance and returns its exit status once it has
// ended and all its output is written. The websockets are always used, so
// post.WaitForWS need not be set. An error that comes with a status other than 0
// is the server's word on a command that could not be run (127: there is none,
// 126: it is no program); with 0, the status is unknown.
func (c *Client) Exec(ctx context.Context, instance string, post api.InstanceExecPost, streams ExecStreams) (int, error) {
	post.WaitForWS = true
	op, err := c.start(ctx, request{method: http.MethodPost, path: at("instances", instance, "exec"), body: post})
	if err != nil {
		return 0, err
	}
	s, err := op.attach(ctx, post.Interactive)
	if err != nil {
		return 0, fmt.Errorf("attach to the command: %w", err)
	}
	streamErr := s.run(ctx, streams, func() { err = op.Wait(ctx, nil) })
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	status, ok := op.Metadata["return"].(float64)
	if err != nil {
		return int(status), err
	}
	if !ok {
		return 0, errors.Join(fmt.Errorf("operation %s ended without an exit status", op.ID), streamErr)
	}
	if streamErr != nil {
		return int(status), fmt.Errorf("the command ended with status %d, but its output may be cut short: %w", int(status), streamErr)
	}
	return int(status), nil
}

// ExecRecorded runs a command without connecting to it. With
// post.RecordOutput, the operation's metadata names the log files that hold the
// output.
func (c *Client) ExecRecorded(ctx context.Context, instance string, post api.InstanceExecPost) (*Operation, error) {
	post.WaitForWS, post.Interactive = false, false
	return c.start(ctx, request{method: http.MethodPost, path: at("instances", instance, "exec"), body: post})
}

// session is the set of websockets of one command or console.
type session struct {
	control *websocket.Conn
	// stdin, stdout and stderr are one and the same when there is a terminal.
	stdin, stdout, stderr *websocket.Conn
	all                   []*websocket.Conn
	// mute sends no input, and not even its end.
	mute bool
}

// attach opens the websockets whose secrets the operation's metadata holds.
func (o *Operation) attach(ctx context.Context, terminal bool) (*session, error) {
	fds, ok := o.Metadata["fds"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("operation %s has no websockets", o.ID)
	}
	s := &session{}
	open := func(name string) (*websocket.Conn, error) {
		secret, ok := fds[name].(string)
		if !ok {
			return nil, fmt.Errorf("operation %s has no websocket %q", o.ID, name)
		}
		conn, err := o.connect(ctx, secret)
		if err == nil {
			s.all = append(s.all, conn)
		}
		return conn, err
	}
	var err error
	for _, each := range []struct {
		name string
		to   **websocket.Conn
		used bool
	}{
		// The command starts when its streams are connected, so control,
		// which may be late, goes first: no resize or signal is missed.
		{"control", &s.control, fds["control"] != nil},
		{"0", &s.stdin, true},
		{"1", &s.stdout, !terminal},
		{"2", &s.stderr, !terminal},
	} {
		if !each.used {
			continue
		}
		if *each.to, err = open(each.name); err != nil {
			s.close()
			return nil, err
		}
	}
	if terminal {
		s.stdout = s.stdin
	}
	return s, nil
}

func (s *session) close() {
	for _, conn := range s.all {
		hangUp(conn)
	}
}

// run copies until the output has ended and last has returned, then closes everything. A
// command may have closed its outputs and still be at work: to close control under it would
// end it, so last waits for the command. Meanwhile control goes on.
func (s *session) run(ctx context.Context, streams ExecStreams, last func()) error {
	// Closing is the only way to end a read on a websocket.
	shut := sync.OnceFunc(s.close)
	defer shut()
	stop := context.AfterFunc(ctx, shut)
	defer stop()

	over, end := context.WithCancel(ctx)
	defer end()
	var side sync.WaitGroup
	defer side.Wait()
	// Deferred calls run last in, first out: shut comes before side.Wait, so
	// nothing here waits for a socket that is open.
	defer shut()
	if s.control != nil {
		side.Go(func() { s.sendControl(over, streams.Control) })
		// Somebody has to read, or pings and the close go unanswered.
		side.Go(func() { _ = receive(s.control, io.Discard) })
	}
	s.sendInput(streams.Stdin)
	if s.stdin != s.stdout {
		side.Go(func() { _ = receive(s.stdin, io.Discard) })
	}

	var output errgroup.Group
	output.Go(func() error { return receive(s.stdout, orDiscard(streams.Stdout)) })
	if s.stderr != nil {
		output.Go(func() error { return receive(s.stderr, orDiscard(streams.Stderr)) })
	}
	err := output.Wait()
	last()
	end()
	return err
}

// sendInput copies stdin in a goroutine that nobody waits for: a read from a
// terminal can't be interrupted. It ends at the first write after the close.
func (s *session) sendInput(stdin io.Reader) {
	end := endOfStream
	if s.stdin == s.stdout {
		end = endOfTyping
	}
	if s.mute {
		return
	}
	if stdin == nil {
		// A broken connection shows when the output is read.
		_ = end(s.stdin, 0)
		return
	}
	go func() { _ = transmit(s.stdin, stdin, end) }()
}

func (s *session) sendControl(ctx context.Context, messages <-chan api.InstanceExecControl) {
	for {
		select {
		case <-ctx.Done():
			return
		case message, ok := <-messages:
			if !ok || s.control.WriteJSON(message) != nil {
				return
			}
		}
	}
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
