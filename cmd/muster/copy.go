package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/rest/api"
)

// changes are the flags of copy and move that change what arrives.
type changes struct {
	config, devices, profiles    []string
	noProfiles, instanceOnly     bool
	pool, target, project        string
	ephemeral, allowInconsistent bool
}

func (c *changes) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&c.config, "config", "c", nil, "KEY=VALUE to change on the way")
	f.StringArrayVarP(&c.devices, "device", "d", nil, "DEVICE,KEY=VALUE to change on the way")
	f.StringArrayVarP(&c.profiles, "profile", "p", nil, "profile to apply instead of the source's")
	f.BoolVar(&c.noProfiles, "no-profiles", false, "apply no profile")
	f.BoolVar(&c.instanceOnly, "instance-only", false, "leave the snapshots behind")
	f.StringVarP(&c.pool, "storage", "s", "", "storage pool to use")
	f.StringVar(&c.project, "target-project", "", "project to go to")
	f.BoolVar(&c.allowInconsistent, "allow-inconsistent", false, "go on when files change during the copy")
	a.targetFlag(cmd, &c.target)
	_ = cmd.RegisterFlagCompletionFunc("storage", a.complete(poolNames))
	_ = cmd.RegisterFlagCompletionFunc("target-project", a.complete(projectNames))
}

func (a *app) copyCommand() *cobra.Command {
	var c changes
	var refresh bool
	cmd := &cobra.Command{
		Use:     "copy [REMOTE:]INSTANCE[/SNAPSHOT] [REMOTE:][NAME]",
		Aliases: []string{"cp"},
		Short:   "Copy an instance, or make one from a snapshot",
		Long: `Copy an instance with its snapshots, or make an instance from a snapshot. The copy
is not started, and gets addresses of its own. Both names must be on the same
server.`,
		Example: `  muster copy web web2
  muster copy web/before-upgrade web-old --instance-only
  muster copy web web2 -c limits.memory=2GiB --storage fast`,
		Args: between(1, 2), ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			to := from
			to.name = ""
			if len(args) == 2 {
				if to, err = a.on(args[1]); err != nil {
					return err
				}
			}
			if err := sameServer(from, to); err != nil {
				return err
			}
			return a.copyInstance(cmd.Context(), from, to, c, refresh)
		},
	}
	c.flags(a, cmd)
	cmd.Flags().BoolVarP(&c.ephemeral, "ephemeral", "e", false, "delete the copy when it stops")
	cmd.Flags().BoolVar(&refresh, "refresh", false, "bring an earlier copy up to date")
	return cmd
}

// sameServer refuses what would need two servers to talk to each other.
func sameServer(from, to thing) error {
	if from.remote == to.remote {
		return nil
	}
	return advise(fmt.Errorf("an instance can't go from %s to %s: copying between servers is not built", from.remote, to.remote),
		"Publish it, and copy the image: `muster publish %s:%s --alias x`, `muster image copy %s:x %s: --copy-aliases`, `muster launch %s:x`.",
		from.remote, from.name, from.remote, to.remote, to.remote)
}

func (a *app) copyInstance(ctx context.Context, from, to thing, c changes, refresh bool) error {
	instance, snapshot, isSnapshot := strings.Cut(from.name, "/")
	source, _, err := from.Instance(ctx, instance)
	if err != nil {
		return err
	}
	put := source.InstancePut
	if isSnapshot {
		s, _, err := from.Snapshot(ctx, instance, snapshot)
		if err != nil {
			return err
		}
		put.Config, put.Devices, put.Profiles, put.Ephemeral = s.Config, s.Devices, s.Profiles, s.Ephemeral
	}
	post := api.InstancesPost{Name: to.name, Type: source.Type, InstancePut: put}
	post.Ephemeral = c.ephemeral
	post.Config = copiedConfig(put.Config)
	if err := a.changeCopy(&post, c, source.ExpandedDevices); err != nil {
		return err
	}
	post.Source = api.InstanceSource{
		Type: "copy", Source: from.name, InstanceOnly: c.instanceOnly || isSnapshot, ContainerOnly: c.instanceOnly || isSnapshot,
		Refresh: refresh, AllowInconsistent: c.allowInconsistent,
	}
	if c.project != "" {
		post.Source.Project = orElse(from.Project(), "default")
		to.Client = to.WithProject(c.project)
	}
	op, err := to.aimed(c.target).CreateInstance(ctx, post)
	if err := a.done(ctx, "Copying "+from.name, op, err); err != nil {
		return err
	}
	if to.name == "" {
		a.say("Instance name is: %s", createdName(op))
	}
	return nil
}

// copiedConfig leaves out what is only true of the original: addresses, host
// interfaces and the like.
func copiedConfig(config map[string]string) map[string]string {
	kept := maps.Clone(config)
	maps.DeleteFunc(kept, func(key, _ string) bool {
		return strings.HasPrefix(key, "volatile.") && key != "volatile.base_image" && key != "volatile.last_state.idmap"
	})
	return kept
}

// changeCopy applies the flags.
func (a *app) changeCopy(post *api.InstancesPost, c changes, inherited map[string]map[string]string) error {
	config, err := a.pairs(c.config)
	if err != nil {
		return err
	}
	devices, err := deviceChanges(c.devices)
	if err != nil {
		return err
	}
	post.Config = apply(post.Config, config)
	switch {
	case c.noProfiles && len(c.profiles) > 0:
		return errors.New("--profile and --no-profiles exclude each other")
	case c.noProfiles:
		post.Profiles = []string{}
	case len(c.profiles) > 0:
		post.Profiles = c.profiles
	}
	if post.Devices == nil {
		post.Devices = map[string]map[string]string{}
	}
	if c.pool != "" {
		name := "root"
		for each, device := range inherited {
			if device["type"] == "disk" && device["path"] == "/" {
				name = each
			}
		}
		if devices[name] == nil {
			devices[name] = map[string]string{}
		}
		maps.Copy(devices[name], map[string]string{"type": "disk", "path": "/", "pool": c.pool})
	}
	for name, change := range devices {
		device := post.Devices[name]
		if device == nil {
			device = maps.Clone(inherited[name])
		}
		post.Devices[name] = apply(device, change)
	}
	return nil
}
