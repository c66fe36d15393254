package store

import "muster/state"

// CreateVolume makes a volume. With an Intent, something is under way for it until
// a command ends that intent.
type CreateVolume struct {
	Volume state.Volume
	// Intent opens with the command; its subject is filled in. It may be nil.
	Intent *state.Intent
	Hint   Hint
}

// VolumeRef identifies a volume. Location is the member that holds it, empty in a
// shared pool.
type VolumeRef struct {
	Pool     string
	Project  string
	Type     state.VolumeType
	Name     string
	Location string
}

// UpdateVolume replaces a volume's description and configuration.
type UpdateVolume struct {
	Ref            VolumeRef
	Description    string
	Config         state.Config
	IntentID       string
	ExpectRevision state.Revision
	Hint           Hint
}

// RenameVolume gives a volume another name: ErrConflict when a profile or an
// instance uses a custom volume.
type RenameVolume struct {
	Ref      VolumeRef
	NewName  string
	IntentID string
	Hint     Hint
}

// DeleteVolume removes a volume: ErrConflict when a profile or an instance uses a
// custom volume.
type DeleteVolume struct {
	Ref      VolumeRef
	IntentID string
	Hint     Hint
}
