package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func (a *app) imageCommand() *cobra.Command {
	return family("image", "Manage images", `  muster image build busybox --alias busybox
  muster image import rootfs.tar.xz --alias mine
  muster image list`,
		a.imageListCommand(), a.imageImportCommand(), a.imageExportCommand(), a.imageBuildCommand(), a.imageCopyCommand(),
		a.imageSimple("info", "Show what an image is", a.imageInfo),
		a.imageSimple("show", "Show an image's properties as YAML", func(ctx context.Context, t thing, image api.Image, _ string) error {
			return a.yaml(image.ImagePut)
		}),
		a.imageSimple("edit", "Edit an image's properties as YAML", func(ctx context.Context, t thing, image api.Image, etag string) error {
			return editYAML(ctx, a, image.ImagePut, func(put api.ImagePut) error {
				return t.UpdateImage(ctx, image.Fingerprint, put, etag)
			})
		}),
		a.imageSimple("refresh", "Fetch a newer version from where the image came", func(ctx context.Context, t thing, image api.Image, _ string) error {
			op, err := t.RefreshImage(ctx, image.Fingerprint)
			if err := a.done(ctx, "Refreshing "+t.name, op, err); err != nil {
				return err
			}
			if refreshed, _ := op.Metadata["refreshed"].(bool); refreshed {
				a.say("Image %s refreshed", t.name)
			} else {
				a.say("Image %s was up to date", t.name)
			}
			return nil
		}),
		a.imageDeleteCommand(), a.imagePropertyCommand("get-property"), a.imagePropertyCommand("set-property"), a.imagePropertyCommand("unset-property"),
		a.imageAliasCommand())
}

// findImage finds an image by alias or fingerprint, with advice when there is
// none.
func findImage(ctx context.Context, t thing) (api.Image, string, error) {
	image, etag, err := t.ResolveImage(ctx, t.name)
	if client.IsNotFound(err) {
		return image, "", advise(fmt.Errorf("there is no image %q", t.name), "`muster image list` shows what there is.")
	}
	return image, etag, err
}

// imageSimple is a command with an image for its only argument.
func (a *app) imageSimple(name, short string, run func(ctx context.Context, t thing, image api.Image, etag string) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " [REMOTE:]IMAGE", Short: short, Example: "  muster image " + name + " busybox",
		Args: between(1, 1), ValidArgsFunction: a.complete(aliasNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "image")
			if err != nil {
				return err
			}
			image, etag, err := findImage(cmd.Context(), t)
			if err != nil {
				return err
			}
			return run(cmd.Context(), t, image, etag)
		},
	}
}

func (a *app) imageDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete [REMOTE:]IMAGE...", Aliases: []string{"rm"}, Short: "Delete images", Example: "  muster image delete busybox",
		Args: between(1, -1), ValidArgsFunction: a.complete(aliasNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				t, err := a.named(arg, "image")
				if err != nil {
					return err
				}
				image, _, err := findImage(cmd.Context(), t)
				if err != nil {
					return err
				}
				op, err := t.DeleteImage(cmd.Context(), image.Fingerprint)
				if err := a.done(cmd.Context(), "Deleting "+arg, op, err); err != nil {
					return fmt.Errorf("%s: %w", arg, err)
				}
			}
			return nil
		},
	}
}

func (a *app) imagePropertyCommand(name string) *cobra.Command {
	verb := strings.TrimSuffix(name, "-property")
	use, short, count := " PROPERTY", "Print a property of an image", 2
	example := "  muster image " + name + " busybox description"
	switch verb {
	case "set":
		use, short, count = " PROPERTY VALUE", "Set a property of an image", 3
		example += " 'Small and quick'"
	case "unset":
		short = "Remove a property of an image"
	}
	return &cobra.Command{
		Use: name + " [REMOTE:]IMAGE" + use, Short: short, Example: example,
		Args: between(count, count), ValidArgsFunction: a.complete(aliasNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "image")
			if err != nil {
				return err
			}
			image, _, err := findImage(cmd.Context(), t)
			if err != nil {
				return err
			}
			if verb == "get" {
				value, ok := image.Properties[args[1]]
				if !ok {
					return fmt.Errorf("image %s has no property %q", args[0], args[1])
				}
				fmt.Fprintln(a.stdout, value)
				return nil
			}
			value := ""
			if verb == "set" {
				value = args[2]
			}
			return t.ChangeImage(cmd.Context(), image.Fingerprint, func(put *api.ImagePut) error {
				put.Properties = apply(put.Properties, map[string]string{args[1]: value})
				return nil
			})
		},
	}
}

