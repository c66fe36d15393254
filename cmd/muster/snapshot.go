package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func (a *app) snapshotCommand() *cobra.Command {
	var noExpiry, reuse, stateful bool
	var expiry time.Duration
	cmd := &cobra.Command{
		Use:   "snapshot [REMOTE:]INSTANCE [SNAPSHOT]",
		Short: "Take a snapshot",
		Long:  "Take a snapshot of an instance. Without a name, it is called snap0, snap1 and so on.",
		Example: `  muster snapshot web
  muster snapshot web before-upgrade
  muster snapshot web nightly --reuse --expires-in 168h`,
		Args: between(1, 2), ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			post := api.InstanceSnapshotsPost{Stateful: stateful}
			if len(args) == 2 {
				post.Name = args[1]
			}
			switch {
			case noExpiry && expiry != 0:
				return usagef(cmd, "--no-expiry and --expires-in exclude each other")
			case noExpiry:
				post.ExpiresAt = &time.Time{}
			case expiry != 0:
				at := time.Now().Add(expiry)
				post.ExpiresAt = &at
			}
			if reuse && post.Name != "" {
				op, err := t.DeleteSnapshot(ctx, t.name, post.Name)
				if err := a.done(ctx, "Deleting the old snapshot", op, err); err != nil && !client.IsNotFound(err) {
					return fmt.Errorf("delete the old snapshot: %w", err)
				}
			}
			op, err := t.CreateSnapshot(ctx, t.name, post)
			if err := a.done(ctx, "Taking a snapshot of "+t.name, op, err); err != nil {
				return err
			}
			if post.Name == "" {
				name, err := newestSnapshot(ctx, t)
				if err != nil {
					return err
				}
				a.say("Snapshot name is: %s", name)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&noExpiry, "no-expiry", false, "keep it, whatever the instance's snapshots.expiry says")
	cmd.Flags().DurationVar(&expiry, "expires-in", 0, "delete it after this time, such as 24h")
	cmd.Flags().BoolVar(&reuse, "reuse", false, "replace a snapshot of the same name")
	cmd.Flags().BoolVar(&stateful, "stateful", false, "with what is in memory")
	return cmd
}

// newestSnapshot is what the server called the snapshot just taken: operations do
// not always say.
func newestSnapshot(ctx context.Context, t thing) (string, error) {
	snapshots, err := t.Snapshots(ctx, t.name)
	if err != nil || len(snapshots) == 0 {
		return "", err
	}
	newest := slices.MaxFunc(snapshots, func(x, y api.InstanceSnapshot) int { return x.CreatedAt.Compare(y.CreatedAt) })
	return newest.Name, nil
}

func (a *app) restoreCommand() *cobra.Command {
	var stateful bool
	cmd := &cobra.Command{
		Use: "restore [REMOTE:]INSTANCE SNAPSHOT", Short: "Take an instance back to a snapshot",
		Long: "Take an instance back to a snapshot. A running instance is stopped for it and started again.",
		Example: `  muster restore web before-upgrade
  muster restore web/before-upgrade`,
		Args: between(1, 2), ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			instance, snapshot, _ := strings.Cut(t.name, "/")
			if len(args) == 2 {
				snapshot = args[1]
			}
			if snapshot == "" || (len(args) == 2 && instance != t.name) {
				return usagef(cmd, "name one snapshot: want %s", cmd.UseLine())
			}
			op, err := t.RestoreInstance(cmd.Context(), instance, snapshot, stateful)
			return a.done(cmd.Context(), "Restoring "+instance, op, err)
		},
	}
	cmd.Flags().BoolVar(&stateful, "stateful", false, "with what was in memory")
	return cmd
}

func (a *app) publishCommand() *cobra.Command {
	var flags newImage
	var compression, expire string
	var force bool
	cmd := &cobra.Command{
		Use:   "publish [REMOTE:]INSTANCE[/SNAPSHOT] [PROPERTY=VALUE...]",
		Short: "Make an image of an instance or a snapshot",
		Long:  "Make an image of a stopped instance or a snapshot. With --force, a running instance is stopped for it and started again.",
		Example: `  muster publish web --alias web-2026
  muster publish web/before-upgrade --alias old description="Before the upgrade"`,
		Args: between(1, -1), ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			rest := args[1:]
			if len(rest) > 0 && strings.HasSuffix(rest[0], ":") {
				to, err := a.on(rest[0])
				if err != nil {
					return err
				}
				if to.remote != t.remote {
					return advise(fmt.Errorf("an image is made on the server of its instance"), "Copy it afterwards: `muster image copy %s:IMAGE %s`.", t.remote, rest[0])
				}
				rest = rest[1:]
			}
			post := api.ImagesPost{CompressionAlgorithm: compression, Source: &api.ImagesPostSource{Type: "instance", Name: t.name}}
			if strings.Contains(t.name, "/") {
				post.Source.Type = "snapshot"
			}
			post.Public = flags.public
			if post.Properties, err = a.pairs(rest); err != nil {
				return err
			}
			if expire != "" {
				if post.ExpiresAt, err = time.Parse(time.RFC3339, expire); err != nil {
					return usagef(cmd, "--expire %q is no time such as 2027-01-31T12:00:00Z", expire)
				}
			}
			if err := a.checkAliases(ctx, t.Client, flags); err != nil {
				return err
			}
			restart, err := a.stopForPublish(cmd, t, force)
			if err != nil {
				return err
			}
			op, err := t.CreateImage(ctx, post)
			err = a.done(ctx, "Publishing "+t.name, op, err)
			if back := restart(); err == nil {
				err = back
			}
			if err != nil {
				return err
			}
			fingerprint := op.Fingerprint()
			if err := a.giveAliases(ctx, t.Client, fingerprint, flags); err != nil {
				return err
			}
			a.say("Instance published with fingerprint: %s", fingerprint)
			return nil
		},
	}
	flags.flags(cmd)
	cmd.Flags().StringVar(&compression, "compression", "", "gzip, xz, zstd, bzip2, lzma or none (default: the server's)")
	cmd.Flags().StringVar(&expire, "expire", "", "when the image is no longer needed, such as 2027-01-31T12:00:00Z")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "stop a running instance for it")
	return cmd
}

// stopForPublish stops a running instance and returns how to start it again.
func (a *app) stopForPublish(cmd *cobra.Command, t thing, force bool) (func() error, error) {
	stay := func() error { return nil }
	if strings.Contains(t.name, "/") {
		return stay, nil
	}
	ctx := cmd.Context()
	instance, _, err := t.Instance(ctx, t.name)
	if err != nil || instance.StatusCode == api.Stopped {
		return stay, err
	}
	if !force {
		return stay, advise(fmt.Errorf("the instance is running"), "Stop it first, use --force, or publish a snapshot of it.")
	}
	if instance.Ephemeral {
		return stay, fmt.Errorf("an ephemeral instance would be gone when it is stopped: publish a snapshot of it")
	}
	op, err := t.SetInstanceState(ctx, t.name, api.InstanceStatePut{Action: "stop", Force: true, Timeout: -1})
	if err := a.done(ctx, "Stopping "+t.name, op, err); err != nil {
		return stay, err
	}
	return func() error {
		op, err := t.SetInstanceState(ctx, t.name, api.InstanceStatePut{Action: "start", Timeout: -1})
		return a.done(ctx, "Starting "+t.name, op, err)
	}, nil
}
