package state

import "time"

// Pool is a storage pool of the cluster.
type Pool struct {
	Meta
	Name        string
	Description string
	// Driver is "overlay", "dir" or "btrfs".
	Driver string
	// Config is what holds for the whole cluster: see On.
	Config Config
	// Locals say how the pool is on each member.
	Locals Locals
	// Busy is "create" or "delete" while members are at it, or empty.
	Busy string
}

// VolumeType says what a volume holds.
type VolumeType string

// The kinds of volume.
const (
	VolumeContainer VolumeType = "container"
	VolumeImage     VolumeType = "image"
	VolumeCustom    VolumeType = "custom"
)

// Volume is a piece of a pool. Volumes of instances are made and deleted with
// their instance.
type Volume struct {
	Meta
	Pool        string
	Project     string
	Type        VolumeType
	Name        string
	Description string
	Config      Config
	// Location is the member that holds the volume; empty in a shared pool.
	Location  string
	CreatedAt time.Time
}
