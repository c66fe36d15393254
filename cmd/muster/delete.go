package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func (a *app) deleteCommand() *cobra.Command {
	var force, interactive bool
	cmd := &cobra.Command{
		Use: "delete [REMOTE:]INSTANCE[/SNAPSHOT]...", Aliases: []string{"rm"}, Short: "Delete instances and snapshots",
		Long: "Delete instances, with their snapshots, or single snapshots. A running instance is only deleted with --force.",
		Example: `  muster delete web
  muster delete --force web db
  muster delete web/before-upgrade`,
		Args: between(1, -1), ValidArgsFunction: a.complete(instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if interactive {
				if err := a.confirm(cmd.Context(), fmt.Sprintf("Delete %s?", strings.Join(args, ", "))); err != nil {
					return err
				}
			}
			return a.each(cmd.Context(), args, func(ctx context.Context, t thing) error { return a.deleteOne(ctx, t, force) })
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "delete running instances too")
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "ask before")
	return cmd
}

func (a *app) deleteOne(ctx context.Context, t thing, force bool) error {
	instance, snapshot, isSnapshot := strings.Cut(t.name, "/")
	if isSnapshot {
		op, err := t.DeleteSnapshot(ctx, instance, snapshot)
		return a.done(ctx, "Deleting "+t.name, op, err)
	}
	found, _, err := t.Instance(ctx, instance)
	if err != nil {
		return err
	}
	if found.StatusCode != api.Stopped && found.StatusCode != api.Error {
		if !force {
			return advise(errors.New("the instance is running"), "Stop it first, or use --force.")
		}
		op, err := t.SetInstanceState(ctx, instance, api.InstanceStatePut{Action: "stop", Force: true, Timeout: -1})
		if err := a.done(ctx, "Stopping "+instance, op, err); err != nil {
			// It may have stopped by itself in between.
			if now, _, look := t.Instance(ctx, instance); look == nil && now.StatusCode != api.Stopped {
				return fmt.Errorf("stop it: %w", err)
			}
		}
		if found.Ephemeral {
			return a.gone(ctx, t, instance)
		}
	}
	op, err := t.DeleteInstance(ctx, instance)
	return a.done(ctx, "Deleting "+instance, op, err)
}

// gone deletes an ephemeral instance that has just been stopped; the server may
// have done so itself.
func (a *app) gone(ctx context.Context, t thing, instance string) error {
	op, err := t.DeleteInstance(ctx, instance)
	err = a.done(ctx, "Deleting "+instance, op, err)
	if err == nil || client.IsNotFound(err) {
		return nil
	}
	if _, _, look := t.Instance(ctx, instance); client.IsNotFound(look) {
		return nil
	}
	return err
}

// confirm asks a yes-or-no question; no is an error.
func (a *app) confirm(ctx context.Context, question string) error {
	if a.piped() {
		return errors.New("there is no terminal to ask on")
	}
	fmt.Fprintf(a.stderr, "%s (y/n) [n]: ", question)
	answer, err := a.line(ctx)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(strings.ToLower(answer), "y") {
		return errors.New("nothing was deleted")
	}
	return nil
}
