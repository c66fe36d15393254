package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"muster/node/storage/btrfs"
	"muster/state"
)

// btrfsDriver keeps each content as a subvolume: a copy is a snapshot, and
// quota groups limit volumes. Where the file system comes from is in
// btrfssource.go.
type btrfsDriver struct{ pool *Pool }

func (d *btrfsDriver) load(context.Context) error { return nil }

func (d *btrfsDriver) create(_ context.Context, path string) error {
	if err := btrfs.Create(path); err != nil {
		return err
	}
	return makeRootFS(path)
}

func (d *btrfsDriver) adopt(context.Context, string, state.VolumeType) error { return nil }

func (d *btrfsDriver) hold(_ context.Context, path string, mounted bool) (*origin, error) {
	return &origin{path: path, mounted: mounted}, nil
}

func (d *btrfsDriver) release(context.Context, *origin) {}

// clone snapshots a subvolume and what a container made inside it: a snapshot
// has an empty directory in the place of each inner subvolume.
func (d *btrfsDriver) clone(ctx context.Context, from *origin, path string, _ state.VolumeType) error {
	source, err := openDir(from.path)
	if err != nil {
		return err
	}
	defer unix.Close(source)
	parent, err := openDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := btrfs.Snapshot(source, parent, filepath.Base(path)); err != nil {
		return err
	}
	id, err := btrfs.IDOf(source)
	if err != nil {
		return err
	}
	nested, err := btrfs.NestedIn(d.pool.root, id)
	if err != nil {
		return err
	}
	var readOnly []string
	for _, n := range nested {
		if err := ctx.Err(); err != nil {
			return err
		}
		locked, err := d.cloneNested(source, n, path)
		if err != nil {
			return err
		}
		if locked {
			readOnly = append(readOnly, n.Path)
		}
	}
	// Only now: nothing can be put into one that is read-only.
	return setReadOnly(path, readOnly, true)
}

// setReadOnly makes inner subvolumes of the one at path, which is not in use, read-only or
// writable.
func setReadOnly(path string, inner []string, on bool) error {
	if len(inner) == 0 {
		return nil
	}
	outer, err := openDir(path)
	if err != nil {
		return err
	}
	defer unix.Close(outer)
	for _, name := range inner {
		subvolume, err := beneath(outer, name)
		if err != nil {
			return fmt.Errorf("open the subvolume %s in %s: %w", name, path, err)
		}
		err = btrfs.SetReadOnly(subvolume, on)
		_ = unix.Close(subvolume)
		if err != nil {
			return err
		}
	}
	return nil
}

// cloneNested snapshots one inner subvolume of source into the copy at path, and reports
// whether it was made and is to be read-only as the original is.
func (d *btrfsDriver) cloneNested(source int, n btrfs.Nested, path string) (readOnly bool, err error) {
	// The container may be moving things about: only a path that stays inside
	// and passes no link is followed, and only to the subvolume we mean.
	inner, err := beneath(source, n.Path)
	if err != nil {
		return false, ignoreGone(err)
	}
	defer unix.Close(inner)
	id, err := btrfs.IDOf(inner)
	if err != nil {
		return false, err
	}
	if id != n.ID {
		return false, nil
	}
	copied, err := openDir(path)
	if err != nil {
		return false, err
	}
	defer unix.Close(copied)
	parent, err := beneath(copied, filepath.Dir(n.Path))
	if err != nil {
		return false, ignoreGone(err)
	}
	defer unix.Close(parent)
	name := filepath.Base(n.Path)
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err != nil {
		// Made after our snapshot, or not empty: not what we look for.
		return false, ignoreGone(err)
	}
	if err := btrfs.Snapshot(inner, parent, name); err != nil {
		return false, err
	}
	return btrfs.ReadOnly(inner)
}

