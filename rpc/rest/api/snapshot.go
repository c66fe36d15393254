package api

import "time"

// InstanceSnapshotsPost takes a snapshot.
type InstanceSnapshotsPost struct {
	// Name may be left out: the server counts snap0, snap1 …
	Name     string `json:"name"`
	Stateful bool   `json:"stateful"`
	// ExpiresAt overrides snapshots.expiry; nil leaves it to that key.
	ExpiresAt *time.Time `json:"expires_at"`
}

// InstanceSnapshotPost renames a snapshot or offers it for migration.
type InstanceSnapshotPost struct {
	Name      string              `json:"name"`
	Migration bool                `json:"migration"`
	Target    *InstancePostTarget `json:"target"`
	Live      bool                `json:"live,omitempty"`
}

// InstanceSnapshotPut is what a client may change of a snapshot.
type InstanceSnapshotPut struct {
	ExpiresAt time.Time `json:"expires_at"`
}

// InstanceSnapshot is an instance as it was. Name is the snapshot's own,
// without the instance's.
type InstanceSnapshot struct {
	InstanceSnapshotPut
	Architecture    string                       `json:"architecture"`
	Config          map[string]string            `json:"config"`
	CreatedAt       time.Time                    `json:"created_at"`
	Devices         map[string]map[string]string `json:"devices"`
	Ephemeral       bool                         `json:"ephemeral"`
	ExpandedConfig  map[string]string            `json:"expanded_config,omitempty"`
	ExpandedDevices map[string]map[string]string `json:"expanded_devices,omitempty"`
	LastUsedAt      time.Time                    `json:"last_used_at"`
	Name            string                       `json:"name"`
	Profiles        []string                     `json:"profiles"`
	Stateful        bool                         `json:"stateful"`
	// Size in bytes; -1 when unknown.
	Size int64 `json:"size"`
}
