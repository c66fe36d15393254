package storage

import (
	"context"

	"muster/state"
)

// Pool is one storage pool on this member. Its methods may be called from many
// goroutines; calls that change the same volume wait for each other.
//
// Errors have a kind of state: ErrNotFound and ErrExists for volumes,
// snapshots and images; ErrInvalid for names, configuration and what the
// driver can never do; ErrConflict for a volume that is in use; ErrUnavailable
// when the pool is full ("no space left on pool X").
type Pool struct{}

// errUnbuilt answers for what is not there yet.
var errUnbuilt = state.Errorf(state.ErrUnavailable, "this part of storage is not built yet")

// Open checks the pool's name, driver and configuration and returns the pool.
// It touches nothing: Create makes a new pool, Mount makes an existing one
// usable.
func Open(ctx context.Context, cfg Config, pool state.Pool) (*Pool, error) { return nil, errUnbuilt }

// Validate checks a pool's driver and configuration without looking at the
// machine: unknown keys (the error names the nearest valid one), sizes, paths.
func Validate(pool state.Pool) error { return errUnbuilt }

// Driver describes a kind of pool on this machine.
type Driver struct {
	Name    string
	Version string // of the kernel or tool that does the work
	// Problem says why the driver cannot be used here and what to do about
	// it; empty when it can.
	Problem string
}

// Drivers lists the kinds of pool that muster knows, the default first.
func Drivers(ctx context.Context) []Driver { return nil }

// Name returns the pool's name.
func (p *Pool) Name() string { return "" }

// DriverName returns "overlay", "dir" or "btrfs".
func (p *Pool) DriverName() string { return "" }

// Create makes the pool on disk and mounts it. It returns the configuration
// to record: the given one with "source" and, for a loop file, "size" filled
// in. Everything is checked before anything is touched, and nothing is left
// after an error.
func (p *Pool) Create(ctx context.Context) (state.Config, error) { return nil, errUnbuilt }

// Delete unmounts the pool and removes what Create made, with all images. It
// is ErrConflict while the pool has volumes. A pool that is gone already, or
// only half there, is no error.
func (p *Pool) Delete(ctx context.Context) error { return errUnbuilt }

// Update takes over a changed configuration: a loop file grows to a larger
// "size", btrfs.mount_options take effect at once. What cannot be changed
// (driver, source) is ErrInvalid.
func (p *Pool) Update(ctx context.Context, config state.Config) error { return errUnbuilt }

// Mount makes an existing pool usable; it finds what an earlier daemon left
// mounted. Calling it again does nothing.
func (p *Pool) Mount(ctx context.Context) error { return errUnbuilt }

// Unmount releases the pool. It is ErrConflict while a volume is mounted: a
// daemon that ends while containers run just leaves the pool mounted.
func (p *Pool) Unmount(ctx context.Context) error { return errUnbuilt }

// Resources returns the space and inodes of the pool's file system.
func (p *Pool) Resources(ctx context.Context) (Resources, error) { return Resources{}, errUnbuilt }

// Features returns what the pool's file system can do, as probed by Mount.
func (p *Pool) Features() Features { return Features{} }

// Reconcile brings a mounted pool in order after a crash: it removes staging
// leftovers and the mounts of volumes that are not running, counts one user
// for each running volume, and drops layers that nothing uses any more. The
// daemon calls it once, after Mount and before anything else.
func (p *Pool) Reconcile(ctx context.Context, known Known) (Report, error) {
	return Report{}, errUnbuilt
}

// EnsureImage makes sure that the image is unpacked in the pool, calling
// unpack if it is not. Concurrent callers wait for one unpacking; a crash or an
// error leaves nothing that looks like an image.
func (p *Pool) EnsureImage(ctx context.Context, fingerprint string, unpack Unpack) error {
	return errUnbuilt
}

// DeleteImage forgets an unpacked image; one that is not there is no error.
// Volumes made from it are not touched: what they share with it stays on disk
// until the last of them is gone.
func (p *Pool) DeleteImage(ctx context.Context, fingerprint string) error { return errUnbuilt }

// ImagePresent reports whether the image is unpacked in the pool.
func (p *Pool) ImagePresent(fingerprint string) bool { return false }

