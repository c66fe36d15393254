package api

import "time"

// InstanceType is "container" or "virtual-machine".
type InstanceType string

// The kinds of instance. InstanceTypeAny asks for all in a list.
const (
	InstanceTypeAny       InstanceType = ""
	InstanceTypeContainer InstanceType = "container"
	InstanceTypeVM        InstanceType = "virtual-machine"
)

// InstancePut is what a client may replace of an instance.
type InstancePut struct {
	Architecture string                       `json:"architecture"`
	Config       map[string]string            `json:"config"`
	Devices      map[string]map[string]string `json:"devices"`
	Ephemeral    bool                         `json:"ephemeral"`
	Profiles     []string                     `json:"profiles"`
	// Restore names a snapshot to go back to; nothing else is changed then.
	Restore     string `json:"restore,omitempty"`
	Stateful    bool   `json:"stateful"`
	Description string `json:"description"`
}

// Instance is one instance as lists and GET show it.
type Instance struct {
	InstancePut
	CreatedAt time.Time `json:"created_at"`
	// ExpandedConfig and ExpandedDevices have the profiles laid under the
	// instance's own.
	ExpandedConfig  map[string]string            `json:"expanded_config,omitempty"`
	ExpandedDevices map[string]map[string]string `json:"expanded_devices,omitempty"`
	Name            string                       `json:"name"`
	Status          string                       `json:"status"`
	StatusCode      StatusCode                   `json:"status_code"`
	// LastKnownStatus is there when the member that hosts it is offline or out of reach,
	// and the status therefore "Error": what the status was when it was last known.
	LastKnownStatus string    `json:"last_known_status,omitempty"`
	LastUsedAt      time.Time `json:"last_used_at"`
	// Location is the member that hosts it, "none" outside a cluster.
	Location string       `json:"location"`
	Type     InstanceType `json:"type"`
	Project  string       `json:"project"`
}

// InstanceFull is an instance with everything that hangs on it (recursion=2).
type InstanceFull struct {
	Instance
	Backups   []InstanceBackup   `json:"backups"`
	State     *InstanceState     `json:"state"`
	Snapshots []InstanceSnapshot `json:"snapshots"`
}

// InstancesPost creates an instance.
type InstancesPost struct {
	InstancePut
	// Name may be left out: the server makes one up.
	Name   string         `json:"name"`
	Source InstanceSource `json:"source"`
	// InstanceType names a cloud's size ("t2.micro") to take limits from.
	InstanceType string       `json:"instance_type,omitempty"`
	Type         InstanceType `json:"type,omitempty"`
}

// InstanceSource says where a new instance's root file system comes from.
type InstanceSource struct {
	// Type is "image", "copy", "migration" or "none".
	Type        string            `json:"type"`
	Certificate string            `json:"certificate,omitempty"`
	Alias       string            `json:"alias,omitempty"`
	Fingerprint string            `json:"fingerprint,omitempty"`
	Properties  map[string]string `json:"properties,omitempty"`
	Server      string            `json:"server,omitempty"`
	Secret      string            `json:"secret,omitempty"`
	// Protocol is "lxd" or "simplestreams".
	Protocol  string `json:"protocol,omitempty"`
	BaseImage string `json:"base-image,omitempty"`
	// Mode is "pull", "push" or, for images, "local".
	Mode       string            `json:"mode,omitempty"`
	Operation  string            `json:"operation,omitempty"`
	Websockets map[string]string `json:"secrets,omitempty"`
	// Source is the instance ("name") or snapshot ("name/snapshot") to copy.
	Source       string `json:"source,omitempty"`
	Live         bool   `json:"live,omitempty"`
	InstanceOnly bool   `json:"instance_only,omitempty"`
	// ContainerOnly is the older name of InstanceOnly.
	ContainerOnly     bool   `json:"container_only,omitempty"`
	Refresh           bool   `json:"refresh,omitempty"`
	Project           string `json:"project,omitempty"`
	AllowInconsistent bool   `json:"allow_inconsistent,omitempty"`
}

// InstancePost renames, moves or migrates an instance.
type InstancePost struct {
	Name          string              `json:"name"`
	Migration     bool                `json:"migration"`
	Live          bool                `json:"live"`
	InstanceOnly  bool                `json:"instance_only"`
	ContainerOnly bool                `json:"container_only"`
	Target        *InstancePostTarget `json:"target"`
	Pool          string              `json:"pool"`
	Project       string              `json:"project"`
	// AllowInconsistent goes on when files change under the copy.
	AllowInconsistent bool `json:"allow_inconsistent"`
}

// InstancePostTarget is where a pushed migration goes.
type InstancePostTarget struct {
	Certificate string            `json:"certificate"`
	Operation   string            `json:"operation,omitempty"`
	Websockets  map[string]string `json:"secrets,omitempty"`
}

// InstancesPut changes the state of every instance of a project at once.
type InstancesPut struct {
	State *InstanceStatePut `json:"state"`
}

// InstanceBackup is an export of an instance kept by the server.
type InstanceBackup struct {
	Name             string    `json:"name"`
	CreatedAt        time.Time `json:"created_at"`
	ExpiresAt        time.Time `json:"expires_at"`
	InstanceOnly     bool      `json:"instance_only"`
	ContainerOnly    bool      `json:"container_only"`
	OptimizedStorage bool      `json:"optimized_storage"`
}
