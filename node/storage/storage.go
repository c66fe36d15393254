// Package storage keeps the root file systems of one member's instances: pools
// of three kinds (overlay, dir, btrfs), the images unpacked into them, the
// volumes made from images, their snapshots, and the mounts through which a
// container or the file API sees a volume.
//
// It never knows what a volume is for: it runs no container, reads no API
// request, parses no image and opens no database. It never changes the owner of
// a file to suit a container (ids are mapped when mounting), and it never
// follows a path that a container could have changed.
package storage

import (
	"context"
	"log/slog"

	"muster/state"
)

// Config says where a member keeps its pools.
type Config struct {
	// Dir holds one directory per pool ($MUSTER_DIR/storage-pools). Everything
	// that a pool mounts is mounted below it.
	Dir string
	// Disks holds the loop files of btrfs pools; empty means "disks" beside Dir.
	Disks string
	// Log receives what an operator should know; nil means silence.
	Log *slog.Logger
}

// Volume names one volume of a pool, or a snapshot of it.
type Volume struct {
	// Type is state.VolumeContainer or state.VolumeCustom.
	Type state.VolumeType
	// Name is the name on the host: "c1", or "blue_c1" for c1 of project blue.
	Name string
	// Snapshot is the snapshot's name, or empty for the volume itself.
	Snapshot string
}

// Instance names the volume of the instance with this name on the host.
func Instance(name string) Volume { return Volume{Type: state.VolumeContainer, Name: name} }

// Custom names a volume that instances attach as a disk device.
func Custom(name string) Volume { return Volume{Type: state.VolumeCustom, Name: name} }

// At names a snapshot of v.
func (v Volume) At(snapshot string) Volume {
	v.Snapshot = snapshot
	return v
}

// Live names the volume that v is or is a snapshot of.
func (v Volume) Live() Volume {
	v.Snapshot = ""
	return v
}

// String returns the name as users see it: "c1", "c1/snap0".
func (v Volume) String() string {
	if v.Snapshot != "" {
		return v.Name + "/" + v.Snapshot
	}
	return v.Name
}

// IDMap says how the ids of a container appear on the host. A nil *IDMap is
// the map of a privileged container: every id is itself.
type IDMap struct {
	UIDs []IDRange `json:"uids"`
	GIDs []IDRange `json:"gids"`
}

// IDRange maps Size consecutive ids.
type IDRange struct {
	Container uint32 `json:"container"`
	Host      uint32 `json:"host"`
	Size      uint32 `json:"size"`
}

// Shift returns the usual map of an unprivileged container: ids 0 to size-1
// appear as base to base+size-1.
func Shift(base, size uint32) *IDMap {
	r := []IDRange{{Container: 0, Host: base, Size: size}}
	return &IDMap{UIDs: r, GIDs: r}
}

// Unpack fills dir, an empty directory, with what a volume holds: "rootfs"
// with owners as the container sees them (root is 0), and, when there are any,
// the file "metadata.yaml" and the directory "templates". Nothing that it
// leaves behind after an error is kept.
type Unpack func(ctx context.Context, dir string) error

// Mounted is where a mounted volume is found. Both paths are absolute and stay
// the same for as long as the volume is mounted, restarts of the daemon
// included.
type Mounted struct {
	// Dir holds metadata.yaml and templates, owned by root and without any id
	// map. It is not reachable for a container. Empty for a custom volume.
	Dir string
	// RootFS is the volume's file system with ids mapped as asked; the
	// directories above it can be crossed by the mapped root.
	RootFS string
}

// Resources is what a pool has and uses. Counts of inodes are zero for a file
// system that makes them as needed (btrfs).
type Resources struct {
	SpaceTotal  uint64 // bytes
	SpaceUsed   uint64 // bytes
	InodesTotal uint64
	InodesUsed  uint64
}

// Usage is the space that a volume takes, counted as its quota counts it.
type Usage struct {
	// Used is in bytes. On overlay it leaves out the image.
	Used int64
	// Limit is the quota in bytes; zero means none.
	Limit int64
}

// Known is what the member should have, as the state plane tells it.
type Known struct {
	// Volumes are all volumes of the pool, without snapshots; the value lists
	// the names of the volume's snapshots.
	Volumes map[Volume][]string
	// Running are the volumes that a running container or another process
	// that outlived the daemon uses now: they keep their mounts.
	Running []Volume
	// Incoming are the volumes that are still expected from another member:
	// what came of them is kept, to go on with. What came of others goes.
	Incoming []Volume
	// Images are the fingerprints that the member should keep unpacked;
	// nil keeps every one.
	Images []string
}

// Report says what Reconcile did and what it found that is not its to repair.
type Report struct {
	// Removed are leftovers that were cleaned away, in words for a log.
	Removed []string
	// Unmounted are the mounts of volumes not in use that were taken down.
	Unmounted []string
	// Missing are volumes and snapshots that Known has and the pool has not.
	Missing []Volume
	// Strangers are volumes and snapshots that the pool has and Known has
	// not. They are left alone: DeleteVolume removes one.
	Strangers []Volume
}

// Features is what a pool's file system can do here; probed, not assumed.
type Features struct {
	IDMappedMounts bool // unprivileged containers can use dir and btrfs
	Overlay        bool // overlay with an upper directory on this file system
	OverlayIDMap   bool // overlay over id-mapped lower layers
	Reflink        bool // copies share blocks until changed
	ProjectQuota   bool // dir and overlay can limit a volume
	Subvolumes     bool // the file system is btrfs
}
