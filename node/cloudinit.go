package node

import (
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"muster/state"
)

// instanceID is the volatile key that tells cloud-init in the guest whether it runs in
// another instance than the last time, or in one that is to be set up anew.
const instanceID = "volatile.cloud-init.instance-id"

// userDataKeys are the keys besides cloud-init.* that cloud-init reads.
var userDataKeys = []string{"user.network-config", "user.user-data", "user.vendor-data"}

// NewInstanceID is a value for the volatile key that cloud-init goes by.
func NewInstanceID() state.Config { return state.Config{instanceID: uuid.NewString()} }

// InstanceIDAfter returns a new instance ID to record when the change is one that
// cloud-init must notice: of what it is given, or of the nics and their names.
func InstanceIDAfter(from, to Instance) state.Config {
	given := func(i Instance) state.Config {
		found := state.Config{}
		for key, value := range i.Config {
			if value != "" && (strings.HasPrefix(key, "cloud-init.") || slices.Contains(userDataKeys, key)) {
				found[key] = value
			}
		}
		for name, device := range i.Devices {
			if device["type"] == "nic" {
				found["nic "+name] = device["name"]
			}
		}
		return found
	}
	if maps.Equal(given(from), given(to)) {
		return nil
	}
	return NewInstanceID()
}
