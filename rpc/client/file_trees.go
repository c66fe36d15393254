package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// PushOptions say how a tree is written into an instance.
type PushOptions struct {
	// UID and GID override the owner; nil keeps each local file's.
	UID, GID *int64
	// Mode overrides the permission bits of regular files; nil keeps theirs.
	Mode *fs.FileMode
	// Report is called with each path in the instance after it is written;
	// nil hears nothing.
	Report func(path string)
}

// PushTree copies a local directory into an instance, as remote/<base of
// local>. Files that are neither regular, directory nor symlink are refused.
func (c *Client) PushTree(ctx context.Context, instance, local, remote string, opts PushOptions) error {
	local = filepath.Clean(local)
	top := filepath.Base(local)
	if top == "." || top == ".." || top == "/" {
		absolute, err := filepath.Abs(local)
		if err != nil {
			return err
		}
		top = filepath.Base(absolute)
	}
	return filepath.WalkDir(local, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(local, name)
		if err != nil {
			return err
		}
		to := path.Join(remote, top, filepath.ToSlash(relative))
		if err := c.pushOne(ctx, instance, name, to, entry, opts); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if opts.Report != nil {
			opts.Report(to)
		}
		return nil
	})
}

func (c *Client) pushOne(ctx context.Context, instance, name, to string, entry fs.DirEntry, opts PushOptions) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	uid, gid := Owner(info)
	mode := info.Mode().Perm()
	w := FileWrite{UID: &uid, GID: &gid, Mode: &mode}
	if opts.UID != nil {
		w.UID = opts.UID
	}
	if opts.GID != nil {
		w.GID = opts.GID
	}
	switch {
	case info.IsDir():
		w.Type = FileDirectory
		err := c.WriteFile(ctx, instance, to, w)
		if err == nil {
			return nil
		}
		// It may be there already, which servers tell in several ways.
		if file, look := c.ReadFile(ctx, instance, to); look == nil && file.Type == FileDirectory {
			return nil
		}
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(name)
		if err != nil {
			return err
		}
		w.Type, w.Mode = FileSymlink, nil
		w.Content, w.Size = strings.NewReader(target), int64(len(target))
		return c.WriteFile(ctx, instance, to, w)
	case info.Mode().IsRegular():
		if opts.Mode != nil {
			w.Mode = opts.Mode
		}
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		w.Content, w.Size = file, info.Size()
		return c.WriteFile(ctx, instance, to, w)
	}
	return fmt.Errorf("a %s can't be copied into an instance", info.Mode().Type())
}

// Owner returns the user and group that own a local file; 0, 0 when the file
// system does not say.
func Owner(info fs.FileInfo) (uid, gid int64) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(stat.Uid), int64(stat.Gid)
	}
	return 0, 0
}

// PullTree copies a file or directory of an instance below a local directory,
// as dir/<base of remote>. What the instance says is not trusted: nothing is
// written outside dir, not even through a symlink that was there before.
// Report is called with each local path after it is written, unless nil.
func (c *Client) PullTree(ctx context.Context, instance, remote, dir string, report func(path string)) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	name := path.Base(path.Clean("/" + remote))
	if name == "/" {
		name = instance
	}
	p := pull{c: c, instance: instance, root: root, report: report}
	return p.one(ctx, path.Clean("/"+remote), name)
}

type pull struct {
	c        *Client
	instance string
	root     *os.Root
	report   func(string)
}

// one copies remote to the relative path local, with everything below it.
func (p pull) one(ctx context.Context, remote, local string) error {
	file, err := p.c.ReadFile(ctx, p.instance, remote)
	if err != nil {
		return fmt.Errorf("%s: %w", remote, err)
	}
	if err := p.write(file, local); err != nil {
		return fmt.Errorf("%s: %w", local, err)
	}
	if p.report != nil {
		p.report(filepath.Join(p.root.Name(), local))
	}
	for _, entry := range file.Entries {
		if entry == "" || entry == "." || entry == ".." || strings.Contains(entry, "/") {
			return fmt.Errorf("%s: the instance lists an entry %q, which is no file name", remote, entry)
		}
		if err := p.one(ctx, path.Join(remote, entry), filepath.Join(local, entry)); err != nil {
			return err
		}
	}
	return nil
}

func (p pull) write(file *File, local string) error {
	switch file.Type {
	case FileDirectory:
		// Without the owner's bits the files below could not be written.
		err := p.root.Mkdir(local, file.Mode|0o700)
		if errors.Is(err, fs.ErrExist) {
			if info, look := p.root.Lstat(local); look == nil && info.IsDir() {
				return nil
			}
		}
		return err
	case FileSymlink:
		if err := p.root.Remove(local); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return p.root.Symlink(file.Target, local)
	}
	defer file.Content.Close()
	// A symlink left from before is replaced, never followed.
	if info, err := p.root.Lstat(local); err == nil && !info.Mode().IsRegular() {
		if err := p.root.Remove(local); err != nil {
			return err
		}
	}
	to, err := p.root.OpenFile(local, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, file.Mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, file.Content); err != nil {
		return errors.Join(err, to.Close())
	}
	return to.Close()
}
