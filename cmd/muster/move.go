package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/rest/api"
)

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rename [REMOTE:]INSTANCE[/SNAPSHOT] NAME[/SNAPSHOT]", Short: "Rename an instance or a snapshot",
		Example: "  muster rename web www\n  muster rename web/snap0 web/before-upgrade",
		Args:    between(2, 2), ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			// A remote before the new name would be taken for a move.
			to, err := a.on(t.remote + ":" + strings.TrimPrefix(args[1], t.remote+":"))
			if err != nil {
				return err
			}
			return a.rename(cmd.Context(), t, to.name)
		},
	}
}

func (a *app) rename(ctx context.Context, t thing, to string) error {
	instance, snapshot, isSnapshot := strings.Cut(t.name, "/")
	if !isSnapshot {
		if strings.Contains(to, "/") {
			return fmt.Errorf("%q: an instance's name has no slash", to)
		}
		op, err := t.PostInstance(ctx, instance, api.InstancePost{Name: to})
		return a.done(ctx, "Renaming "+t.name, op, err)
	}
	name := to
	if before, after, found := strings.Cut(to, "/"); found {
		if before != instance {
			return fmt.Errorf("a snapshot stays with its instance: %s/%s can't become %s", instance, snapshot, to)
		}
		name = after
	}
	op, err := t.RenameSnapshot(ctx, instance, snapshot, name)
	return a.done(ctx, "Renaming "+t.name, op, err)
}

func (a *app) moveCommand() *cobra.Command {
	var c changes
	cmd := &cobra.Command{
		Use:     "move [REMOTE:]INSTANCE[/SNAPSHOT] [REMOTE:][NAME]",
		Aliases: []string{"mv"},
		Short:   "Rename an instance, or move it to another member",
		Long: `Rename an instance or a snapshot, or move an instance to another member of the
same cluster. An instance must be stopped to be renamed. One that runs is moved
with it, and stopped for as long as it takes to send what changed meanwhile.`,
		Example: `  muster move web www
  muster move web/snap0 web/before-upgrade
  muster move web --target member2`,
		Args: between(1, 2), ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			to := from
			if len(args) == 2 {
				if to, err = a.on(args[1]); err != nil {
					return err
				}
			}
			if err := sameServer(from, to); err != nil {
				return err
			}
			to.name = orElse(to.name, from.name)
			return a.move(cmd.Context(), from, to.name, c)
		},
	}
	c.flags(a, cmd)
	// They are known to be refused with what to do instead.
	for _, name := range []string{"config", "device", "profile", "no-profiles", "storage", "target-project"} {
		_ = cmd.Flags().MarkHidden(name)
	}
	return cmd
}

func (a *app) move(ctx context.Context, t thing, to string, c changes) error {
	if len(c.config)+len(c.devices)+len(c.profiles) > 0 || c.noProfiles {
		return errors.New("a move inside one server changes no configuration: use `muster config` before or after it")
	}
	if c.pool != "" || c.project != "" {
		return advise(errors.New("an instance can't be moved to another storage pool or project yet"),
			"Copy it there under another name with `muster copy --storage` or `--target-project`, and delete this one.")
	}
	if c.target == "" {
		if to == t.name {
			return errors.New("it is there already: give another name, or --target")
		}
		return a.rename(ctx, t, to)
	}
	if strings.Contains(t.name, "/") {
		return errors.New("a snapshot stays with its instance: copy it to make an instance of it")
	}
	op, err := t.aimed(c.target).PostInstance(ctx, t.name, api.InstancePost{
		Name: to, Migration: true, InstanceOnly: c.instanceOnly, ContainerOnly: c.instanceOnly,
		AllowInconsistent: c.allowInconsistent,
	})
	return a.done(ctx, "Moving "+t.name, op, err)
}
