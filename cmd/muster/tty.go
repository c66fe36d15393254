package main

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/term"

	"muster/rpc/rest/api"
)

// raw puts standard input into raw mode, if it is a terminal. The returned
// function puts it back and may be called twice; callers defer it, so every way
// out restores the terminal.
func (a *app) raw() (func(), error) {
	fd := int(a.stdin.Fd())
	if !term.IsTerminal(fd) {
		return func() {}, nil
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	return func() { _ = term.Restore(fd, before) }, nil
}

// terminalSize is the width and height in characters; 0, 0 without a terminal.
func (a *app) terminalSize() (width, height int) {
	file, ok := a.stdout.(*os.File)
	if !ok {
		return 0, 0
	}
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// resizes yields a control message for each change of the window's size, until
// ctx ends.
func (a *app) resizes(ctx context.Context) <-chan api.InstanceExecControl {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	messages := make(chan api.InstanceExecControl)
	go func() {
		defer signal.Stop(changed)
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			width, height := a.terminalSize()
			if width == 0 {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case messages <- resizeMessage(width, height):
			}
		}
	}()
	return messages
}

func resizeMessage(width, height int) api.InstanceExecControl {
	return api.InstanceExecControl{Command: "window-resize", Args: api.ControlArgs{
		"width": strconv.Itoa(width), "height": strconv.Itoa(height),
	}}
}

// forwarded are the signals that a command elsewhere gets instead of us.
var forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGALRM, syscall.SIGVTALRM, syscall.SIGCONT,
}

// patience is how often a user may press ctrl-c before we stop waiting for the
// command to heed it.
const patience = 3

// signals yields a control message for each signal that is meant for the
// command, until ctx ends. giveUp is called when the user has asked for an end
// too often.
func (a *app) signals(ctx context.Context, giveUp func()) <-chan api.InstanceExecControl {
	caught := make(chan os.Signal, 8)
	signal.Notify(caught, forwarded...)
	messages := make(chan api.InstanceExecControl)
	go func() {
		defer signal.Stop(caught)
		interrupts := 0
		for {
			var sent os.Signal
			select {
			case <-ctx.Done():
				return
			case sent = <-caught:
			}
			if sent == syscall.SIGINT || sent == syscall.SIGTERM || sent == syscall.SIGHUP {
				if interrupts++; interrupts > patience {
					giveUp()
					return
				}
			}
			number, ok := sent.(syscall.Signal)
			if !ok {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case messages <- api.InstanceExecControl{Command: "signal", Signal: int(number)}:
			}
		}
	}()
	return messages
}
