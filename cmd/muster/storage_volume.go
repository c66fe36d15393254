package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/rest/api"
)

func (a *app) volumeCommand() *cobra.Command {
	return family("volume", "Manage the volumes of a pool", "  muster storage volume list default",
		a.volumeListCommand(), a.volumeCreateCommand(),
		a.volumeSimple("show", "Show a volume as YAML", func(ctx context.Context, t thing, kind, name string) error {
			volume, _, err := t.Volume(ctx, t.name, kind, name)
			if err != nil {
				return err
			}
			return a.yaml(volume)
		}),
		a.volumeSimple("edit", "Edit a volume as YAML", func(ctx context.Context, t thing, kind, name string) error {
			volume, etag, err := t.Volume(ctx, t.name, kind, name)
			if err != nil {
				return err
			}
			return editYAML(ctx, a, volume, func(changed api.StorageVolume) error {
				return t.UpdateVolume(ctx, t.name, kind, name, changed.StorageVolumePut, etag)
			})
		}),
		a.volumeSimple("delete", "Delete a volume", func(ctx context.Context, t thing, kind, name string) error {
			err := t.DeleteVolume(ctx, t.name, kind, name)
			if err == nil {
				a.say("Storage volume %s deleted", name)
			}
			return err
		}))
}

// volumeSimple is a command with a pool and a volume for its arguments.
func (a *app) volumeSimple(name, short string, run func(ctx context.Context, t thing, kind, name string) error) *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use: name + " [REMOTE:]POOL [TYPE/]VOLUME", Short: short, Example: "  muster storage volume " + name + " default data",
		Args: between(2, 2), ValidArgsFunction: a.complete(poolNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "storage pool")
			if err != nil {
				return err
			}
			kind, volume, found := strings.Cut(args[1], "/")
			if !found {
				kind, volume = "custom", args[1]
			}
			return run(cmd.Context(), t.aimed(target), kind, volume)
		},
	}
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) volumeListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:]POOL", Aliases: []string{"ls"}, Short: "List volumes", Example: "  muster storage volume list default",
		Args: between(1, 1), ValidArgsFunction: a.complete(poolNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "storage pool")
			if err != nil {
				return err
			}
			volumes, err := t.Volumes(cmd.Context(), t.name)
			if err != nil {
				return err
			}
			located, err := t.clustered(cmd.Context())
			if err != nil {
				return err
			}
			d := table.Data{Header: []string{"TYPE", "NAME", "DESCRIPTION", "CONTENT-TYPE", "USED BY"}, Values: volumes}
			if located {
				d.Header = append(d.Header, "LOCATION")
			}
			for _, v := range volumes {
				kind := v.Type
				if strings.Contains(v.Name, "/") {
					kind += " (snapshot)"
				}
				row := []string{kind, v.Name, v.Description, v.ContentType, strconv.Itoa(len(v.UsedBy))}
				if located {
					row = append(row, v.Location)
				}
				d.Rows = append(d.Rows, row)
			}
			table.SortRows(d.Rows)
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) volumeCreateCommand() *cobra.Command {
	var kind, description, target string
	cmd := &cobra.Command{
		Use: "create [REMOTE:]POOL VOLUME [KEY=VALUE...]", Short: "Create an empty volume",
		Example: "  muster storage volume create default data size=5GiB",
		Args:    between(2, -1), ValidArgsFunction: a.complete(poolNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "storage pool")
			if err != nil {
				return err
			}
			if strings.Contains(args[1], "/") {
				return fmt.Errorf("%q: only custom volumes can be created, and their names have no slash", args[1])
			}
			t = t.aimed(target)
			config, err := a.pairs(args[2:])
			if err != nil {
				return err
			}
			post := api.StorageVolumesPost{Name: args[1], Type: "custom", ContentType: kind}
			post.Config, post.Description = config, description
			if err := t.CreateVolume(cmd.Context(), t.name, post); err != nil {
				return err
			}
			a.say("Storage volume %s created", args[1])
			return nil
		},
	}
	cmd.Flags().StringVar(&kind, "type", "filesystem", "filesystem or block")
	cmd.Flags().StringVar(&description, "description", "", "what the volume is for")
	a.targetFlag(cmd, &target)
	return cmd
}
