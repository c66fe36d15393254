package store

import (
	"time"

	"muster/state"
)

// CreateInstance makes an instance, busy with the intent "create" until
// FinishCreate or DeleteInstance ends it. Its profiles, project and member must
// exist (ErrNotFound), its name must be free in the project (ErrExists).
type CreateInstance struct {
	// Instance is what to record; ID, Busy and Revision are the store's.
	Instance state.Instance
	// Intent opens with the command: ID and Input are the caller's, the rest is
	// filled in. Kind is "create" when empty.
	Intent state.Intent
	// Image, when not empty, is the full fingerprint of the image it is made from:
	// the image must exist in ImageProject (or the instance's project when that is
	// empty) and not be on its way out, cannot be deleted until the create ends, and
	// its last use becomes the instance's CreatedAt.
	Image        string
	ImageProject string
	// Volume, when not nil, is the instance's volume, made with it.
	Volume *state.Volume
	// Hint is none unless given: FinishCreate makes the event.
	Hint Hint
}

// FinishCreate ends the creation of an instance: it is no longer busy and its
// status is Status (Stopped when empty).
type FinishCreate struct {
	Project  string
	Name     string
	IntentID string
	Status   state.Status
	// Set is merged into the configuration (volatile keys, mostly).
	Set  state.Config
	Hint Hint
}

// UpdateInstance replaces what users may edit of an instance; its profiles must
// exist. ErrConflict while something else is under way for it than the intent
// named.
type UpdateInstance struct {
	Project      string
	Name         string
	Architecture string
	Description  string
	Ephemeral    bool
	Config       state.Config
	Devices      state.Devices
	Profiles     []string
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID       string
	ExpectRevision state.Revision
	Hint           Hint
}

// SetInstanceState records what the hosting member did or saw. It is allowed
// whatever else is under way. Its usual event is none: give a Hint.
type SetInstanceState struct {
	Project string
	Name    string
	// Status is kept when empty.
	Status state.Status
	// Set and Unset change single configuration keys; a key of Unset that ends in a
	// dot unsets all keys that start with it.
	Set   state.Config
	Unset []string
	// LastUsedAt is kept when zero.
	LastUsedAt time.Time
	// IntentID, when not empty, is the intent that ends with this command, which
	// must be open for the instance.
	IntentID string
	Hint     Hint
}

// MoveInstance records that another member hosts the instance from now on.
type MoveInstance struct {
	Project  string
	Name     string
	Location string
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID string
	Hint     Hint
}

// RenameInstance gives an instance another name, also in its snapshots and its
// container volumes.
type RenameInstance struct {
	Project string
	Name    string
	NewName string
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID string
	Hint     Hint
}

// DeleteInstance forgets an instance with its snapshots and its container volumes:
// ErrConflict while something else is under way for it than the intent named.
type DeleteInstance struct {
	Project string
	Name    string
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID string
	Hint     Hint
}
