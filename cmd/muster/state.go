package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"muster/rpc/rest/api"
)

// atOnce bounds how many instances one command works on at the same time.
const atOnce = 8

// transition is one of the commands that change states.
type transition struct {
	action string
	// doing is the verb for people, "Stopping".
	doing   string
	all     bool
	put     api.InstanceStatePut
	console bool
}

func (a *app) startCommand() *cobra.Command {
	tr := &transition{action: "start", doing: "Starting"}
	cmd := a.transitionCommand(tr, "start", "Start instances; thaw those that are frozen", `  muster start web
  muster start web db --verbose
  muster start --all`)
	cmd.Flags().BoolVar(&tr.console, "console", false, "attach to the console at once (one instance)")
	return cmd
}

func (a *app) stopCommand() *cobra.Command {
	tr := &transition{action: "stop", doing: "Stopping"}
	cmd := a.transitionCommand(tr, "stop", "Stop instances", `  muster stop web
  muster stop web --timeout 30
  muster stop --force --all`)
	cmd.Flags().BoolVarP(&tr.put.Force, "force", "f", false, "kill instead of asking")
	cmd.Flags().IntVar(&tr.put.Timeout, "timeout", -1, "seconds to wait for a clean stop; -1 is without end")
	return cmd
}

func (a *app) restartCommand() *cobra.Command {
	tr := &transition{action: "restart", doing: "Restarting"}
	cmd := a.transitionCommand(tr, "restart", "Restart instances", `  muster restart web
  muster restart --force web`)
	cmd.Flags().BoolVarP(&tr.put.Force, "force", "f", false, "kill instead of asking")
	cmd.Flags().IntVar(&tr.put.Timeout, "timeout", -1, "seconds to wait for a clean stop; -1 is without end")
	cmd.Flags().BoolVar(&tr.console, "console", false, "attach to the console at once (one instance)")
	return cmd
}

func (a *app) freezeCommand() *cobra.Command {
	cmd := a.transitionCommand(&transition{action: "freeze", doing: "Freezing"}, "freeze", "Freeze instances: no process in them runs", `  muster freeze web
  muster pause --all`)
	cmd.Aliases = []string{"pause"}
	return cmd
}

func (a *app) unfreezeCommand() *cobra.Command {
	cmd := a.transitionCommand(&transition{action: "unfreeze", doing: "Thawing"}, "unfreeze", "Thaw frozen instances", `  muster unfreeze web
  muster resume --all`)
	cmd.Aliases = []string{"resume"}
	return cmd
}

func (a *app) transitionCommand(tr *transition, name, short, example string) *cobra.Command {
	cmd := &cobra.Command{
		Use:               name + " [REMOTE:]INSTANCE...",
		Short:             short,
		Example:           example,
		Args:              between(0, -1),
		ValidArgsFunction: a.complete(instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			tr.put.Action = tr.action
			switch {
			case tr.all && (len(args) > 1 || len(args) == 1 && !strings.HasSuffix(args[0], ":")):
				return usagef(cmd, "--all is every instance: name none")
			case !tr.all && len(args) == 0:
				return usagef(cmd, "too few arguments: name an instance, or use --all")
			case tr.console && (tr.all || len(args) != 1):
				return usagef(cmd, "--console needs exactly one instance")
			}
			if tr.all {
				t, _, err := a.server(args)
				if err != nil {
					return err
				}
				op, err := t.SetAllInstanceStates(cmd.Context(), tr.put)
				return a.done(cmd.Context(), tr.doing+" all instances", op, err)
			}
			err := a.each(cmd.Context(), args, func(ctx context.Context, t thing) error { return a.transit(ctx, t, *tr) })
			if err != nil || !tr.console {
				return err
			}
			t, err := a.on(args[0])
			if err != nil {
				return err
			}
			return a.attachConsole(cmd.Context(), t)
		},
	}
	cmd.Flags().BoolVar(&tr.all, "all", false, "every instance of the project")
	return cmd
}

// transit changes one instance's state.
func (a *app) transit(ctx context.Context, t thing, tr transition) error {
	if tr.action == "start" {
		instance, _, err := t.Instance(ctx, t.name)
		if err != nil {
			return err
		}
		// lxc's habit: starting what is frozen thaws it.
		if instance.StatusCode == api.Frozen {
			tr.put.Action = "unfreeze"
		}
	}
	a.note("%s %s", tr.doing, t.full(t.name))
	op, err := t.SetInstanceState(ctx, t.name, tr.put)
	err = a.done(ctx, tr.doing+" "+t.name, op, err)
	if err != nil && (tr.action == "start" || tr.action == "restart") {
		return advise(err, "`muster info --show-log %s` may say more.", t.full(t.name))
	}
	return err
}

// each does something to every named instance, several at a time. All are
// tried; the error names those that failed.
func (a *app) each(ctx context.Context, args []string, do func(context.Context, thing) error) error {
	things := make([]thing, 0, len(args))
	for _, arg := range args {
		t, err := a.named(arg, "instance")
		if err != nil {
			return err
		}
		things = append(things, t)
	}
	if len(things) == 1 {
		return do(ctx, things[0])
	}
	// Progress bars of many operations at once would overwrite each other.
	quiet := a.withoutProgress()
	defer quiet()
	failures := make([]error, len(things))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for n, t := range things {
		group.Go(func() error {
			if err := do(ctx, t); err != nil {
				failures[n] = fmt.Errorf("%s: %w", args[n], err)
			}
			return nil
		})
	}
	// Every failure is kept in failures; the group's own error is always nil.
	_ = group.Wait()
	return errors.Join(failures...)
}

// withoutProgress hides bars until the returned function is called.
func (a *app) withoutProgress() func() {
	shown := a.stderr
	a.stderr = plainWriter{shown}
	return func() { a.stderr = shown }
}

// plainWriter is a writer that is no terminal.
type plainWriter struct{ io.Writer }
