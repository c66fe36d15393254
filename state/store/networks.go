package store

import "muster/state"

// CreateNetwork makes a managed network. With an Intent it is busy until a command
// ends that intent.
type CreateNetwork struct {
	Network state.Network
	// Intent opens with the command; its subject is filled in. It may be nil.
	Intent *state.Intent
	Hint   Hint
}

// UpdateNetwork replaces a network's description and configuration; ErrConflict
// while something else is under way for it than the intent named.
type UpdateNetwork struct {
	Project     string
	Name        string
	Description string
	Config      state.Config
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID       string
	ExpectRevision state.Revision
	Hint           Hint
}

// RenameNetwork gives a network another name: ErrConflict when a profile or an
// instance uses it.
type RenameNetwork struct {
	Project  string
	Name     string
	NewName  string
	IntentID string
	Hint     Hint
}

// DeleteNetwork removes a network: ErrConflict when a profile or an instance uses
// it, or while something else is under way for it than the intent named.
type DeleteNetwork struct {
	Project  string
	Name     string
	IntentID string
	Hint     Hint
}
