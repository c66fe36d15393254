package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"muster/node/storage/mount"
	"muster/node/storage/tree"
	"muster/state"
)

// dirDriver keeps each content as a plain directory: it works on any file
// system, and a copy is a copy of every file.
type dirDriver struct{ pool *Pool }

// place is the directory that holds the pool: the configured source, or the
// pool's own root.
func (d *dirDriver) place() string {
	if source := d.pool.setting("source"); source != "" {
		return source
	}
	return d.pool.root
}

func (d *dirDriver) check(context.Context) error {
	source := d.pool.setting("source")
	if source == "" || source == d.pool.root {
		return nil
	}
	return checkEmptyDir(d.pool, source)
}

// checkEmptyDir refuses a source that is not an empty directory of its own.
func checkEmptyDir(p *Pool, source string) error {
	real, err := mount.Clean(source)
	if errors.Is(err, fs.ErrNotExist) {
		return state.Errorf(state.ErrInvalid, "storage pool %s: source %s does not exist; make the directory first", p.name, source)
	}
	if err != nil {
		return err
	}
	pools := filepath.Dir(p.root)
	if real == pools || strings.HasPrefix(real, pools+"/") {
		return state.Errorf(state.ErrInvalid, "storage pool %s: source %s is inside muster's own directory; choose another or leave source out", p.name, source)
	}
	info, err := os.Stat(real)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return state.Errorf(state.ErrInvalid, "storage pool %s: source %s is not a directory", p.name, source)
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		return err
	}
	for _, e := range entries {
		// A file system made for the pool comes with this directory.
		if e.Name() != "lost+found" {
			return state.Errorf(state.ErrInvalid, "storage pool %s: source %s is not empty (it has %s); give an empty directory", p.name, source, e.Name())
		}
	}
	return nil
}

func (d *dirDriver) provision(context.Context) (state.Config, error) {
	p := d.pool
	p.mu.Lock()
	config := maps.Clone(p.config)
	p.mu.Unlock()
	config["source"] = d.place()
	return config, nil
}

func (d *dirDriver) attach(context.Context) error {
	p := d.pool
	if err := os.Mkdir(p.root, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := os.Stat(d.place()); errors.Is(err, fs.ErrNotExist) {
		return state.Errorf(state.ErrUnavailable, "storage pool %s: its source %s is not there", p.name, d.place())
	}
	// A mount of its own, even on itself: so that what is mounted inside does
	// not spread to the namespaces of others.
	return mount.Bind(d.place(), p.root, nil, mount.Flags{})
}

func (d *dirDriver) destroy(context.Context) error { return nil }

func (d *dirDriver) update(context.Context, state.Config) error { return nil }

func (d *dirDriver) load(context.Context) error { return nil }

func (d *dirDriver) create(_ context.Context, path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return makeRootFS(path)
}

func makeRootFS(content string) error {
	rootfs := filepath.Join(content, nameRootFS)
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		return err
	}
	return os.Chmod(rootfs, 0o755) // whatever the umask
}

func (d *dirDriver) adopt(context.Context, string, state.VolumeType) error { return nil }

func (d *dirDriver) hold(_ context.Context, path string, mounted bool) (*origin, error) {
	return &origin{path: path, mounted: mounted}, nil
}

func (d *dirDriver) release(context.Context, *origin) {}

func (d *dirDriver) clone(ctx context.Context, from *origin, path string, _ state.VolumeType) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return tree.Copy(ctx, path, from.path, tree.Options{Live: from.mounted})
}

func (d *dirDriver) remove(_ context.Context, path string) error { return tree.Remove(path) }

func (d *dirDriver) mount(_ context.Context, path, target string, ids *IDMap, readonly bool) error {
	return bindRootFS(d.pool, filepath.Join(path, nameRootFS), target, nil, ids, readonly)
}

// bindRootFS mounts a root file system that is written under the map disk.
// Device files on it work only for a privileged container: nobody else could
// have made them, and an image must not bring keys to the host's disks.
func bindRootFS(p *Pool, rootfs, target string, disk, ids *IDMap, readonly bool) error {
	flags := mount.Flags{ReadOnly: readonly, NoDev: ids != nil}
	if disk.same(ids) {
		return mount.Bind(rootfs, target, nil, flags)
	}
	ns, err := p.ns.For(translate(disk.uids(), ids.uids()), translate(disk.gids(), ids.gids()))
	if err != nil {
		return err
	}
	defer ns.Close()
	return mount.Bind(rootfs, target, ns, flags)
}

func (d *dirDriver) isContent(path string) bool { return exists(filepath.Join(path, nameRootFS)) }

func (d *dirDriver) dropImage(ctx context.Context, fingerprint string) error {
	trash, err := d.pool.bin(d.pool.image(fingerprint))
	if err != nil {
		return err
	}
	return d.pool.discard(context.WithoutCancel(ctx), trash)
}

func (d *dirDriver) keepImage(string) (bool, error) { return false, nil }

func (d *dirDriver) compact(context.Context, string) error { return nil }

func (d *dirDriver) slowUnmount() bool { return false }

func (d *dirDriver) instant() bool { return false }

func (d *dirDriver) usage(ctx context.Context, path string) (Usage, error) {
	used, err := tree.Size(ctx, filepath.Join(path, nameRootFS))
	if err != nil {
		return Usage{}, fmt.Errorf("measure: %w", err)
	}
	limit, err := d.limit(ctx, path)
	return Usage{Used: used, Limit: limit}, err
}

func (d *dirDriver) reconcile(context.Context) ([]string, error) { return nil, nil }