// Images returns the fingerprints of the unpacked images, sorted.
func (p *Pool) Images(ctx context.Context) ([]string, error) { return nil, errUnbuilt }

// CreateEmpty makes a volume whose file system is an empty directory.
func (p *Pool) CreateEmpty(ctx context.Context, vol Volume) error { return errUnbuilt }

// CreateFromImage makes a volume from an unpacked image (ErrNotFound when
// EnsureImage has not been called).
func (p *Pool) CreateFromImage(ctx context.Context, vol Volume, fingerprint string) error {
	return errUnbuilt
}

// CreateFromUnpack makes a volume, or with vol.Snapshot set a snapshot of an
// existing volume, from what unpack delivers (backup, migration).
func (p *Pool) CreateFromUnpack(ctx context.Context, vol Volume, unpack Unpack) error {
	return errUnbuilt
}

// Copy makes dst from src, a volume or a snapshot of the pool from, which may
// be p itself, and copies the named snapshots of src along. A source in use is
// copied as by a snapshot.
func (p *Pool) Copy(ctx context.Context, dst Volume, from *Pool, src Volume, snapshots []string) error {
	return errUnbuilt
}

// Rename gives a volume with its snapshots, or one snapshot, a new name. A
// volume must not be mounted.
func (p *Pool) Rename(ctx context.Context, vol Volume, name string) error { return errUnbuilt }

// DeleteVolume removes a volume with all its snapshots, or one snapshot. A
// volume or snapshot that is gone already, or only half there, is no error;
// one that is mounted is ErrConflict.
func (p *Pool) DeleteVolume(ctx context.Context, vol Volume) error { return errUnbuilt }

// Snapshot keeps vol.Live() as it is now under the name vol.Snapshot. The
// volume may be in use: the snapshot is then what a crash at this moment would
// leave, taken at one instant on btrfs and file by file elsewhere (freeze the
// container to have one instant everywhere).
func (p *Pool) Snapshot(ctx context.Context, vol Volume) error { return errUnbuilt }

// Restore makes vol.Live() what it was at the snapshot. The volume must not be
// mounted. Its other snapshots stay.
func (p *Pool) Restore(ctx context.Context, vol Volume) error { return errUnbuilt }

// VolumePresent reports whether the volume or snapshot exists.
func (p *Pool) VolumePresent(vol Volume) bool { return false }

// Volumes returns all volumes of the pool with the sorted names of their
// snapshots.
func (p *Pool) Volumes(ctx context.Context) (map[Volume][]string, error) { return nil, errUnbuilt }

// MountVolume mounts a volume for a container with the given id map, or finds
// it mounted, and counts one more user. A snapshot is mounted read-only. It is
// ErrConflict while the volume is mounted with another id map.
func (p *Pool) MountVolume(ctx context.Context, vol Volume, ids *IDMap) (Mounted, error) {
	return Mounted{}, errUnbuilt
}

// UnmountVolume counts one user less and unmounts the volume when none is
// left. A volume that is not mounted is no error; after a restart of the
// daemon a mount that nobody counted is taken down.
func (p *Pool) UnmountVolume(ctx context.Context, vol Volume) error { return errUnbuilt }

// ViewVolume calls use with a read-only mount of the volume or snapshot in
// which owners are as the container sees them (root is 0): what publishing and
// exporting read. A volume in use is seen as a snapshot taken now.
func (p *Pool) ViewVolume(ctx context.Context, vol Volume, use func(Mounted) error) error {
	return errUnbuilt
}

// VolumeDir returns the directory that holds the volume's metadata.yaml and
// templates, mounted or not.
func (p *Pool) VolumeDir(vol Volume) (string, error) { return "", errUnbuilt }

// Usage returns the space that the volume takes.
func (p *Pool) Usage(ctx context.Context, vol Volume) (Usage, error) { return Usage{}, errUnbuilt }

// SetQuota limits the volume to this many bytes; zero lifts the limit. It is
// ErrInvalid where the pool cannot limit volumes; the error names a driver
// that can.
func (p *Pool) SetQuota(ctx context.Context, vol Volume, bytes int64) error { return errUnbuilt }
