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

	"github.com/spf13/cobra"

	"muster/rpc/client"
)

func (a *app) filePushCommand() *cobra.Command {
	var owner ownership
	var recursive, parents bool
	cmd := &cobra.Command{
		Use:   "push SOURCE... [REMOTE:]INSTANCE/PATH",
		Short: "Copy files into an instance",
		Long: `Copy files into an instance. "-" is standard input. A path that ends in a slash,
or names a directory, keeps the source's name; with --recursive, directories are
copied with all that is in them.`,
		Example: `  muster file push hosts web/etc/hosts
  muster file push a.txt b.txt web/srv/
  muster file push -r site web/srv --uid 1000 --gid 1000
  date | muster file push - web/etc/stamp --mode 0600`,
		Args: between(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			sources, last := args[:len(args)-1], args[len(args)-1]
			to, err := a.inside(last)
			if err != nil {
				return err
			}
			opts, err := owner.options()
			if err != nil {
				return err
			}
			opts.Report = func(p string) { a.note("%s", p) }
			if !to.asDirectory {
				// To see whether a name means "into" or "as".
				file, err := to.ReadFile(ctx, to.name, to.path)
				if err == nil && file.Content != nil {
					_ = file.Content.Close()
				}
				to.asDirectory = err == nil && file.Type == client.FileDirectory
			}
			if len(sources) > 1 {
				to.asDirectory = true
			}
			for _, source := range sources {
				if err := a.pushOne(ctx, source, to, opts, recursive, parents); err != nil {
					return err
				}
			}
			return nil
		},
	}
	owner.flags(cmd)
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "copy directories with all that is in them")
	cmd.Flags().BoolVarP(&parents, "create-dirs", "p", false, "create missing directories above the file")
	return cmd
}

func (a *app) pushOne(ctx context.Context, source string, to inside, opts client.PushOptions, recursive, parents bool) error {
	w := client.FileWrite{UID: opts.UID, GID: opts.GID, Mode: opts.Mode}
	if source == "-" {
		if to.asDirectory {
			return fmt.Errorf("standard input has no name: say what the file is to be called")
		}
		if parents {
			if err := a.makeParents(ctx, to, opts); err != nil {
				return err
			}
		}
		w.Content = a.stdin
		return to.WriteFile(ctx, to.name, to.path, w)
	}
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		if !recursive {
			return fmt.Errorf("%s is a directory: use --recursive", source)
		}
		below := to
		below.path = path.Join(to.path, "x")
		if parents {
			if err := a.makeParents(ctx, below, opts); err != nil {
				return err
			}
		}
		return to.PushTree(ctx, to.name, source, to.path, opts)
	}
	if to.asDirectory {
		to.path = path.Join(to.path, filepath.Base(source))
	}
	if parents {
		if err := a.makeParents(ctx, to, opts); err != nil {
			return err
		}
	}
	file, err := os.Open(source)
	if err != nil {
		return err
	}
	defer file.Close()
	uid, gid := client.Owner(info)
	mode := info.Mode().Perm()
	w.UID, w.GID, w.Mode = orPointer(w.UID, uid), orPointer(w.GID, gid), orPointer(w.Mode, mode)
	bar := a.progress("Pushing " + source)
	defer bar.close()
	w.Content, w.Size = watched(file, bar.bytes(info.Size())), info.Size()
	if err := to.WriteFile(ctx, to.name, to.path, w); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	if opts.Report != nil {
		opts.Report(to.path)
	}
	return nil
}

func orPointer[T any](p *T, otherwise T) *T {
	if p != nil {
		return p
	}
	return &otherwise
}

// watched reports what is read from r; report may be nil.
func watched(r io.Reader, report func(int64)) io.Reader {
	if report == nil {
		return r
	}
	return &watchedReader{from: r, report: report}
}

type watchedReader struct {
	from   io.Reader
	report func(int64)
	n      int64
}

// Read implements io.Reader.
func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.from.Read(p)
	w.n += int64(n)
	w.report(w.n)
	return n, err
}

func (a *app) filePullCommand() *cobra.Command {
	var recursive, parents bool
	cmd := &cobra.Command{
		Use:   "pull [REMOTE:]INSTANCE/PATH... TARGET",
		Short: "Copy files out of an instance",
		Long: `Copy files out of an instance. The target "-" is standard output. Whatever the
instance says its files are called, nothing is written outside the target.`,
		Example: `  muster file pull web/etc/hosts .
  muster file pull web/etc/hostname -
  muster file pull -r web/srv/site backup/`,
		Args: between(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			target := args[len(args)-1]
			if parents {
				dir := target
				if !recursive && len(args) == 2 && target[len(target)-1] != '/' {
					dir = filepath.Dir(target)
				}
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return err
				}
			}
			if len(args) > 2 && target != "-" {
				info, err := os.Stat(target)
				if err != nil {
					return err
				}
				if !info.IsDir() {
					return fmt.Errorf("%s is no directory: several files need one", target)
				}
			}
			for _, arg := range args[:len(args)-1] {
				from, err := a.inside(arg)
				if err != nil {
					return err
				}
				if err := a.pullOne(cmd.Context(), from, target, recursive); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "copy directories with all that is in them")
	cmd.Flags().BoolVarP(&parents, "create-dirs", "p", false, "create the target's missing directories")
	return cmd
}

func (a *app) pullOne(ctx context.Context, from inside, target string, recursive bool) error {
	if recursive && target != "-" {
		return from.PullTree(ctx, from.name, from.path, target, func(p string) { a.note("%s", p) })
	}
	file, err := from.ReadFile(ctx, from.name, from.path)
	if err != nil {
		return err
	}
	switch file.Type {
	case client.FileDirectory:
		return fmt.Errorf("%s is a directory: use --recursive", from.path)
	case client.FileSymlink:
		if target == "-" {
			return fmt.Errorf("%s is a symlink to %s", from.path, file.Target)
		}
		to := localTarget(target, path.Base(from.path))
		if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.Symlink(file.Target, to)
	}
	defer file.Content.Close()
	if target == "-" {
		_, err := io.Copy(a.stdout, file.Content)
		return err
	}
	return a.save(file, localTarget(target, path.Base(from.path)))
}

// save writes a regular file.
func (a *app) save(file *client.File, name string) error {
	to, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, file.Mode)
	if err != nil {
		return err
	}
	bar := a.progress("Pulling " + name)
	_, err = io.Copy(to, watched(file.Content, bar.bytes(max(file.Size, 0))))
	bar.close()
	a.note("%s", name)
	return errors.Join(err, to.Close())
}
