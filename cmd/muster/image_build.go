package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/node/image"
	"muster/rpc/client"
)

// imageBuild are the flags of every command that builds an image here.
type imageBuild struct {
	newImage
	output string
}

func (b *imageBuild) flags(cmd *cobra.Command) {
	b.newImage.flags(cmd)
	cmd.Flags().StringVarP(&b.output, "output", "o", "", "write the image to this file; nothing is imported")
}

func (a *app) imageBuildCommand() *cobra.Command {
	return family("build", "Build images without an image server", `  muster image build busybox --alias busybox
  muster image build debian --suite bookworm --alias debian/12`, a.imageBuildBusyboxCommand(), a.imageBuildDebianCommand())
}

// buildServer is the server that the image is for, by the arguments of a build.
func (a *app) buildServer(cmd *cobra.Command, args []string) (thing, error) {
	t, rest, err := a.server(args)
	if err == nil && len(rest) > 0 {
		err = usagef(cmd, "%q is no remote: it has no colon at its end", rest[0])
	}
	return t, err
}

func (a *app) imageBuildBusyboxCommand() *cobra.Command {
	var flags imageBuild
	var busybox string
	cmd := &cobra.Command{
		Use:   "busybox [REMOTE:]",
		Short: "Build a small system container image from a static busybox",
		Long: `Build a small system container image from a static busybox (Debian's package
busybox-static) and import it. It needs no network and takes a second. With
--output, it is written to a file instead.`,
		Example: `  muster image build busybox --alias busybox
  muster image build busybox --output busybox.tar.xz`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.buildServer(cmd, args)
			if err != nil {
				return err
			}
			if len(flags.aliases) == 0 {
				flags.aliases = []string{"busybox"}
			}
			return a.build(cmd.Context(), t, flags, func(dir string, c image.Compression) (image.Built, error) {
				built, err := image.BuildBusybox(cmd.Context(), image.BusyboxSpec{BusyboxPath: busybox, OutDir: dir, Compression: c})
				return built, advise(err, "A static busybox is in Debian's package busybox-static (`apt-get install busybox-static`).")
			})
		},
	}
	flags.flags(cmd)
	cmd.Flags().StringVar(&busybox, "busybox", "", "static busybox to use (default /bin/busybox)")
	return cmd
}

func (a *app) imageBuildDebianCommand() *cobra.Command {
	var flags imageBuild
	spec := image.DebianSpec{}
	cmd := &cobra.Command{
		Use:   "debian [REMOTE:]",
		Short: "Build a system container image of a Debian release with debootstrap",
		Long: `Build a system container image of a Debian release and import it. The program
debootstrap (Debian's package of that name) fetches the packages from a mirror of
Debian; it needs root, 600 MB of room below TMPDIR, and a minute or two. The image
boots systemd and gets its address by DHCP on eth0. With --output, it is written
to a file instead.`,
		Example: `  muster image build debian
  muster image build debian --suite bookworm --alias debian/12
  muster image build debian --include openssh-server,vim --alias debian-ssh
  muster image build debian --mirror http://deb.debian.org/debian --output debian.tar.xz`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.buildServer(cmd, args)
			if err != nil {
				return err
			}
			if len(flags.aliases) == 0 {
				flags.aliases = []string{"debian/" + spec.Suite}
				for number, suite := range debianReleases {
					if suite == spec.Suite {
						flags.aliases = append(flags.aliases, "debian/"+number)
					}
				}
			}
			return a.build(cmd.Context(), t, flags, func(dir string, c image.Compression) (image.Built, error) {
				// A taken alias is found out before the work, not after it.
				if flags.output == "" {
					if err := a.checkAliases(cmd.Context(), t.Client, flags.newImage); err != nil {
						return image.Built{}, err
					}
				}
				a.say("Building an image of Debian %s: this takes a minute or two", spec.Suite)
				shown := a.progress("Building")
				defer shown.close()
				spec.OutDir, spec.Compression, spec.CreatedAt, spec.Progress = dir, c, time.Now(), shown.step
				return image.BuildDebian(cmd.Context(), spec)
			})
		},
	}
	flags.flags(cmd)
	cmd.Flags().StringVar(&spec.Suite, "suite", "bookworm", "Debian release")
	cmd.Flags().StringVar(&spec.Mirror, "mirror", "", "mirror to fetch packages from (default: debootstrap's)")
	cmd.Flags().StringSliceVar(&spec.Packages, "include", nil, "packages to install besides")
	return cmd
}

// compressions by the end of a file's name.
var compressions = []struct {
	suffix string
	kind   image.Compression
}{{".tar.gz", image.Gzip}, {".tgz", image.Gzip}, {".tar.xz", image.XZ}, {".tar.zst", image.Zstd}, {".tar", image.None}}

// build lets create make an image in a directory, and then writes it to where
// --output says or imports it.
func (a *app) build(ctx context.Context, t thing, flags imageBuild, create func(dir string, c image.Compression) (image.Built, error)) error {
	compression := image.Gzip
	// Beside the output, so that it can be renamed into place.
	dir := os.TempDir()
	if flags.output != "" {
		compression, dir = "", filepath.Dir(flags.output)
		for _, each := range compressions {
			if strings.HasSuffix(flags.output, each.suffix) {
				compression = each.kind
				break
			}
		}
		if compression == "" {
			return fmt.Errorf("%s: the name must end in .tar, .tar.gz, .tar.xz or .tar.zst", flags.output)
		}
	}
	scratch, err := os.MkdirTemp(dir, ".muster-image-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	built, err := create(scratch, compression)
	if err != nil {
		return err
	}
	if flags.output != "" {
		if err := os.Rename(built.Unified, flags.output); err != nil {
			return err
		}
		a.say("Image %s written to %s (%s)", elided(built.Fingerprint, 12), flags.output, sizeDecimal(built.Size))
		return nil
	}
	fingerprint := built.Fingerprint
	switch _, _, err = t.Image(ctx, fingerprint); {
	case client.IsNotFound(err):
		fingerprint, err = a.upload(ctx, t, []string{built.Unified}, nil, flags.newImage)
	case err == nil:
		// The same busybox gives the same image.
		if err = a.checkAliasesOf(ctx, t.Client, fingerprint, flags.newImage); err == nil {
			err = a.giveAliases(ctx, t.Client, fingerprint, flags.newImage)
		}
	}
	if err == nil {
		a.say("Image %s has the alias %s", elided(fingerprint, 12), strings.Join(flags.aliases, ", "))
	}
	return err
}

// checkAliasesOf is checkAliases for an image that was there before.
func (a *app) checkAliasesOf(ctx context.Context, c *client.Client, fingerprint string, flags newImage) error {
	for _, name := range flags.aliases {
		old, _, err := c.ImageAlias(ctx, name)
		if err == nil && old.Target != fingerprint && !flags.reuse {
			return advise(fmt.Errorf("the alias %q is taken", name), "With --reuse, it is moved to this image.")
		}
	}
	return nil
}
