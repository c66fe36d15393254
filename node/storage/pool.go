package storage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"muster/node/storage/mount"
	"muster/state"
)

// Pool is one storage pool on this member. Its methods may be called from many
// goroutines; calls that change the same volume wait for each other.
//
// Errors have a kind of state: ErrNotFound and ErrExists for volumes,
// snapshots and images; ErrInvalid for names, configuration and what the
// driver can never do; ErrConflict for a volume that is in use; ErrUnavailable
// when the pool is full ("no space left on storage pool X") or not mounted.
type Pool struct {
	name       string
	driverName string
	log        *slog.Logger
	dir        string // Config.Dir
	disks      string // Config.Disks
	root       string // where the pool is mounted
	drv        driver
	ns         mount.Namespaces

	// whole is held by what changes the pool as such, under "pool".
	whole locks
	// contents are held under a volume's or snapshot's key: for reading by
	// what needs it to stay where and what it is, for writing by what moves,
	// replaces or removes it. Images are in it under their fingerprint.
	contents locks
	// mounting is held under a volume's key while its mounts change.
	mounting locks
	ready    atomic.Bool

	mu       sync.Mutex
	config   state.Config
	features Features
	users    map[string]int // how many use the mount in this slot
	measured map[string]measurement
	retired  map[string]chan struct{} // by content: closed when its last mount is gone
	retiring sync.WaitGroup
}

// Open checks the pool's name, driver and configuration and returns the pool.
// It touches nothing: Create makes a new pool, Mount makes an existing one
// usable.
func Open(_ context.Context, cfg Config, pool state.Pool) (*Pool, error) {
	if err := Validate(pool); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(cfg.Dir) {
		return nil, state.Errorf(state.ErrInvalid, "the directory of the storage pools, %q, is not an absolute path", cfg.Dir)
	}
	p := &Pool{
		name: pool.Name, driverName: pool.Driver, log: cfg.Log,
		dir: filepath.Clean(cfg.Dir), disks: cfg.Disks,
		config: maps.Clone(pool.Config), users: map[string]int{}, measured: map[string]measurement{}, retired: map[string]chan struct{}{},
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.log = p.log.With("pool", p.name)
	if p.config == nil {
		p.config = state.Config{}
	}
	if p.disks == "" {
		p.disks = filepath.Join(filepath.Dir(p.dir), "disks")
	}
	p.root = filepath.Join(p.dir, p.name)
	p.drv = newDriver(p)
	return p, nil
}

// Name returns the pool's name.
func (p *Pool) Name() string { return p.name }

// DriverName returns "overlay", "dir" or "btrfs".
func (p *Pool) DriverName() string { return p.driverName }

// setting returns a value of the pool's configuration.
func (p *Pool) setting(key string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.config[key]
}

// NewVolumeSize is the limit in bytes of volumes that are made without one of their own;
// zero: none.
func (p *Pool) NewVolumeSize() (int64, error) {
	value := p.setting("volume.size")
	if value == "" || !p.canLimit() {
		return 0, nil
	}
	return state.ParseSize(value)
}

// limits refuses a limit of volumes in a pool that can't limit any.
func (p *Pool) limits(config state.Config) error {
	if config["volume.size"] == "" || p.canLimit() {
		return nil
	}
	if size, err := state.ParseSize(config["volume.size"]); err != nil || size == 0 {
		return err
	}
	return fmt.Errorf("volume.size: %w", p.noQuota())
}

func (p *Pool) canLimit() bool { return p.driverName == driverBtrfs || p.Features().ProjectQuota }

// Features returns what the pool's file system can do, as probed by Mount.
func (p *Pool) Features() Features {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.features
}

// marker is what pool.json says. It is the first file in a pool and its last:
// where it is, the directory is ours.
type marker struct {
	Driver string `json:"driver"`
	Layout int    `json:"layout"`
}

const layout = 1

// Create makes the pool on disk and mounts it. It returns the configuration
// to record: the given one with "source" and, for a loop file, "size" filled
// in. Everything is checked before anything is touched, and nothing is left
// after an error.
func (p *Pool) Create(ctx context.Context) (config state.Config, err error) {
	unlock, err := p.whole.write(ctx, "pool")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := p.vacant(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			// The caller may be gone; what we made must go as well.
			clean := context.WithoutCancel(ctx)
			_ = p.wipe(clean)
			_ = p.drv.destroy(clean)
			_ = os.Remove(p.root)
		}
	}()
	if config, err = p.drv.provision(ctx); err != nil {
		return nil, p.fault(err, "create")
	}
	p.mu.Lock()
	p.config = maps.Clone(config)
	p.mu.Unlock()
	if err := p.drv.attach(ctx); err != nil {
		return nil, p.fault(err, "create")
	}
	if err := p.furnish(); err != nil {
		return nil, p.fault(err, "create")
	}
	if err := p.open(ctx); err != nil {
		return nil, p.fault(err, "create")
	}
	if err := p.limits(config); err != nil {
		return nil, err
	}
	return config, nil
}

