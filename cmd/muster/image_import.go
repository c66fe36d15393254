package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

// newImage are the flags of commands that make images.
type newImage struct {
	aliases []string
	public  bool
	reuse   bool
}

func (n *newImage) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&n.aliases, "alias", nil, "alias to give the image")
	cmd.Flags().BoolVar(&n.public, "public", false, "let anybody download the image")
	cmd.Flags().BoolVar(&n.reuse, "reuse", false, "take over aliases that other images have")
}

func (a *app) imageImportCommand() *cobra.Command {
	var flags newImage
	cmd := &cobra.Command{
		Use:   "import FILE [ROOTFS FILE] [REMOTE:] [PROPERTY=VALUE...]",
		Short: "Import an image from files",
		Long: `Import an image: one tarball that holds metadata.yaml and rootfs/, or two files,
the metadata tarball and the root file system (a tarball or a squashfs).`,
		Example: `  muster image import busybox.tar.gz --alias busybox
  muster image import metadata.tar.xz rootfs.squashfs --alias debian os=debian
  muster image import busybox.tar.gz far: --public`,
		Args: between(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, t, properties, err := a.importArguments(args)
			if err != nil {
				return &usageError{err: err, path: cmd.CommandPath()}
			}
			fingerprint, err := a.upload(cmd.Context(), t, files, properties, flags)
			if err != nil {
				return err
			}
			a.say("Image imported with fingerprint: %s", fingerprint)
			return nil
		},
	}
	flags.flags(cmd)
	return cmd
}

// importArguments sorts the arguments of import.
func (a *app) importArguments(args []string) (files []string, t thing, properties map[string]string, err error) {
	remoteArg := ""
	properties = map[string]string{}
	for n, arg := range args {
		key, value, isPair := strings.Cut(arg, "=")
		_, missing := os.Stat(arg)
		switch {
		case n > 0 && strings.HasSuffix(arg, ":") && missing != nil:
			remoteArg = arg
		case n > 0 && isPair && missing != nil:
			properties[key] = value
		default:
			files = append(files, arg)
		}
	}
	if len(files) > 2 {
		return nil, t, nil, fmt.Errorf("an image is one file or two, not %d", len(files))
	}
	t, err = a.on(remoteArg)
	return files, t, properties, err
}

// upload imports an image from one file or two, with its aliases, and returns
// its fingerprint.
func (a *app) upload(ctx context.Context, t thing, files []string, properties map[string]string, flags newImage) (string, error) {
	// A taken alias is found out before the upload, not after it.
	if err := a.checkAliases(ctx, t.Client, flags); err != nil {
		return "", err
	}
	u := client.ImageUpload{Public: flags.public, Properties: properties}
	for n, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return "", err
		}
		if !info.Mode().IsRegular() {
			return "", fmt.Errorf("%s is no regular file", name)
		}
		part := client.ImagePart{Name: filepath.Base(name), Content: file, Size: info.Size()}
		if n == 0 {
			u.Meta = part
		} else {
			u.Rootfs = &part
		}
	}
	bar := a.progress("Uploading " + filepath.Base(files[0]))
	u.Report = bar.bytes(u.Size())
	op, err := t.UploadImage(ctx, u)
	bar.close()
	if err := a.done(ctx, "Importing "+filepath.Base(files[0]), op, err); err != nil {
		return "", err
	}
	fingerprint := op.Fingerprint()
	return fingerprint, a.giveAliases(ctx, t.Client, fingerprint, flags)
}

func (a *app) checkAliases(ctx context.Context, c *client.Client, flags newImage) error {
	if flags.reuse {
		return nil
	}
	for _, name := range flags.aliases {
		_, _, err := c.ImageAlias(ctx, name)
		if err == nil {
			return advise(fmt.Errorf("the alias %q is taken", name), "With --reuse, it is moved to the new image.")
		}
		if !client.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// giveAliases points aliases at an image.
func (a *app) giveAliases(ctx context.Context, c *client.Client, fingerprint string, flags newImage) error {
	for _, name := range flags.aliases {
		target := api.ImageAliasesEntryPut{Target: fingerprint}
		old, etag, err := c.ImageAlias(ctx, name)
		switch {
		case client.IsNotFound(err):
			err = c.CreateImageAlias(ctx, api.ImageAliasesPost{Name: name, ImageAliasesEntryPut: target})
		case err == nil:
			target.Description = old.Description
			err = c.UpdateImageAlias(ctx, name, target, etag)
		}
		if err != nil {
			return fmt.Errorf("the image %s is there, but its alias %s is not: %w", elided(fingerprint, 12), name, err)
		}
	}
	return nil
}