func (a *app) imageInfo(_ context.Context, _ thing, i api.Image, _ string) error {
	w := a.stdout
	fmt.Fprintf(w, "Fingerprint: %s\nSize: %s\nArchitecture: %s\nType: %s\nPublic: %s\n",
		i.Fingerprint, sizeDecimal(i.Size), i.Architecture, i.Type, strings.ToLower(yesNo(i.Public)))
	fmt.Fprintln(w, "Timestamps:")
	for _, each := range []struct{ name, value string }{
		{"Created", moment(i.CreatedAt)},
		{"Uploaded", moment(i.UploadedAt)},
		{"Expires", moment(i.ExpiresAt)},
		{"Last used", moment(i.LastUsedAt)},
	} {
		if each.name == "Created" && each.value == "" {
			continue
		}
		fmt.Fprintf(w, "    %s: %s\n", each.name, orElse(each.value, "never"))
	}
	fmt.Fprintln(w, "Properties:")
	for _, key := range keysOf(i.Properties) {
		fmt.Fprintf(w, "    %s: %s\n", key, i.Properties[key])
	}
	fmt.Fprintln(w, "Aliases:")
	for _, alias := range i.Aliases {
		fmt.Fprintf(w, "    - %s\n", alias.Name)
	}
	fmt.Fprintf(w, "Cached: %s\n", strings.ToLower(yesNo(i.Cached)))
	update := "disabled"
	if i.AutoUpdate {
		update = "enabled"
	}
	fmt.Fprintf(w, "Auto update: %s\n", update)
	if s := i.UpdateSource; s != nil {
		fmt.Fprintf(w, "Source:\n    Server: %s\n    Protocol: %s\n    Alias: %s\n", s.Server, s.Protocol, s.Alias)
	}
	if len(i.Profiles) > 0 {
		fmt.Fprintln(w, "Profiles:")
	}
	for _, profile := range i.Profiles {
		fmt.Fprintf(w, "    - %s\n", profile)
	}
	return nil
}

func (a *app) imageListCommand() *cobra.Command {
	var format, columns string
	cmd := &cobra.Command{
		Use: "list [REMOTE:] [FILTER...]", Aliases: []string{"ls"}, Short: "List images",
		Long: `List images. A filter is PROPERTY=VALUE, a part of an alias, or the start of a
fingerprint. Columns are letters: l alias, L all aliases, f fingerprint, F the
same in full, p public, d description, a architecture, t type, s size, u upload
date.`,
		Example: "  muster image list\n  muster image list os=busybox --format json\n  muster image list -c lF --format csv",
		Args:    between(0, -1), ValidArgsFunction: a.complete(aliasNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, filters, err := a.server(args)
			if err != nil {
				return err
			}
			for _, letter := range columns {
				if _, ok := imageColumns[letter]; !ok && letter != ',' {
					return usagef(cmd, "columns %q: no column is called %q", columns, letter)
				}
			}
			images, err := t.Images(cmd.Context(), "")
			if err != nil {
				return err
			}
			kept := slices.DeleteFunc(images, func(i api.Image) bool { return !imageFits(i, filters) })
			if kept == nil {
				kept = []api.Image{}
			}
			return a.render(format, imageTable(kept, strings.ReplaceAll(columns, ",", "")))
		},
	}
	cmd.Flags().StringVarP(&columns, "columns", "c", "lfpdatsu", "columns to show")
	formatFlag(cmd, &format)
	return cmd
}

func imageFits(i api.Image, filters []string) bool {
	for _, filter := range filters {
		key, value, isPair := strings.Cut(filter, "=")
		fits := strings.HasPrefix(i.Fingerprint, filter) ||
			slices.ContainsFunc(i.Aliases, func(alias api.ImageAlias) bool { return strings.Contains(alias.Name, filter) })
		if isPair {
			fits = strings.EqualFold(i.Properties[key], value) ||
				(key == "architecture" && i.Architecture == value) || (key == "type" && i.Type == value)
		}
		if !fits {
			return false
		}
	}
	return true
}

var imageColumns = map[rune]struct {
	header string
	show   func(api.Image) string
}{
	'l': {"ALIAS", shortestAlias},
	'L': {"ALIASES", func(i api.Image) string { return strings.Join(aliasesOf(i), "\n") }},
	'f': {"FINGERPRINT", func(i api.Image) string { return elided(i.Fingerprint, 12) }},
	'F': {"FINGERPRINT", func(i api.Image) string { return i.Fingerprint }},
	'p': {"PUBLIC", func(i api.Image) string { return strings.ToLower(yesNo(i.Public)) }},
	'd': {"DESCRIPTION", func(i api.Image) string { return i.Properties["description"] }},
	'a': {"ARCHITECTURE", func(i api.Image) string { return i.Architecture }},
	't': {"TYPE", func(i api.Image) string { return strings.ToUpper(i.Type) }},
	's': {"SIZE", func(i api.Image) string { return sizeDecimal(i.Size) }},
	'u': {"UPLOAD DATE", func(i api.Image) string { return longDate(i.UploadedAt) }},
}

func aliasesOf(i api.Image) []string {
	var names []string
	for _, alias := range i.Aliases {
		names = append(names, alias.Name)
	}
	return names
}

func shortestAlias(i api.Image) string {
	names := aliasesOf(i)
	if len(names) == 0 {
		return ""
	}
	shortest := slices.MinFunc(names, func(x, y string) int { return len(x) - len(y) })
	if len(names) == 1 {
		return shortest
	}
	return fmt.Sprintf("%s (%d more)", shortest, len(names)-1)
}

func imageTable(images []api.Image, columns string) table.Data {
	d := table.Data{Values: images}
	for _, letter := range columns {
		d.Header = append(d.Header, imageColumns[letter].header)
	}
	for _, image := range images {
		var row []string
		for _, letter := range columns {
			row = append(row, imageColumns[letter].show(image))
		}
		d.Rows = append(d.Rows, row)
	}
	if len(columns) > 0 {
		table.SortRows(d.Rows)
	}
	return d
}
