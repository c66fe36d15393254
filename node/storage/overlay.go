package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/storage/tree"
	"muster/state"
)

// overlayDriver stacks an instance's own files on the shared files of its
// image. A volume or snapshot is a chain of layers; a layer never moves and,
// once it is not some volume's upper directory, never changes, so volumes and
// snapshots share layers freely. A layer goes when no chain names it.
//
// Images and custom volumes are plain directories, as in dirDriver: custom
// volumes can be attached to several instances at once, and an overlay cannot.
type overlayDriver struct {
	dirDriver

	mu sync.Mutex
	// refs counts the chains, on disk or held, that name a layer (layer.key).
	refs map[string]int
	// sizes remembers what read-only layers take.
	sizes map[string]int64
}

func (d *overlayDriver) load(ctx context.Context) error {
	features := d.pool.Features()
	if !features.Overlay {
		return state.Errorf(state.ErrInvalid, "storage pool %s: overlayfs does not work on the file system of %s; use a directory on ext4, xfs or btrfs, or driver dir", d.pool.name, d.place())
	}
	if !features.OverlayIDMap {
		d.pool.log.Warn("this kernel has no overlay with mapped ids, so unprivileged containers cannot start from this pool: use Linux 5.19 or newer, or driver dir or btrfs")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refs, d.sizes = map[string]int{}, map[string]int64{}
	for _, dir := range []string{dirInstance, dirStaging, dirIncoming, dirTrash} {
		if err := d.count(ctx, d.pool.in(dir)); err != nil {
			return err
		}
	}
	return nil
}

// count adds the references of all chains below dir.
func (d *overlayDriver) count(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := readChain(dir)
	if err != nil {
		return err
	}
	if c != nil {
		for _, l := range c.all() {
			d.refs[l.key()]++
		}
		return nil
	}
	if exists(filepath.Join(dir, nameRootFS)) {
		return nil
	}
	names, err := subdirs(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := d.count(ctx, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// files is the directory of a layer's files.
func (d *overlayDriver) files(l layer) string {
	if l.Image {
		return filepath.Join(d.pool.image(l.ID), nameRootFS)
	}
	return d.pool.in(dirLayers, l.ID, "diff")
}

// keep counts one more user for each of the layers.
func (d *overlayDriver) keep(layers []layer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range layers {
		d.refs[l.key()]++
	}
}

// drop counts one user less for each of the layers and removes those that have
// none left.
func (d *overlayDriver) drop(ctx context.Context, layers []layer) error {
	var trash []string
	var failed error
	d.mu.Lock()
	for _, l := range layers {
		if d.refs[l.key()]--; d.refs[l.key()] > 0 {
			continue
		}
		delete(d.refs, l.key())
		delete(d.sizes, l.key())
		path := d.pool.in(dirLayers, l.ID)
		if l.Image {
			path = d.pool.image(l.ID)
			if !exists(filepath.Join(path, nameRetired)) {
				continue
			}
		}
		to, err := d.pool.bin(path)
		failed = errors.Join(failed, err)
		if to != "" {
			trash = append(trash, to)
		}
	}
	d.mu.Unlock()
	for _, path := range trash {
		failed = errors.Join(failed, tree.Remove(path))
	}
	return failed
}

// newLayer makes the directories of a layer that no chain names yet. The files'
// directory itself has no owner and mode worth keeping.
func (d *overlayDriver) newLayer(ids *IDMap, project uint32) (layer, error) {
	l := layer{ID: rand.Text(), IDs: ids}
	dir := d.pool.in(dirLayers, l.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return l, err
	}
	if project != 0 {
		if err := tree.SetProject(dir, project); err != nil {
			return l, err
		}
	}
	return l, errors.Join(os.Mkdir(d.files(l), 0o700), os.Mkdir(filepath.Join(dir, "work"), 0o700))
}

func (d *overlayDriver) adopt(ctx context.Context, path string, kind state.VolumeType) error {
	if kind != state.VolumeContainer {
		return nil
	}
	l := layer{ID: rand.Text()}
	if err := os.Mkdir(d.pool.in(dirLayers, l.ID), 0o700); err != nil {
		return err
	}
	d.keep([]layer{l})
	err := os.Rename(filepath.Join(path, nameRootFS), d.files(l))
	if err == nil {
		err = writeChain(path, &chain{Layers: []layer{l}})
	}
	if err != nil {
		return errors.Join(err, d.drop(ctx, []layer{l}))
	}
	return nil
}

func (d *overlayDriver) hold(ctx context.Context, path string, mounted bool) (*origin, error) {
	if filepath.Dir(path) == d.pool.in(dirImages) {
		return d.holdImage(path)
	}
	c, err := readChain(path)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return d.dirDriver.hold(ctx, path, mounted)
	}
	if !mounted && c.Upper != nil {
		if err := d.pool.rest(ctx, path); err != nil {
			return nil, err
		}
		if mounted, err = d.busy(ctx, *c.Upper, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	if !mounted && c.Upper != nil {
		if c, err = d.freeze(ctx, path, c); err != nil {
			return nil, err
		}
	}
	d.keep(c.all())
	return &origin{path: path, mounted: mounted, chain: c}, nil
}

func (d *overlayDriver) holdImage(path string) (*origin, error) {
	l := layer{ID: filepath.Base(path), Image: true}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !exists(d.files(l)) || exists(filepath.Join(path, nameRetired)) {
		return nil, state.Errorf(state.ErrNotFound, "image %.12s is not unpacked on storage pool %s", l.ID, d.pool.name)
	}
	d.refs[l.key()]++
	return &origin{path: path, chain: &chain{Layers: []layer{l}}}, nil
}

// freeze makes the upper directory of a volume that is not mounted its topmost
// layer, so that others can share it, and returns the chain to share. An upper
// directory in which nothing was written stays what it is.
func (d *overlayDriver) freeze(ctx context.Context, path string, c *chain) (*chain, error) {
	blank, err := d.blank(c)
	if err != nil {
		return nil, err
	}
	if blank {
		return &chain{Layers: c.Layers, Project: c.Project}, nil
	}
	frozen := &chain{Layers: c.all(), Project: c.Project}
	if err := writeChain(path, frozen); err != nil {
		return nil, err
	}
	return d.shorten(ctx, path, frozen)
}

// blank reports whether nothing was written to the upper directory of c.
func (d *overlayDriver) blank(c *chain) (bool, error) {
	upper, below := d.files(*c.Upper), d.files(c.Layers[0])
	entries, err := os.ReadDir(upper)
	if err != nil || len(entries) > 0 {
		return false, err
	}
	// The root directory may have been given another owner or mode.
	var up, down unix.Stat_t
	if err := errors.Join(unix.Lstat(upper, &up), unix.Lstat(below, &down)); err != nil {
		return false, err
	}
	from, to := c.Layers[0].IDs, c.Upper.IDs
	if up.Mode != down.Mode ||
		up.Uid != apply(translate(from.uids(), to.uids()), down.Uid) ||
		up.Gid != apply(translate(from.gids(), to.gids()), down.Gid) {
		return false, nil
	}
	attrs, err := tree.Xattrs(upper)
	if err != nil {
		return false, err
	}
	for name := range attrs {
		if !isOverlayAttr(name) {
			return false, nil
		}
	}
	return true, nil
}

func (d *overlayDriver) clone(ctx context.Context, from *origin, path string, kind state.VolumeType) (err error) {
	if from.chain == nil {
		return d.dirDriver.clone(ctx, from, path, kind)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	c := &chain{Layers: from.chain.Layers}
	d.keep(c.Layers)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.drop(context.WithoutCancel(ctx), c.all()))
		}
	}()
	if from.mounted && from.chain.Upper != nil {
		top, err := d.copyUpper(ctx, *from.chain.Upper)
		if err != nil {
			return err
		}
		d.keep([]layer{top})
		c.Layers = append([]layer{top}, c.Layers...)
	}
	if err := copyMeta(ctx, from.path, path); err != nil {
		return err
	}
	return writeChain(path, c)
}

// copyUpper makes a layer with the files of an upper directory that is in use.
// It cannot be exchanged under a mounted overlay, so this is the one case in
// which a snapshot takes as long as the instance's own files are large.
func (d *overlayDriver) copyUpper(ctx context.Context, upper layer) (layer, error) {
	l, err := d.newLayer(upper.IDs, 0)
	if err == nil {
		err = tree.Copy(ctx, d.files(l), d.files(upper), tree.Options{Live: true, SkipXattr: isVolatileAttr})
	}
	if err != nil {
		// No chain names it yet, so nobody else can remove it.
		return layer{}, errors.Join(err, tree.Remove(d.pool.in(dirLayers, l.ID)))
	}
	return l, nil
}

func (d *overlayDriver) release(ctx context.Context, from *origin) {
	if from.chain == nil {
		return
	}
	if err := d.drop(ctx, from.chain.all()); err != nil {
		d.pool.log.Warn("layers stay until the next start", "error", err)
	}
}

func (d *overlayDriver) remove(ctx context.Context, path string) error {
	c, err := readChain(path)
	if err != nil {
		// What the chain named is found by reconcile, as named by nobody.
		d.pool.log.Warn("removing a volume whose layers are not known", "path", path, "error", err)
	}
	if err := tree.Remove(path); err != nil {
		return err
	}
	if c == nil {
		return nil
	}
	if c.Project != 0 {
		if err := dropProject(d.pool.root, c.Project); err != nil {
			return err
		}
	}
	return d.drop(ctx, c.all())
}

func (d *overlayDriver) isContent(path string) bool {
	if d.dirDriver.isContent(path) {
		return true
	}
	c, err := readChain(path)
	return c != nil || err != nil
}

func (d *overlayDriver) dropImage(_ context.Context, fingerprint string) error {
	l := layer{ID: fingerprint, Image: true}
	d.mu.Lock()
	if d.refs[l.key()] > 0 {
		defer d.mu.Unlock()
		return os.WriteFile(filepath.Join(d.pool.image(fingerprint), nameRetired), nil, 0o600)
	}
	trash, err := d.pool.bin(d.pool.image(fingerprint))
	d.mu.Unlock()
	if err != nil || trash == "" {
		return err
	}
	return tree.Remove(trash)
}

func (d *overlayDriver) keepImage(fingerprint string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := os.Remove(filepath.Join(d.pool.image(fingerprint), nameRetired))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (d *overlayDriver) instant() bool { return true }

func (d *overlayDriver) slowUnmount() bool { return true }

func (d *overlayDriver) usage(ctx context.Context, path string) (Usage, error) {
	c, err := readChain(path)
	if err != nil {
		return Usage{}, err
	}
	if c == nil {
		return d.dirDriver.usage(ctx, path)
	}
	if c.Project != 0 {
		return projectUsage(d.pool.root, c.Project)
	}
	var total int64
	for _, l := range c.Layers {
		if l.Image {
			continue
		}
		size, err := d.layerSize(ctx, l)
		if err != nil {
			return Usage{}, err
		}
		total += size
	}
	if c.Upper != nil {
		size, err := tree.Size(ctx, d.files(*c.Upper))
		if err != nil {
			return Usage{}, err
		}
		total += size
	}
	return Usage{Used: total}, nil
}

// layerSize measures a read-only layer, once.
func (d *overlayDriver) layerSize(ctx context.Context, l layer) (int64, error) {
	d.mu.Lock()
	size, ok := d.sizes[l.key()]
	d.mu.Unlock()
	if ok {
		return size, nil
	}
	size, err := tree.Size(ctx, d.files(l))
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refs[l.key()] > 0 {
		d.sizes[l.key()] = size
	}
	return size, nil
}

func (d *overlayDriver) reconcile(context.Context) ([]string, error) {
	layers, err := subdirs(d.pool.in(dirLayers))
	if err != nil {
		return nil, err
	}
	images, err := subdirs(d.pool.in(dirImages))
	if err != nil {
		return nil, err
	}
	var unused []layer
	d.mu.Lock()
	for _, id := range layers {
		if l := (layer{ID: id}); d.refs[l.key()] == 0 {
			unused = append(unused, l)
		}
	}
	for _, id := range images {
		if l := (layer{ID: id, Image: true}); d.refs[l.key()] == 0 && exists(filepath.Join(d.pool.image(id), nameRetired)) {
			unused = append(unused, l)
		}
	}
	d.mu.Unlock()
	var removed []string
	for _, l := range unused {
		trash, err := d.pool.bin(d.pool.in(filepath.FromSlash(l.key())))
		if err != nil {
			return removed, err
		}
		if err := tree.Remove(trash); err != nil {
			return removed, err
		}
		removed = append(removed, "layer "+l.key())
	}
	return removed, nil
}
