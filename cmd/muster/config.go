package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

func (a *app) configCommand() *cobra.Command {
	return family("config", "Configure instances and the server", `  muster config set web limits.memory=1GiB
  muster config set core.https_address '[::]:8443'
  muster config device add web data disk source=/srv/data path=/srv/data
  muster config trust add --name alice`,
		a.configGetCommand(), a.configSetCommand(), a.configUnsetCommand(), a.configShowCommand(), a.configEditCommand(),
		a.deviceCommand(deviceOwner{"instance", instanceNames, a.instanceDevices}),
		a.metadataCommand(), a.templateCommand(), a.trustCommand())
}

// subject says whether arguments are about the server or an instance: the first
// argument is an instance unless it can only be a key.
func (a *app) subject(args []string) (thing, []string, error) {
	if len(args) > 0 && !isKey(args[0]) {
		t, err := a.on(args[0])
		return t, args[1:], err
	}
	t, err := a.on("")
	return t, args, err
}

// serverOf is the server as a cluster member has it. --target is about the server:
// an instance is where it is.
func (t thing) serverOf(cmd *cobra.Command, target string) (thing, error) {
	if target != "" && t.name != "" {
		return t, usagef(cmd, "--target is about the server's configuration: leave %s out, or --target", t.name)
	}
	return t.aimed(target), nil
}

// isKey says whether an argument is KEY=VALUE.
func isKey(arg string) bool { return strings.Contains(arg, "=") }

func (a *app) configGetCommand() *cobra.Command {
	var expanded bool
	var target string
	cmd := &cobra.Command{
		Use:   "get [REMOTE:][INSTANCE] KEY",
		Short: "Print a configuration key",
		Example: `  muster config get web limits.memory
  muster config get web limits.memory --expanded
  muster config get core.https_address`,
		Args:              between(1, 2),
		ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			key := args[len(args)-1]
			if len(args) == 1 && !strings.Contains(key, ".") {
				// Keys have a dot, which no instance has.
				return usagef(cmd, "%q is no key: want %s", key, cmd.UseLine())
			}
			t, err := a.on(strings.Join(args[:len(args)-1], ""))
			if err == nil {
				t, err = t.serverOf(cmd, target)
			}
			if err != nil {
				return err
			}
			if t.name == "" {
				server, _, err := t.Server(cmd.Context())
				if err != nil {
					return err
				}
				value, ok := server.Config[key]
				if !ok {
					value = ""
				}
				fmt.Fprintln(a.stdout, value)
				return nil
			}
			instance, _, err := t.Instance(cmd.Context(), t.name)
			if err != nil {
				return err
			}
			config := instance.Config
			if expanded {
				config = instance.ExpandedConfig
			}
			fmt.Fprintln(a.stdout, config[key])
			return nil
		},
	}
	cmd.Flags().BoolVarP(&expanded, "expanded", "e", false, "with what the profiles give")
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) configSetCommand() *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use:   "set [REMOTE:][INSTANCE] KEY=VALUE...",
		Short: "Set configuration keys",
		Long:  `Set configuration keys of an instance, or of the server. The value "-" is read from standard input.`,
		Example: `  muster config set web limits.cpu=2 limits.memory=1GiB
  muster config set web user.user-data=- < cloud-init.yaml
  muster config set core.https_address '[::]:8443'`,
		Args:              between(1, -1),
		ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			// "set KEY VALUE" is the server's, "set INSTANCE KEY VALUE" an
			// instance's: the older way, without the equals sign. Keys have a
			// dot, which no instance has.
			var t thing
			var rest []string
			var err error
			if len(args) == 2 && !isKey(args[0]) && !isKey(args[1]) && strings.Contains(args[0], ".") {
				t, err = a.on("")
				rest = args
			} else {
				t, rest, err = a.subject(args)
			}
			if err == nil {
				t, err = t.serverOf(cmd, target)
			}
			if err != nil {
				return err
			}
			if len(rest) == 0 {
				return usagef(cmd, "too few arguments: want %s", cmd.UseLine())
			}
			changes, err := a.pairs(rest)
			if err != nil {
				return err
			}
			return a.setConfig(cmd.Context(), t, changes)
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) setConfig(ctx context.Context, t thing, changes map[string]string) error {
	if t.name == "" {
		patch := api.ServerPut{Config: map[string]any{}}
		for key, value := range changes {
			patch.Config[key] = value
		}
		return t.PatchServer(ctx, patch)
	}
	return t.Change(ctx, t.name, func(put *api.InstancePut) error {
		put.Config = apply(put.Config, changes)
		return nil
	})
}