// Check says why Create would refuse to make the pool, or nil.
func (p *Pool) Check(ctx context.Context) error {
	unlock, err := p.whole.write(ctx, "pool")
	if err != nil {
		return err
	}
	defer unlock()
	return p.vacant(ctx)
}

// vacant says why the pool can't be made; the caller holds whole.
func (p *Pool) vacant(ctx context.Context) error {
	if err := p.settle(); err != nil {
		return p.fault(err, "create")
	}
	if p.ready.Load() {
		return state.Errorf(state.ErrExists, "storage pool %s exists and is mounted", p.name)
	}
	if entries, err := os.ReadDir(p.root); err == nil && len(entries) > 0 {
		return state.Errorf(state.ErrExists, "storage pool %s: %s is there already and not empty; move it away", p.name, p.root)
	}
	if err := p.drv.check(ctx); err != nil {
		return p.fault(err, "create")
	}
	return nil
}

// settle makes the directory of all pools and learns its real path, which is
// the one the mount table shows.
func (p *Pool) settle() error {
	if err := os.MkdirAll(p.dir, 0o711); err != nil {
		return err
	}
	real, err := mount.Clean(p.dir)
	if err != nil {
		return err
	}
	p.root = filepath.Join(real, p.name)
	return nil
}

// furnish makes a new pool's marker and directories.
func (p *Pool) furnish() error {
	data, err := json.Marshal(marker{Driver: p.driverName, Layout: layout})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(p.in(markerFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return state.Errorf(state.ErrInvalid, "storage pool %s: its source holds another pool already", p.name)
	}
	if err != nil {
		return err
	}
	if _, err := f.Write(append(data, '\n')); err != nil {
		f.Close()
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return p.directories()
}

func (p *Pool) directories() error {
	if err := os.Chmod(p.root, 0o711); err != nil {
		return err
	}
	for name, mode := range poolDirs {
		if err := os.Mkdir(p.in(name), mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Chmod(p.in(name), mode); err != nil {
			return err
		}
	}
	return nil
}

// open makes an attached pool usable.
func (p *Pool) open(ctx context.Context) error {
	if err := p.mountPoints(); err != nil {
		return err
	}
	features, err := p.probe(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.features = features
	p.mu.Unlock()
	if err := p.drv.load(ctx); err != nil {
		return err
	}
	p.ready.Store(true)
	return nil
}

// mountPoints makes the place for mount points, unless an earlier daemon left
// it with mounts in it.
func (p *Pool) mountPoints() error {
	there, err := mount.At(p.in(dirMounts))
	if err != nil {
		return err
	}
	if !there {
		const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
		if err := unix.Mount("muster", p.in(dirMounts), "tmpfs", flags, "mode=0711,size=64m"); err != nil {
			return fmt.Errorf("mount %s: %w", p.in(dirMounts), err)
		}
		if err := mount.Private(p.in(dirMounts)); err != nil {
			return err
		}
	}
	for _, name := range []string{dirInstance, dirOther, dirIDMaps, dirGone} {
		if err := os.Mkdir(p.in(dirMounts, name), 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Chmod(p.in(dirMounts, name), 0o711); err != nil {
			return err
		}
	}
	return nil
}

// Mount makes an existing pool usable; it finds what an earlier daemon left
// mounted. Calling it again does nothing.
func (p *Pool) Mount(ctx context.Context) error {
	unlock, err := p.whole.write(ctx, "pool")
	if err != nil {
		return err
	}
	defer unlock()
	return p.mountLocked(ctx)
}

func (p *Pool) mountLocked(ctx context.Context) error {
	if p.ready.Load() {
		return nil
	}
	if err := p.settle(); err != nil {
		return p.fault(err, "mount")
	}
	attached, err := mount.At(p.root)
	if err != nil {
		return p.fault(err, "mount")
	}
	if !attached {
		if err := p.drv.attach(ctx); err != nil {
			return p.fault(err, "mount")
		}
	}
	if err := p.recognize(); err != nil {
		if !attached {
			_ = mount.Release(p.root)
		}
		return err
	}
	if err := p.directories(); err != nil {
		return p.fault(err, "mount")
	}
	return p.fault(p.open(ctx), "mount")
}

// recognize checks that what is mounted at the root is this pool.
func (p *Pool) recognize() error {
	data, err := os.ReadFile(p.in(markerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return state.Errorf(state.ErrUnavailable, "storage pool %s: %s holds no pool; is the right disk there?", p.name, cmp.Or(p.setting("source"), p.root))
	}
	if err != nil {
		return p.fault(err, "mount")
	}
	var m marker
	if err := json.Unmarshal(data, &m); err != nil {
		return state.Errorf(state.ErrUnavailable, "storage pool %s: %s is damaged: %w", p.name, markerFile, err)
	}
	if m.Driver != p.driverName || m.Layout != layout {
		return state.Errorf(state.ErrUnavailable, "storage pool %s: its source holds a pool of driver %s, layout %d; this member expects driver %s, layout %d",
			p.name, m.Driver, m.Layout, p.driverName, layout)
	}
	return nil
}

// Unmount releases the pool. It is ErrConflict while a volume is mounted: a
// daemon that ends while containers run just leaves the pool mounted.
func (p *Pool) Unmount(ctx context.Context) error {
	unlock, err := p.whole.write(ctx, "pool")
	if err != nil {
		return err
	}
	defer unlock()
	return p.unmountLocked(ctx)
}

func (p *Pool) unmountLocked(ctx context.Context) error {
	if err := p.settle(); err != nil {
		return p.fault(err, "unmount")
	}
	p.retiring.Wait()
	inside, err := mount.Table(p.root)
	if err != nil {
		return p.fault(err, "unmount")
	}
	for _, e := range inside {
		if e.Path != p.root && e.Path != p.in(dirMounts) {
			return state.Errorf(state.ErrConflict, "storage pool %s is in use: %s is mounted", p.name, e.Path)
		}
	}
	p.ready.Store(false)
	if err := cmp.Or(mount.Release(p.in(dirMounts)), mount.Release(p.root)); err != nil {
		if errors.Is(err, unix.EBUSY) {
			p.ready.Store(p.mountPoints() == nil)
			return state.Errorf(state.ErrConflict, "storage pool %s is in use: %w", p.name, err)
		}
		return p.fault(err, "unmount")
	}
	p.ns.Close()
	return nil
}

// Delete unmounts the pool and removes what Create made, with all images. It
// is ErrConflict while the pool has volumes. A pool that is gone already, or
// only half there, is no error.
func (p *Pool) Delete(ctx context.Context) error {
	unlock, err := p.whole.write(ctx, "pool")
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.mountLocked(ctx); err == nil {
		volumes, err := p.Volumes(ctx)
		if err != nil {
			return err
		}
		for v := range volumes {
			return state.Errorf(state.ErrConflict, "storage pool %s is in use: it has %d volumes, %s among them", p.name, len(volumes), v)
		}
	} else {
		p.log.Debug("removing a pool that cannot be mounted", "error", err)
	}
	if err := p.wipe(ctx); err != nil {
		return p.fault(err, "delete")
	}
	if err := p.drv.destroy(ctx); err != nil {
		return p.fault(err, "delete")
	}
	if err := os.Remove(p.root); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p.fault(err, "delete")
	}
	return nil
}

// wipe takes everything of ours out of the pool's file system, if it is
// mounted, and unmounts it.
func (p *Pool) wipe(ctx context.Context) error {
	p.ready.Store(false)
	p.retiring.Wait()
	inside, err := mount.Table(p.root)
	if err != nil {
		return err
	}
	if err := p.own(); err != nil {
		return err
	}
	for _, m := range slices.Backward(inside) {
		if m.Path == p.root {
			continue
		}
		if err := p.unmountPath(ctx, m.Path); err != nil {
			return err
		}
	}
	if exists(p.in(markerFile)) {
		if err := p.empty(ctx); err != nil {
			return err
		}
	}
	return mount.Release(p.root)
}

// own refuses a directory in the pool's place that holds a pool of another
// driver: deleting what was never created must not remove that.
func (p *Pool) own() error {
	data, err := os.ReadFile(p.in(markerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var m marker
	if json.Unmarshal(data, &m) == nil && m.Driver != p.driverName {
		return state.Errorf(state.ErrConflict, "storage pool %s: %s holds a pool of driver %s, not %s; move it away", p.name, p.root, m.Driver, p.driverName)
	}
	return nil
}

// empty removes the pool's directories and, last, its marker.
func (p *Pool) empty(ctx context.Context) error {
	for name := range poolDirs {
		dir := p.in(name)
		if name == dirImages || name == dirStaging || name == dirIncoming || name == dirTrash {
			contents, err := subdirs(dir)
			if err != nil {
				return err
			}
			for _, c := range contents {
				if err := p.discard(ctx, filepath.Join(dir, c)); err != nil {
					return err
				}
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return os.Remove(p.in(markerFile))
}

// Update takes over a changed configuration: a loop file grows to a larger
// "size", btrfs.mount_options take effect at once. What cannot be changed
// (source) is ErrInvalid.
func (p *Pool) Update(ctx context.Context, config state.Config) error {
	if err := Validate(state.Pool{Name: p.name, Driver: p.driverName, Config: config}); err != nil {
		return err
	}
	unlock, err := p.whole.write(ctx, "pool")
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.usable(); err != nil {
		return err
	}
	if config["source"] != p.setting("source") {
		return state.Errorf(state.ErrInvalid, "storage pool %s: the source of a pool cannot be changed", p.name)
	}
	if err := p.limits(config); err != nil {
		return err
	}
	if err := p.drv.update(ctx, config); err != nil {
		return p.fault(err, "update")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config = maps.Clone(config)
	return nil
}

// Resources returns the space and inodes of the pool's file system.
func (p *Pool) Resources(context.Context) (Resources, error) {
	if err := p.usable(); err != nil {
		return Resources{}, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(p.root, &st); err != nil {
		return Resources{}, p.fault(err, "measure")
	}
	block := uint64(st.Bsize)
	return Resources{
		SpaceTotal: st.Blocks * block, SpaceUsed: (st.Blocks - st.Bfree) * block,
		InodesTotal: st.Files, InodesUsed: st.Files - st.Ffree,
	}, nil
}

// Usable says why the pool can't be used now, or nil.
func (p *Pool) Usable() error { return p.usable() }

func (p *Pool) usable() error {
	// Somebody may have unmounted it.
	if !p.ready.Load() || !exists(p.in(markerFile)) {
		return state.Errorf(state.ErrUnavailable, "storage pool %s is not mounted on this member", p.name)
	}
	return nil
}

// fault gives an error of the system the words and the kind that users act on.
func (p *Pool) fault(err error, doing string, args ...any) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC):
		return state.Errorf(state.ErrUnavailable, "no space left on storage pool %s (%s)", p.name, fmt.Sprintf(doing, args...))
	case errors.Is(err, unix.EDQUOT):
		return state.Errorf(state.ErrUnavailable, "the quota is used up on storage pool %s (%s)", p.name, fmt.Sprintf(doing, args...))
	case state.Kind(err) != nil:
		return err
	case errors.Is(err, mount.ErrNoIDMap):
		return state.Errorf(state.ErrInvalid, "storage pool %s: its file system cannot map ids, which unprivileged containers need; use a pool on ext4, xfs or btrfs, or set security.privileged", p.name)
	}
	return fmt.Errorf("storage pool %s: %s: %w", p.name, fmt.Sprintf(doing, args...), err)
}

// unmountPath takes a mount of ours down.
func (p *Pool) unmountPath(ctx context.Context, path string) error {
	lazy, err := mount.Unmount(ctx, path)
	if lazy {
		p.log.Warn("a mount stayed busy and was detached", "path", path)
	}
	return err
}
