package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/rest/api"
)

func (a *app) imageAliasCommand() *cobra.Command {
	return family("alias", "Manage the names of images", "  muster image alias create small busybox",
		a.imageAliasListCommand(),
		&cobra.Command{
			Use: "create [REMOTE:]ALIAS IMAGE", Short: "Name an image", Example: "  muster image alias create small busybox",
			Args: between(2, 2), ValidArgsFunction: a.complete(nothing, aliasNames),
			RunE: func(cmd *cobra.Command, args []string) error {
				t, err := a.named(args[0], "alias")
				if err != nil {
					return err
				}
				image := t
				image.name = args[1]
				found, _, err := findImage(cmd.Context(), image)
				if err != nil {
					return err
				}
				return t.CreateImageAlias(cmd.Context(), api.ImageAliasesPost{
					Name: t.name, ImageAliasesEntryPut: api.ImageAliasesEntryPut{Target: found.Fingerprint},
				})
			},
		},
		&cobra.Command{
			Use: "delete [REMOTE:]ALIAS", Aliases: []string{"rm"}, Short: "Forget a name; the image stays", Example: "  muster image alias delete small",
			Args: between(1, 1), ValidArgsFunction: a.complete(aliasNames, nothing),
			RunE: func(cmd *cobra.Command, args []string) error {
				t, err := a.named(args[0], "alias")
				if err != nil {
					return err
				}
				return t.DeleteImageAlias(cmd.Context(), t.name)
			},
		},
		&cobra.Command{
			Use: "rename [REMOTE:]ALIAS NAME", Aliases: []string{"mv"}, Short: "Rename an alias", Example: "  muster image alias rename small tiny",
			Args: between(2, 2), ValidArgsFunction: a.complete(aliasNames, nothing),
			RunE: func(cmd *cobra.Command, args []string) error {
				t, err := a.named(args[0], "alias")
				if err != nil {
					return err
				}
				return t.RenameImageAlias(cmd.Context(), t.name, args[1])
			},
		})
}

func (a *app) imageAliasListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:] [FILTER]", Aliases: []string{"ls"}, Short: "List the names of images",
		Long:    "List the names of images; a filter is a part of the name, or the start of a fingerprint.",
		Example: "  muster image alias list",
		Args:    between(0, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, filters, err := a.server(args)
			if err != nil {
				return err
			}
			if len(filters) > 1 {
				return fmt.Errorf("one filter is enough")
			}
			filter := strings.Join(filters, "")
			aliases, err := t.ImageAliases(cmd.Context())
			if err != nil {
				return err
			}
			kept := []api.ImageAliasesEntry{}
			d := table.Data{Header: []string{"ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"}}
			for _, alias := range aliases {
				if strings.Contains(alias.Name, filter) || strings.HasPrefix(alias.Target, filter) {
					kept = append(kept, alias)
					d.Rows = append(d.Rows, []string{alias.Name, elided(alias.Target, 12), strings.ToUpper(alias.Type), alias.Description})
				}
			}
			d.Values = kept
			table.SortRows(d.Rows)
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}