func openDir(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

func beneath(dir int, path string) (int, error) {
	return unix.Openat2(dir, path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// ignoreGone drops the errors that mean that a container moved or removed what
// we were looking for.
func ignoreGone(err error) error {
	for _, gone := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENOTEMPTY, unix.EXDEV} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	return err
}

func (d *btrfsDriver) remove(ctx context.Context, path string) error {
	subvolume, err := btrfs.IsSubvolume(path)
	if err != nil {
		return err
	}
	if !subvolume {
		return os.RemoveAll(path)
	}
	id, err := btrfs.ID(path)
	if err != nil {
		return err
	}
	nested, err := btrfs.NestedIn(d.pool.root, id)
	if err != nil {
		return err
	}
	var inner []string
	for _, n := range nested {
		inner = append(inner, n.Path)
	}
	// Nothing can be taken out of one that is read-only.
	if err := setReadOnly(path, inner, false); err != nil {
		return err
	}
	for _, n := range slices.Backward(nested) {
		if err := d.destroySubvolume(ctx, n.ID); err != nil {
			return err
		}
	}
	if err := d.destroySubvolume(ctx, id); err != nil {
		return err
	}
	// The kernel frees the space within half a minute. When space is short,
	// somebody is waiting for it.
	var st unix.Statfs_t
	if err := unix.Statfs(d.pool.root, &st); err != nil || st.Bavail > st.Blocks/10 {
		return err
	}
	return btrfs.Sync(d.pool.root)
}

func (d *btrfsDriver) destroySubvolume(_ context.Context, id uint64) error {
	if err := btrfs.Destroy(d.pool.root, id); err != nil {
		return err
	}
	if err := btrfs.DropQuota(d.pool.root, id); err != nil {
		// Newer kernels drop it themselves once the files are really gone.
		d.pool.log.Debug("a quota group stays", "subvolume", id, "error", err)
	}
	return nil
}

func (d *btrfsDriver) mount(_ context.Context, path, target string, ids *IDMap, readonly bool) error {
	return bindRootFS(d.pool, filepath.Join(path, nameRootFS), target, nil, ids, readonly)
}

func (d *btrfsDriver) isContent(path string) bool {
	subvolume, err := btrfs.IsSubvolume(path)
	return subvolume || err != nil
}

func (d *btrfsDriver) dropImage(ctx context.Context, fingerprint string) error {
	trash, err := d.pool.bin(d.pool.image(fingerprint))
	if err != nil {
		return err
	}
	return d.pool.discard(context.WithoutCancel(ctx), trash)
}

func (d *btrfsDriver) keepImage(string) (bool, error) { return false, nil }

func (d *btrfsDriver) compact(context.Context, string) error { return nil }

func (d *btrfsDriver) slowUnmount() bool { return false }

func (d *btrfsDriver) instant() bool { return true }

func (d *btrfsDriver) usage(ctx context.Context, path string) (Usage, error) {
	id, err := btrfs.ID(path)
	if err != nil {
		return Usage{}, err
	}
	quota, err := btrfs.QuotaOf(d.pool.root, id)
	if errors.Is(err, btrfs.ErrNoQuota) {
		// Nobody on this pool has a limit yet, so nothing is counted.
		return (&dirDriver{pool: d.pool}).usage(ctx, path)
	}
	return Usage{Used: quota.Referenced, Limit: quota.Limit}, err
}

func (d *btrfsDriver) limit(_ context.Context, path string) (int64, error) {
	id, err := btrfs.ID(path)
	if err != nil {
		return 0, err
	}
	quota, err := btrfs.QuotaOf(d.pool.root, id)
	if errors.Is(err, btrfs.ErrNoQuota) {
		return 0, nil
	}
	return quota.Limit, err
}

func (d *btrfsDriver) setQuota(ctx context.Context, path string, bytes int64) error {
	if bytes == 0 {
		limit, err := d.limit(ctx, path)
		if err != nil || limit == 0 {
			return err
		}
	}
	id, err := btrfs.ID(path)
	if err != nil {
		return err
	}
	// Counting costs time on every write, so it starts with the first limit.
	if err := btrfs.EnableQuota(d.pool.root); err != nil {
		return err
	}
	return btrfs.SetLimit(d.pool.root, id, bytes)
}

func (d *btrfsDriver) reconcile(context.Context) ([]string, error) { return nil, nil }
