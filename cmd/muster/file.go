package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/client"
)

func (a *app) fileCommand() *cobra.Command {
	return family("file", "Work with the files of an instance", `  muster file push notes.txt web/root/
  muster file pull web/etc/hostname -`,
		a.filePushCommand(), a.filePullCommand(), a.fileEditCommand(), a.fileDeleteCommand(), a.fileCreateCommand())
}

// inside is an argument INSTANCE/PATH, resolved.
type inside struct {
	thing
	// path is absolute and clean.
	path string
	// asDirectory says that it was written with a slash at its end.
	asDirectory bool
}

func (a *app) inside(arg string) (inside, error) {
	t, err := a.named(arg, "file of an instance")
	if err != nil {
		return inside{}, err
	}
	instance, rest, found := strings.Cut(t.name, "/")
	if !found || instance == "" {
		return inside{}, fmt.Errorf("%q is not of the form INSTANCE/PATH", arg)
	}
	t.name = instance
	return inside{thing: t, path: path.Clean("/" + rest), asDirectory: rest == "" || strings.HasSuffix(rest, "/")}, nil
}

// ownership are the flags that say whose a file becomes.
type ownership struct {
	uid, gid int64
	mode     string
}

func (o *ownership) flags(cmd *cobra.Command) {
	cmd.Flags().Int64Var(&o.uid, "uid", -1, "user ID of the file (default: the local file's)")
	cmd.Flags().Int64Var(&o.gid, "gid", -1, "group ID of the file (default: the local file's)")
	cmd.Flags().StringVar(&o.mode, "mode", "", "permissions of the file, such as 0644 (default: the local file's)")
}

// options reads the flags; what was not said stays nil.
func (o *ownership) options() (client.PushOptions, error) {
	var opts client.PushOptions
	if o.uid >= 0 {
		opts.UID = &o.uid
	}
	if o.gid >= 0 {
		opts.GID = &o.gid
	}
	if o.mode != "" {
		bits, err := strconv.ParseUint(o.mode, 8, 32)
		if err != nil || bits > 0o7777 {
			return opts, fmt.Errorf("mode %q is no octal number such as 0644", o.mode)
		}
		mode := fs.FileMode(bits) & fs.ModePerm
		opts.Mode = &mode
	}
	return opts, nil
}

func (a *app) fileEditCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "edit [REMOTE:]INSTANCE/PATH",
		Short:   "Edit a file of an instance",
		Long:    "Edit a file of an instance with $EDITOR; without a terminal, its new content is read from standard input.",
		Example: "  muster file edit web/etc/hosts\n  echo hello | muster file edit web/etc/motd",
		Args:    between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := a.inside(args[0])
			if err != nil {
				return err
			}
			file, err := to.ReadFile(cmd.Context(), to.name, to.path)
			var text []byte
			switch {
			case client.IsNotFound(err):
			case err != nil:
				return err
			case file.Content == nil:
				return fmt.Errorf("%s is a %s", args[0], file.Type)
			default:
				text, err = io.ReadAll(file.Content)
				if err = errors.Join(err, file.Content.Close()); err != nil {
					return err
				}
			}
			return a.edit(cmd.Context(), text, func(text []byte) error {
				return to.WriteFile(cmd.Context(), to.name, to.path, client.FileWrite{
					Content: strings.NewReader(string(text)), Size: int64(len(text)),
				})
			})
		},
	}
}

func (a *app) fileDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "delete [REMOTE:]INSTANCE/PATH...",
		Aliases: []string{"rm"},
		Short:   "Delete files of an instance",
		Example: "  muster file delete web/etc/motd web/tmp/x",
		Args:    between(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				at, err := a.inside(arg)
				if err != nil {
					return err
				}
				if err := at.DeleteFile(cmd.Context(), at.name, at.path); err != nil {
					return fmt.Errorf("%s: %w", arg, err)
				}
			}
			return nil
		},
	}
}

func (a *app) fileCreateCommand() *cobra.Command {
	var owner ownership
	var kind string
	var parents, force bool
	cmd := &cobra.Command{
		Use:   "create [REMOTE:]INSTANCE/PATH [SYMLINK TARGET]",
		Short: "Create an empty file, a directory or a symlink in an instance",
		Example: `  muster file create web/etc/flag
  muster file create web/srv/data --type directory --mode 0750
  muster file create web/etc/link --type symlink /etc/hosts`,
		Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := a.inside(args[0])
			if err != nil {
				return err
			}
			opts, err := owner.options()
			if err != nil {
				return err
			}
			if at.asDirectory && !cmd.Flags().Changed("type") {
				kind = client.FileDirectory
			}
			w := client.FileWrite{Type: kind, UID: opts.UID, GID: opts.GID, Mode: opts.Mode}
			switch {
			case kind != client.FileRegular && kind != client.FileDirectory && kind != client.FileSymlink:
				return usagef(cmd, "type %q is none of file, directory, symlink", kind)
			case (kind == client.FileSymlink) != (len(args) == 2):
				return usagef(cmd, "a symlink, and nothing else, has a target")
			case kind == client.FileSymlink:
				w.Content, w.Size = strings.NewReader(args[1]), int64(len(args[1]))
			}
			if parents {
				if err := a.makeParents(cmd.Context(), at, opts); err != nil {
					return err
				}
			}
			if _, err := at.ReadFile(cmd.Context(), at.name, at.path); err == nil && !force {
				return fmt.Errorf("%s is there already; use --force to replace it", args[0])
			}
			return at.WriteFile(cmd.Context(), at.name, at.path, w)
		},
	}
	owner.flags(cmd)
	cmd.Flags().StringVar(&kind, "type", client.FileRegular, "file, directory or symlink")
	cmd.Flags().BoolVarP(&parents, "create-dirs", "p", false, "create missing directories above it")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace what is there")
	return cmd
}

// makeParents creates the directories above a path, from the top.
func (a *app) makeParents(ctx context.Context, at inside, opts client.PushOptions) error {
	var missing []string
	for dir := path.Dir(at.path); dir != "/"; dir = path.Dir(dir) {
		file, err := at.ReadFile(ctx, at.name, dir)
		if err == nil {
			if file.Content != nil {
				return errors.Join(fmt.Errorf("%s is a file, not a directory", dir), file.Content.Close())
			}
			break
		}
		if !client.IsNotFound(err) {
			return err
		}
		missing = append(missing, dir)
	}
	mode := fs.FileMode(0o755)
	for _, dir := range slices.Backward(missing) {
		w := client.FileWrite{Type: client.FileDirectory, UID: opts.UID, GID: opts.GID, Mode: &mode}
		if err := at.WriteFile(ctx, at.name, dir, w); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	return nil
}

// localTarget is where a pulled file goes: below dir when target is one.
func localTarget(target, name string) string {
	info, err := os.Stat(target)
	if err == nil && info.IsDir() || strings.HasSuffix(target, "/") {
		return filepath.Join(target, name)
	}
	return target
}
