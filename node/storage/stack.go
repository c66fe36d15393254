package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/storage/tree"
	"muster/state"
)

// This file mounts chains of layers.

func (d *overlayDriver) mount(ctx context.Context, path, target string, ids *IDMap, readonly bool) error {
	c, err := readChain(path)
	if err != nil {
		return err
	}
	if c == nil {
		return d.dirDriver.mount(ctx, path, target, ids, readonly)
	}
	if readonly {
		return d.mountReadOnly(c, target, ids)
	}
	if c.Upper != nil && !c.Upper.IDs.same(ids) {
		// Files keep the ids they were written with. What was written under
		// another map becomes a layer, which can be mapped; then there is
		// nothing to change file by file and nothing that a crash could
		// leave half done.
		if c, err = d.turn(ctx, path, c); err != nil {
			return err
		}
	}
	return d.withLayers(c.Layers, ids, func(lowers []string) error {
		if c.Upper == nil {
			if err := d.addUpper(path, c, ids, lowers[0]); err != nil {
				return err
			}
		}
		o := overlayMount{lowers: lowers, upper: d.files(*c.Upper), work: d.pool.in(dirLayers, c.Upper.ID, "work")}
		return o.mount(d.pool.name, target, flagsFor(ids))
	})
}

// flagsFor: see bindRootFS for why devices are off.
func flagsFor(ids *IDMap) uintptr {
	if ids != nil {
		return unix.MS_NODEV
	}
	return 0
}

// turn takes the upper directory out of use: it becomes a layer, or goes if
// nothing was written to it.
func (d *overlayDriver) turn(ctx context.Context, path string, c *chain) (*chain, error) {
	blank, err := d.blank(c)
	if err != nil {
		return nil, err
	}
	if !blank {
		if err := d.pool.rest(ctx, path); err != nil {
			return nil, err
		}
		busy, err := d.busy(ctx, *c.Upper, 2*time.Second)
		if err != nil {
			return nil, err
		}
		if busy {
			return nil, state.Errorf(state.ErrConflict, "the volume is still in use by a process of its container")
		}
		return d.freeze(ctx, path, c)
	}
	without := &chain{Layers: c.Layers, Project: c.Project}
	if err := writeChain(path, without); err != nil {
		return nil, err
	}
	return without, d.drop(ctx, []layer{*c.Upper})
}

// busy reports whether an overlay that writes to the layer exists anywhere, if
// need be after waiting for its end: a container that was stopped holds its
// mount a moment longer, and one that runs holds it even if the mount on the
// host was lost. To freeze its layer would be to change files under it.
func (d *overlayDriver) busy(ctx context.Context, l layer, patience time.Duration) (bool, error) {
	stage, err := d.pool.staged()
	if err != nil {
		return false, err
	}
	defer d.pool.tidy(ctx, stage)
	at := func(name string) string { return filepath.Join(stage, name) }
	if err := errors.Join(os.Mkdir(at("lower"), 0o700), os.Mkdir(at("upper"), 0o700), os.Mkdir(at("at"), 0o700)); err != nil {
		return false, err
	}
	o := overlayMount{lowers: []string{at("lower")}, upper: at("upper"), work: filepath.Join(d.pool.in(dirLayers), l.ID, "work"), refuseBusy: true}
	for deadline := time.Now().Add(patience); ; {
		// Read-only, because the end of an overlay that can be written to
		// makes the kernel sync the whole file system below.
		err := o.mount(d.pool.name, at("at"), unix.MS_RDONLY)
		switch {
		case err == nil:
			return false, d.pool.unmountPath(context.WithoutCancel(ctx), at("at"))
		case errors.Is(err, unix.ESTALE):
			// The index of an earlier probe is in the work directory. The
			// kernel looks at it after it has found the directory free.
			return false, nil
		case !errors.Is(err, unix.EBUSY):
			return false, err
		case time.Now().After(deadline):
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// addUpper gives c an upper directory whose root is like that of below, the
// topmost layer seen through the ids of the container.
func (d *overlayDriver) addUpper(path string, c *chain, ids *IDMap, below string) error {
	l, err := d.newLayer(ids, c.Project)
	if err == nil {
		err = tree.CopyAttributes(d.files(l), below, isOverlayAttr)
	}
	if err == nil {
		c.Upper = &l
		err = writeChain(path, c)
	}
	if err != nil {
		return errors.Join(err, tree.Remove(d.pool.in(dirLayers, l.ID)))
	}
	d.keep([]layer{l})
	return nil
}

func (d *overlayDriver) mountReadOnly(c *chain, target string, ids *IDMap) error {
	layers := c.all()
	if len(layers) == 1 {
		// An overlay has at least two directories.
		return bindRootFS(d.pool, d.files(layers[0]), target, layers[0].IDs, ids, true)
	}
	return d.withLayers(layers, ids, func(lowers []string) error {
		return overlayMount{lowers: lowers}.mount(d.pool.name, target, flagsFor(ids)|unix.MS_RDONLY)
	})
}

// withLayers calls use with the directories of the layers, with their files'
// ids as the container with the given map needs them.
func (d *overlayDriver) withLayers(layers []layer, ids *IDMap, use func(dirs []string) error) (err error) {
	dirs := make([]string, len(layers))
	for i, l := range layers {
		dirs[i] = d.files(l)
		if l.IDs.same(ids) {
			continue
		}
		at, done, failed := d.pool.mapped(dirs[i], l.IDs, ids)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, done()) }()
		dirs[i] = at
	}
	return use(dirs)
}

// mapped mounts a directory so that ids written under the map disk suit a
// container with the map shown. An overlay keeps what it needs of the mount, so
// done, which takes it down, is called as soon as there is one.
//
// It is the directory itself that is mounted, not the pool: not even root can
// pass a directory whose owner has no id in the map.
func (p *Pool) mapped(dir string, disk, shown *IDMap) (at string, done func() error, err error) {
	if at, err = os.MkdirTemp(p.in(dirMounts, dirIDMaps), ""); err != nil {
		return "", nil, err
	}
	if err := bindRootFS(p, dir, at, disk, shown, false); err != nil {
		return "", nil, errors.Join(err, os.Remove(at))
	}
	return at, func() error {
		// Detached, because the overlay mounted from it keeps it busy; the
		// name is free at once.
		if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("detach %s: %w", at, err)
		}
		return os.Remove(at)
	}, nil
}

