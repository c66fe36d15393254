package main

import (
	"context"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/rest/api"
)

func (a *app) storageCommand() *cobra.Command {
	cmd := family("storage", "Manage storage pools and volumes", `  muster storage create fast btrfs source=/srv/fast
  muster storage info fast
  muster storage volume list fast`,
		a.storageListCommand(), a.storageCreateCommand(),
		a.simple(poolNoun, "show", "Show a pool as YAML", func(ctx context.Context, t thing) error {
			pool, _, err := t.Pool(ctx, t.name)
			if err != nil {
				return err
			}
			return a.yaml(pool)
		}),
		a.simple(poolNoun, "info", "Show how full a pool is, and who uses it", a.storageInfo),
		a.simple(poolNoun, "delete", "Delete an empty pool", func(ctx context.Context, t thing) error {
			err := t.DeletePool(ctx, t.name)
			if err == nil {
				a.say("Storage pool %s deleted", t.name)
			}
			return err
		}),
		a.simple(poolNoun, "edit", "Edit a pool as YAML", func(ctx context.Context, t thing) error {
			pool, etag, err := t.Pool(ctx, t.name)
			if err != nil {
				return err
			}
			return editYAML(ctx, a, pool, func(changed api.StoragePool) error {
				return t.UpdatePool(ctx, t.name, changed.StoragePoolPut, etag)
			})
		}),
		a.volumeCommand())
	cmd.AddCommand(a.keyCommands(keyed{
		noun: poolNoun, key: "user.owner", value: "ops",
		read: func(ctx context.Context, t thing) (map[string]string, error) {
			pool, _, err := t.Pool(ctx, t.name)
			return pool.Config, err
		},
		change: func(ctx context.Context, t thing, changes map[string]string) error {
			return t.ChangePool(ctx, t.name, func(put *api.StoragePoolPut) error {
				put.Config = apply(put.Config, changes)
				return nil
			})
		},
	})...)
	return cmd
}

func (a *app) storageListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List storage pools", Example: "  muster storage list",
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, _, err := a.server(args)
			if err != nil {
				return err
			}
			pools, err := t.Pools(cmd.Context())
			if err != nil {
				return err
			}
			clustered, err := t.clustered(cmd.Context())
			if err != nil {
				return err
			}
			d := table.Data{Header: []string{"NAME", "DRIVER", "SOURCE", "DESCRIPTION", "USED BY", "STATE"}, Values: pools}
			for _, p := range pools {
				d.Rows = append(d.Rows, []string{
					p.Name, p.Driver, p.Config["source"], p.Description, strconv.Itoa(len(p.UsedBy)), strings.ToUpper(p.Status),
				})
			}
			if clustered {
				// Each member has a source of its own; see `show --target`.
				d.Header = slices.Delete(d.Header, 2, 3)
				for i := range d.Rows {
					d.Rows[i] = slices.Delete(d.Rows[i], 2, 3)
				}
			}
			table.SortRows(d.Rows)
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) storageCreateCommand() *cobra.Command {
	var description, target string
	cmd := &cobra.Command{
		Use:   "create [REMOTE:]POOL DRIVER [KEY=VALUE...]",
		Short: "Create a storage pool",
		Long: `Create a storage pool with a driver: overlay (instances are made at once, whatever
the image's size), dir (plain directories) or btrfs. In a cluster, say with --target
what it is like on each member that is to have a source of its own, and then create
it without.`,
		Example: `  muster storage create big overlay source=/srv/big
  muster storage create fast btrfs size=20GiB
  muster storage create ssd dir source=/srv/ssd --target m1`,
		Args: between(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "storage pool")
			if err != nil {
				return err
			}
			t = t.aimed(target)
			config, err := a.pairs(args[2:])
			if err != nil {
				return err
			}
			post := api.StoragePoolsPost{Name: t.name, Driver: args[1]}
			post.Config, post.Description = config, description
			if err := t.CreatePool(cmd.Context(), post); err != nil {
				return err
			}
			if target != "" {
				a.say("Storage pool %s pending on member %s", t.name, target)
				return nil
			}
			a.say("Storage pool %s created", t.name)
			return nil
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "what the pool is for")
	a.targetFlag(cmd, &target)
	return cmd
}

func (a *app) storageInfo(ctx context.Context, t thing) error {
	pool, _, err := t.Pool(ctx, t.name)
	if err != nil {
		return err
	}
	resources, err := t.PoolResources(ctx, t.name)
	if err != nil {
		return err
	}
	used := map[string][]string{}
	for _, text := range pool.UsedBy {
		kind, name := usedBy(text)
		used[kind] = append(used[kind], name)
	}
	return a.yaml(poolReport{
		Info: poolSpace{
			pool.Description, pool.Driver, pool.Name, size(int64(resources.Space.Used)), size(int64(resources.Space.Total)),
		},
		UsedBy: used,
	})
}

// poolReport is what `storage info` prints, with lxc's words.
type poolReport struct {
	Info   poolSpace           `json:"info"`
	UsedBy map[string][]string `json:"used by"`
}

type poolSpace struct {
	Description string `json:"description"`
	Driver      string `json:"driver"`
	Name        string `json:"name"`
	Used        string `json:"space used"`
	Total       string `json:"total space"`
}

// usedBy reads a URL of a used_by list: the kind of thing, and its name.
func usedBy(text string) (kind, name string) {
	u, err := url.Parse(text)
	if err != nil {
		return "other", text
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) < 3 {
		return "other", text
	}
	// /1.0/instances/c1/snapshots/s1 is the snapshot c1/s1.
	if len(parts) == 5 && parts[3] == "snapshots" {
		return "snapshots", parts[2] + "/" + parts[4]
	}
	return parts[1], path.Base(u.Path)
}
