package store

import "muster/state"

// CreateProfile makes a profile.
type CreateProfile struct {
	Profile state.Profile
	Hint    Hint
}

// UpdateProfile replaces a profile's description, configuration and devices.
type UpdateProfile struct {
	Project        string
	Name           string
	Description    string
	Config         state.Config
	Devices        state.Devices
	ExpectRevision state.Revision
	Hint           Hint
}

// RenameProfile gives a profile another name, also in the instances that have it.
// The default profile keeps its name (ErrForbidden).
type RenameProfile struct {
	Project string
	Name    string
	NewName string
	Hint    Hint
}

// DeleteProfile removes a profile: ErrConflict naming the instances that have it,
// ErrForbidden for the default profile.
type DeleteProfile struct {
	Project        string
	Name           string
	ExpectRevision state.Revision
	Hint           Hint
}
