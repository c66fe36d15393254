// Command muster drives a muster cluster from the command line, in the grammar
// of LXD's lxc.
//
// It talks to servers through rpc/client only and never touches containers,
// pools or networks of the host itself.
//
// It exits with 0 when all went well, 1 when something failed, 2 when the
// command line was wrong, 130 when it was interrupted; `muster exec` exits with
// the status of the command it ran.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() { os.Exit(run()) }

// run is main without the exit, so that deferred calls restore the terminal.
func run() int {
	// A hang-up is a reason to tidy up too: the terminal may be in raw mode.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	a := newApp(os.Stdin, os.Stdout, os.Stderr, os.Getenv)
	root := newRoot(a)
	root.SetArgs(a.expanded(os.Args[1:]))
	err := root.ExecuteContext(ctx)
	a.close()
	return report(os.Stderr, err, ctx.Err() != nil)
}

// report prints the error with what to do next and returns the exit code.
func report(w io.Writer, err error, interrupted bool) int {
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[*exitStatus](err); ok {
		if status.err != nil {
			fmt.Fprintln(w, "Error:", status.err)
		}
		return status.code
	}
	if interrupted && (errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted)) {
		if !errors.Is(err, context.Canceled) {
			fmt.Fprintln(w, "Error:", err)
		}
		return exitInterrupted
	}
	fmt.Fprintln(w, "Error:", err)
	if next := hint(err); next != "" {
		fmt.Fprintln(w, next)
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// exitStatus ends the program with the status of a command that ran elsewhere,
// and says why it could not be run if it could not.
type exitStatus struct {
	code int
	err  error
}

func (e *exitStatus) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// usageError is a command line that can't be understood.
type usageError struct {
	err  error
	path string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef complains about the command line.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...), path: cmd.CommandPath()}
}

// between wants a number of arguments; most may be -1 for any number.
func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef(cmd, "too few arguments: want %s", cmd.UseLine())
		case most >= 0 && len(args) > most:
			return usagef(cmd, "too many arguments (%q): want %s", args[most], cmd.UseLine())
		}
		return nil
	}
}
