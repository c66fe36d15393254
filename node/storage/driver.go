package storage

import (
	"context"

	"muster/state"
)

// driver is what differs between the kinds of pool. A content is the directory
// of an image, a volume or a snapshot (layout.go). Pool makes every content in
// staging and removes it in trash, and calls a driver for one content with
// nobody else changing it.
type driver interface {
	// check refuses a new pool that cannot work, and touches nothing.
	check(ctx context.Context) error
	// provision makes the pool's file system, if that is for it to make, and
	// returns the configuration to record.
	provision(ctx context.Context) (state.Config, error)
	// attach mounts the pool's file system at the pool's root.
	attach(ctx context.Context) error
	// destroy removes what provision made. The root is not mounted.
	destroy(ctx context.Context) error
	// update takes over a new configuration of a mounted pool.
	update(ctx context.Context, config state.Config) error
	// load learns what there is on a pool that was just mounted.
	load(ctx context.Context) error

	// create makes an empty content at path.
	create(ctx context.Context, path string) error
	// adopt turns a content that was filled from outside (rootfs,
	// metadata.yaml, templates) into one of the driver's own.
	adopt(ctx context.Context, path string, kind state.VolumeType) error
	// hold fixes the state of a content for clone. It does not take long, and
	// nobody mounts or unmounts the content meanwhile. mounted says that it is
	// mounted and may be written to.
	hold(ctx context.Context, path string, mounted bool) (*origin, error)
	// clone makes a content at path, which does not exist, from what was held.
	clone(ctx context.Context, from *origin, path string, kind state.VolumeType) error
	// release ends a hold.
	release(ctx context.Context, from *origin)
	// remove removes a content, or what is left of one.
	remove(ctx context.Context, path string) error
	// mount mounts the content's root file system at target.
	mount(ctx context.Context, path, target string, ids *IDMap, readonly bool) error

	// isContent reports whether path is a content of ours, maybe half of one.
	isContent(path string) bool
	// dropImage removes an image, or hides it while volumes need its files.
	dropImage(ctx context.Context, fingerprint string) error
	// keepImage brings a hidden image back; false says that there is none.
	keepImage(fingerprint string) (bool, error)
	// compact frees what a volume that is not mounted no longer needs after
	// one of its snapshots went.
	compact(ctx context.Context, path string) error
	// instant says that clone takes no time worth speaking of and sees one
	// instant of a mounted volume.
	instant() bool

	// slowUnmount says that taking down a volume's mount may write out
	// everybody's data first.
	slowUnmount() bool

	usage(ctx context.Context, path string) (Usage, error)
	// limit returns the quota of a content in bytes; zero is none.
	limit(ctx context.Context, path string) (int64, error)
	setQuota(ctx context.Context, path string, bytes int64) error
	// reconcile removes what a crash left behind in the driver's own places.
	reconcile(ctx context.Context) (removed []string, err error)
}

// origin is a content at one moment.
type origin struct {
	path    string
	mounted bool
	// chain is the layers of an overlay content, with a mounted one's upper
	// directory still to be copied.
	chain *chain
}

// newDriver returns the driver of the pool.
func newDriver(p *Pool) driver {
	switch p.driverName {
	case driverBtrfs:
		return &btrfsDriver{pool: p}
	case driverDir:
		return &dirDriver{pool: p}
	default:
		return &overlayDriver{dirDriver: dirDriver{pool: p}}
	}
}

// The kinds of pool.
const (
	driverOverlay = "overlay"
	driverDir     = "dir"
	driverBtrfs   = "btrfs"
)
