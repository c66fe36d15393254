package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/client"
)

func (a *app) imageExportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export [REMOTE:]IMAGE [TARGET]",
		Short: "Download an image",
		Long: `Download an image: one file, or for a split image two, the second with .root or
.squashfs in its name. The target is a directory, a file name without its end,
or "-" for standard output; without one, the current directory.`,
		Example: `  muster image export busybox
  muster image export busybox backup/
  muster image export busybox - | sha256sum`,
		Args: between(1, 2), ValidArgsFunction: a.complete(aliasNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "image")
			if err != nil {
				return err
			}
			image, _, err := findImage(cmd.Context(), t)
			if err != nil {
				return err
			}
			target := "."
			if len(args) == 2 {
				target = args[1]
			}
			return t.ExportImage(cmd.Context(), image.Fingerprint, "", func(file client.ExportedFile) error {
				if target == "-" {
					if file.Field != "" {
						return errors.New("a split image is two files, which standard output can't hold: name a directory")
					}
					_, err := io.Copy(a.stdout, file.Content)
					return err
				}
				name := exportName(target, image.Fingerprint, file)
				if err := a.saveExport(file, name); err != nil {
					return err
				}
				a.say("%s", name)
				return nil
			})
		},
	}
}

// exportName says where a file of an image goes.
func exportName(target, fingerprint string, file client.ExportedFile) string {
	proposed := file.Name
	if proposed == "" {
		proposed = fingerprint
	}
	info, err := os.Stat(target)
	if err == nil && info.IsDir() || strings.HasSuffix(target, "/") {
		return filepath.Join(target, proposed)
	}
	// The end of the proposed name says what kind of file it is.
	end := ""
	for _, each := range []string{".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tar.lzma", ".tar", ".squashfs"} {
		if strings.HasSuffix(proposed, each) {
			end = each
			break
		}
	}
	if strings.HasSuffix(target, end) && file.Field != "rootfs" {
		end = ""
	}
	if file.Field == "rootfs" && end != ".squashfs" {
		end = ".root" + end
	}
	return target + end
}

// saveExport writes a file, whole or not at all.
func (a *app) saveExport(file client.ExportedFile, name string) error {
	to, err := os.CreateTemp(filepath.Dir(name), ".muster-export-*")
	if err != nil {
		return err
	}
	// After the rename there is nothing left to remove.
	defer os.Remove(to.Name())
	bar := a.progress("Exporting " + filepath.Base(name))
	_, err = io.Copy(to, watched(file.Content, bar.bytes(max(file.Size, 0))))
	bar.close()
	// CreateTemp's 0600 is for secrets; an image is none.
	if err = errors.Join(err, to.Chmod(0o644), to.Close()); err != nil {
		return err
	}
	return os.Rename(to.Name(), name)
}

func (a *app) imageCopyCommand() *cobra.Command {
	var flags newImage
	var copyAliases bool
	cmd := &cobra.Command{
		Use: "copy [REMOTE:]IMAGE REMOTE:", Aliases: []string{"cp"}, Short: "Copy an image to another server",
		Long:    "Copy an image to another server. It travels through this machine, so the servers need not reach each other.",
		Example: "  muster image copy busybox far: --copy-aliases",
		Args:    between(2, 2), ValidArgsFunction: a.complete(aliasNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := a.named(args[0], "image")
			if err != nil {
				return err
			}
			to, err := a.on(args[1])
			if err != nil {
				return err
			}
			if to.name != "" {
				return usagef(cmd, "%q is no remote: it has no colon at its end", args[1])
			}
			return a.copyImage(cmd.Context(), from, to, flags, copyAliases)
		},
	}
	flags.flags(cmd)
	cmd.Flags().BoolVar(&copyAliases, "copy-aliases", false, "give the copy the same aliases")
	return cmd
}

func (a *app) copyImage(ctx context.Context, from, to thing, flags newImage, copyAliases bool) error {
	image, _, err := findImage(ctx, from)
	if err != nil {
		return err
	}
	if copyAliases {
		flags.aliases = append(flags.aliases, aliasesOf(image)...)
	}
	scratch, err := os.MkdirTemp("", "muster-image-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	var files []string
	err = from.ExportImage(ctx, image.Fingerprint, "", func(file client.ExportedFile) error {
		// Each in a directory of its own, since nothing says that the names
		// differ.
		dir := filepath.Join(scratch, fmt.Sprint(len(files)))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		name := filepath.Join(dir, orElse(file.Name, image.Fingerprint))
		files = append(files, name)
		return a.saveExport(file, name)
	})
	if err != nil {
		return fmt.Errorf("download from %s: %w", from.remote, err)
	}
	fingerprint, err := a.upload(ctx, to, files, image.Properties, flags)
	if err != nil {
		return fmt.Errorf("upload to %s: %w", to.remote, err)
	}
	a.say("Image copied with fingerprint: %s", fingerprint)
	return nil
}