func (a *app) configUnsetCommand() *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use:   "unset [REMOTE:][INSTANCE] KEY",
		Short: "Remove a configuration key",
		Example: `  muster config unset web limits.memory
  muster config unset core.https_address`,
		Args:              between(1, 2),
		ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.on(strings.Join(args[:len(args)-1], ""))
			if err == nil {
				t, err = t.serverOf(cmd, target)
			}
			if err != nil {
				return err
			}
			key := args[len(args)-1]
			if t.name != "" {
				instance, _, err := t.Instance(cmd.Context(), t.name)
				if err != nil {
					return err
				}
				if _, ok := instance.Config[key]; !ok {
					return fmt.Errorf("%s has no key %q of its own to remove", args[0], key)
				}
			}
			return a.setConfig(cmd.Context(), t, map[string]string{key: ""})
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) configShowCommand() *cobra.Command {
	var expanded bool
	var target string
	cmd := &cobra.Command{
		Use:   "show [REMOTE:][INSTANCE[/SNAPSHOT]]",
		Short: "Show the configuration as YAML",
		Example: `  muster config show web
  muster config show web --expanded
  muster config show web/before-upgrade
  muster config show`,
		Args:              between(0, 1),
		ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.on(strings.Join(args, ""))
			if err == nil {
				t, err = t.serverOf(cmd, target)
			}
			if err != nil {
				return err
			}
			instance, snapshot, isSnapshot := strings.Cut(t.name, "/")
			switch {
			case t.name == "":
				server, _, err := t.Server(cmd.Context())
				if err != nil {
					return err
				}
				return a.yaml(server.ServerPut)
			case isSnapshot:
				s, _, err := t.Snapshot(cmd.Context(), instance, snapshot)
				if err != nil {
					return err
				}
				if expanded {
					s.Config, s.Devices = s.ExpandedConfig, s.ExpandedDevices
				}
				s.ExpandedConfig, s.ExpandedDevices = nil, nil
				return a.yaml(s)
			}
			i, _, err := t.Instance(cmd.Context(), instance)
			if err != nil {
				return err
			}
			if expanded {
				i.Config, i.Devices = i.ExpandedConfig, i.ExpandedDevices
			}
			return a.yaml(i.InstancePut)
		},
	}
	cmd.Flags().BoolVarP(&expanded, "expanded", "e", false, "with what the profiles give")
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) configEditCommand() *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use:   "edit [REMOTE:][INSTANCE[/SNAPSHOT]]",
		Short: "Edit the configuration as YAML",
		Long:  "Edit the configuration with $EDITOR; without a terminal, the whole new configuration is read from standard input.",
		Example: `  muster config edit web
  muster config show web | sed s/1GiB/2GiB/ | muster config edit web`,
		Args:              between(0, 1),
		ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := a.on(strings.Join(args, ""))
			if err == nil {
				t, err = t.serverOf(cmd, target)
			}
			if err != nil {
				return err
			}
			instance, snapshot, isSnapshot := strings.Cut(t.name, "/")
			switch {
			case t.name == "":
				server, etag, err := t.Server(ctx)
				if err != nil {
					return err
				}
				return editYAML(ctx, a, server.ServerPut, func(put api.ServerPut) error { return t.UpdateServer(ctx, put, etag) })
			case isSnapshot:
				s, etag, err := t.Snapshot(ctx, instance, snapshot)
				if err != nil {
					return err
				}
				return editYAML(ctx, a, s.InstanceSnapshotPut, func(put api.InstanceSnapshotPut) error {
					op, err := t.UpdateSnapshot(ctx, instance, snapshot, put, etag)
					return a.done(ctx, "Changing "+t.name, op, err)
				})
			}
			i, etag, err := t.Instance(ctx, instance)
			if err != nil {
				return err
			}
			return editYAML(ctx, a, i.InstancePut, func(put api.InstancePut) error {
				op, err := t.UpdateInstance(ctx, instance, put, etag)
				return a.done(ctx, "Changing "+instance, op, err)
			})
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}

// editHelp opens every document that is edited.
const editHelp = "# Lines that start with # are not read. Saving without a change changes nothing.\n"

// editYAML lets the user change a value as YAML. What the document leaves out is
// empty in the value that write gets.
func editYAML[T any](ctx context.Context, a *app, current T, write func(T) error) error {
	text, err := yamldoc.Marshal(current)
	if err != nil {
		return err
	}
	return a.edit(ctx, append([]byte(editHelp), text...), func(text []byte) error {
		var changed T
		if err := yamldoc.Unmarshal(text, &changed); err != nil {
			return err
		}
		return write(changed)
	})
}

// keysOf lists the keys of a map in order.
func keysOf[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// longDate writes a day the way image lists do.
func longDate(t time.Time) string {
	if api.IsUnset(t) {
		return ""
	}
	return t.UTC().Format("Jan 2, 2006 at 3:04pm (MST)")
}
