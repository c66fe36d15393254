package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func (a *app) metadataCommand() *cobra.Command {
	show := &cobra.Command{
		Use: "show [REMOTE:]INSTANCE", Short: "Show the metadata as YAML", Example: "  muster config metadata show web",
		Args: between(1, 1), ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			metadata, _, err := t.Metadata(cmd.Context(), t.name)
			if err != nil {
				return err
			}
			return a.yaml(metadata)
		},
	}
	edit := &cobra.Command{
		Use: "edit [REMOTE:]INSTANCE", Short: "Edit the metadata as YAML", Example: "  muster config metadata edit web",
		Args: between(1, 1), ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			metadata, etag, err := t.Metadata(ctx, t.name)
			if err != nil {
				return err
			}
			return editYAML(ctx, a, metadata, func(changed api.ImageMetadata) error {
				return t.UpdateMetadata(ctx, t.name, changed, etag)
			})
		},
	}
	cmd := family("metadata", "List the server's configuration keys, or manage the image metadata that an instance keeps",
		"  muster config metadata\n  muster config metadata show web", show, edit)
	var format string
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.listServerKeys(cmd.Context(), format) }
	formatFlag(cmd, &format)
	return cmd
}

// listServerKeys lists the keys of the server's configuration, and which have no effect yet.
func (a *app) listServerKeys(ctx context.Context, format string) error {
	t, err := a.on("")
	if err != nil {
		return err
	}
	keys, err := t.ServerKeys(ctx)
	if err != nil {
		return err
	}
	d := table.Data{Header: []string{"KEY", "SCOPE", "DEFAULT", "EFFECT", "DESCRIPTION"}, Values: keys}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		key, effect := keys[name], "yes"
		if key.Inert {
			effect = "none yet"
		}
		d.Rows = append(d.Rows, []string{name, key.Scope, key.DefaultDesc, effect, key.ShortDesc})
	}
	return a.render(format, d)
}

func (a *app) templateCommand() *cobra.Command {
	// Every member takes an instance, and most a template.
	sub := func(use, short, example string, count int, run func(cmd *cobra.Command, t thing, name string) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Example: example,
			Args: between(count, count), ValidArgsFunction: a.complete(instanceNames, nothing),
			RunE: func(cmd *cobra.Command, args []string) error {
				t, err := a.named(args[0], "instance")
				if err != nil {
					return err
				}
				return run(cmd, t, args[count-1])
			},
		}
	}
	var format string
	list := sub("list [REMOTE:]INSTANCE", "List template files", "  muster config template list web", 1, func(cmd *cobra.Command, t thing, _ string) error {
		names, err := t.Templates(cmd.Context(), t.name)
		if err != nil {
			return err
		}
		d := table.Data{Header: []string{"FILENAME"}, Values: names}
		for _, name := range names {
			d.Rows = append(d.Rows, []string{name})
		}
		table.SortRows(d.Rows)
		return a.render(format, d)
	})
	formatFlag(list, &format)
	return family("template", "Manage the template files of an instance", "  muster config template list web", list,
		sub("show [REMOTE:]INSTANCE TEMPLATE", "Print a template file", "  muster config template show web hosts.tpl", 2, func(cmd *cobra.Command, t thing, name string) error {
			text, err := t.Template(cmd.Context(), t.name, name)
			if err == nil {
				_, err = a.stdout.Write(text)
			}
			return err
		}),
		sub("create [REMOTE:]INSTANCE TEMPLATE", "Create an empty template file", "  muster config template create web hosts.tpl", 2, func(cmd *cobra.Command, t thing, name string) error {
			if _, err := t.Template(cmd.Context(), t.name, name); err == nil {
				return fmt.Errorf("there is a template %q already", name)
			}
			return t.WriteTemplate(cmd.Context(), t.name, name, nil)
		}),
		sub("edit [REMOTE:]INSTANCE TEMPLATE", "Edit a template file", "  muster config template edit web hosts.tpl", 2, func(cmd *cobra.Command, t thing, name string) error {
			text, err := t.Template(cmd.Context(), t.name, name)
			if err != nil && !client.IsNotFound(err) {
				return err
			}
			return a.edit(cmd.Context(), text, func(text []byte) error { return t.WriteTemplate(cmd.Context(), t.name, name, text) })
		}),
		sub("delete [REMOTE:]INSTANCE TEMPLATE", "Delete a template file", "  muster config template delete web hosts.tpl", 2, func(cmd *cobra.Command, t thing, name string) error {
			return t.DeleteTemplate(cmd.Context(), t.name, name)
		}))
}