// overlayMount is what an overlay is made of: directories, the topmost first,
// with upper and work if it can be written to.
type overlayMount struct {
	lowers      []string
	upper, work string
	// refuseBusy makes an upper or work directory that another overlay has an
	// error (EBUSY).
	refuseBusy bool
}

// mount mounts the overlay at target.
//
// redirect_dir lets a container rename directories of its image. metacopy is
// off because it would let a forged upper directory read files of the image
// that are not its own. index is off because it refuses an upper directory
// that a dying mount still has, and one whose layers below have changed, as
// merging changes them. volatile is never used: after a power loss it leaves no
// way to tell what was lost.
func (o overlayMount) mount(source, target string, flags uintptr) error {
	// Paths go in as descriptors: options have no safe way to say ":" or ","
	// on all kernels, and are limited to a page.
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	name := func(dir string) (string, error) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", fmt.Errorf("open %s: %w", dir, err)
		}
		fds = append(fds, fd)
		return fmt.Sprintf("/proc/self/fd/%d", fd), nil
	}
	var lowerNames []string
	for _, dir := range o.lowers {
		n, err := name(dir)
		if err != nil {
			return err
		}
		lowerNames = append(lowerNames, n)
	}
	index := "off"
	if o.refuseBusy {
		index = "on"
	}
	options := "lowerdir=" + strings.Join(lowerNames, ":") + ",redirect_dir=on,metacopy=off,index=" + index
	if o.upper != "" {
		u, err := name(o.upper)
		if err != nil {
			return err
		}
		w, err := name(o.work)
		if err != nil {
			return err
		}
		options += ",upperdir=" + u + ",workdir=" + w
	}
	if len(options) >= os.Getpagesize() {
		return state.Errorf(state.ErrConflict, "the volume has %d layers, more than can be mounted", len(o.lowers))
	}
	if err := unix.Mount(source, target, "overlay", flags, options); err != nil {
		return fmt.Errorf("mount overlay at %s: %w", target, err)
	}
	return nil
}

// isOverlayAttr reports whether the attribute is overlayfs's own.
func isOverlayAttr(name string) bool { return strings.HasPrefix(name, "trusted.overlay.") }

// isVolatileAttr reports whether the attribute means something only to the
// mount that wrote it.
func isVolatileAttr(name string) bool {
	switch name {
	case "trusted.overlay.origin", "trusted.overlay.impure", "trusted.overlay.uuid", "trusted.overlay.nlink":
		return true
	}
	return false
}
