package state

import (
	"maps"
	"time"
)

// Status of an instance, in the words that clients know.
type Status string

// The states an instance is shown in.
const (
	StatusRunning Status = "Running"
	StatusStopped Status = "Stopped"
	StatusFrozen  Status = "Frozen"
	StatusError   Status = "Error"
)

// Instance is a system container as the cluster remembers it.
type Instance struct {
	Meta
	ID      int64
	Project string
	Name    string
	// Location is the name of the member that hosts the instance.
	Location     string
	Architecture string
	Description  string
	Ephemeral    bool
	Stateful     bool
	// Config and Devices are the instance's own; Expand adds its profiles'.
	Config   Config
	Devices  Devices
	Profiles []string
	// Need is what the instance is counted for on its member.
	Need Resources
	// Status is what the hosting member last reported.
	Status     Status
	CreatedAt  time.Time
	LastUsedAt time.Time
	// Busy names the intent open for the instance ("create", "delete", …), or
	// is empty.
	Busy string
}

// Snapshot is an instance as it was at one moment.
type Snapshot struct {
	Meta
	ID           int64
	Project      string
	Instance     string
	Name         string
	Architecture string
	Description  string
	Ephemeral    bool
	Stateful     bool
	Config       Config
	Devices      Devices
	Profiles     []string
	CreatedAt    time.Time
	// ExpiresAt is zero when the snapshot does not expire.
	ExpiresAt time.Time
	Busy      string
}

// Profile is configuration that instances share.
type Profile struct {
	Meta
	Project     string
	Name        string
	Description string
	Config      Config
	Devices     Devices
}

// Expand lays the instance's own configuration and devices over those of its
// profiles, later profiles over earlier ones (LXD REST API, "expanded_config").
// The results are new maps.
func Expand(profiles []*Profile, config Config, devices Devices) (Config, Devices) {
	expandedConfig, expandedDevices := Config{}, Devices{}
	lay := func(c Config, d Devices) {
		maps.Copy(expandedConfig, c)
		for name, device := range d {
			expandedDevices[name] = maps.Clone(device)
		}
	}
	for _, profile := range profiles {
		lay(profile.Config, profile.Devices)
	}
	lay(config, devices)
	return expandedConfig, expandedDevices
}
