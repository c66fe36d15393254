package api

import "time"

// StoragePoolPut is what a client may replace of a pool.
type StoragePoolPut struct {
	Config      map[string]string `json:"config"`
	Description string            `json:"description"`
}

// StoragePool is where instances and volumes are kept.
type StoragePool struct {
	StoragePoolPut
	Name string `json:"name"`
	// Driver is "overlay", "dir" or "btrfs".
	Driver string `json:"driver"`
	// UsedBy are URLs of instances, images, profiles and volumes.
	UsedBy []string `json:"used_by"`
	// Status is "Created", "Pending" or "Errored".
	Status    string   `json:"status"`
	Locations []string `json:"locations"`
}

// StoragePoolsPost creates a pool.
type StoragePoolsPost struct {
	StoragePoolPut
	Name   string `json:"name"`
	Driver string `json:"driver"`
}

// ResourcesStoragePool is how full a pool is.
type ResourcesStoragePool struct {
	// Space is in bytes.
	Space  ResourcesStoragePoolSpace  `json:"space"`
	Inodes ResourcesStoragePoolInodes `json:"inodes"`
}

// ResourcesStoragePoolSpace is in bytes.
type ResourcesStoragePoolSpace struct {
	Used  uint64 `json:"used"`
	Total uint64 `json:"total"`
}

// ResourcesStoragePoolInodes counts inodes; both 0 when the file system has no
// fixed number.
type ResourcesStoragePoolInodes struct {
	Used  uint64 `json:"used"`
	Total uint64 `json:"total"`
}

// StorageVolumePut is what a client may replace of a volume.
type StorageVolumePut struct {
	Config      map[string]string `json:"config"`
	Description string            `json:"description"`
	// Restore names a snapshot to go back to.
	Restore string `json:"restore,omitempty"`
}

// StorageVolume is a piece of a pool.
type StorageVolume struct {
	StorageVolumePut
	Name string `json:"name"`
	// Type is "container", "virtual-machine", "image" or "custom".
	Type   string   `json:"type"`
	UsedBy []string `json:"used_by"`
	// Location is the member that holds it, "none" outside a cluster.
	Location string `json:"location"`
	// ContentType is "filesystem" or "block".
	ContentType string    `json:"content_type"`
	Project     string    `json:"project"`
	CreatedAt   time.Time `json:"created_at"`
}

// StorageVolumesPost creates a volume.
type StorageVolumesPost struct {
	StorageVolumePut
	Name        string              `json:"name"`
	Type        string              `json:"type"`
	Source      StorageVolumeSource `json:"source"`
	ContentType string              `json:"content_type"`
}

// StorageVolumeSource says what a new volume is copied from; Type "" or "none"
// makes an empty one.
type StorageVolumeSource struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	Pool        string `json:"pool"`
	Certificate string `json:"certificate"`
	// Mode is "pull" or "push".
	Mode       string            `json:"mode,omitempty"`
	Operation  string            `json:"operation,omitempty"`
	Websockets map[string]string `json:"secrets,omitempty"`
	VolumeOnly bool              `json:"volume_only"`
	Refresh    bool              `json:"refresh"`
	Project    string            `json:"project,omitempty"`
}

// StorageVolumePost renames or moves a volume.
type StorageVolumePost struct {
	Name       string                   `json:"name"`
	Pool       string                   `json:"pool,omitempty"`
	Migration  bool                     `json:"migration"`
	Target     *StorageVolumePostTarget `json:"target"`
	VolumeOnly bool                     `json:"volume_only"`
	Project    string                   `json:"project,omitempty"`
}

// StorageVolumePostTarget is where a pushed volume goes.
type StorageVolumePostTarget struct {
	Certificate string            `json:"certificate"`
	Operation   string            `json:"operation,omitempty"`
	Websockets  map[string]string `json:"secrets,omitempty"`
}

// StorageVolumeSnapshotPut is what a client may replace of a volume snapshot.
type StorageVolumeSnapshotPut struct {
	Description string     `json:"description"`
	ExpiresAt   *time.Time `json:"expires_at"`
}

// StorageVolumeSnapshot is a volume as it was. Name is the snapshot's own.
type StorageVolumeSnapshot struct {
	StorageVolumeSnapshotPut
	Name        string            `json:"name"`
	Config      map[string]string `json:"config"`
	ContentType string            `json:"content_type"`
	CreatedAt   time.Time         `json:"created_at"`
}

// StorageVolumeSnapshotsPost takes a snapshot of a volume.
type StorageVolumeSnapshotsPost struct {
	Name      string     `json:"name"`
	ExpiresAt *time.Time `json:"expires_at"`
}

// StorageVolumeSnapshotPost renames a volume snapshot.
type StorageVolumeSnapshotPost struct {
	Name string `json:"name"`
}

// StorageVolumeState is what a volume uses.
type StorageVolumeState struct {
	Usage *StorageVolumeStateUsage `json:"usage"`
}

// StorageVolumeStateUsage is in bytes.
type StorageVolumeStateUsage struct {
	Used  uint64 `json:"used"`
	Total int64  `json:"total"`
}
