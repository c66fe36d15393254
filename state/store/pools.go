package store

import "muster/state"

// CreatePool makes a storage pool. With an Intent it is busy until a command ends
// that intent.
type CreatePool struct {
	Pool state.Pool
	// Intent opens with the command; its subject is filled in. It may be nil.
	Intent *state.Intent
	Hint   Hint
}

// UpdatePool replaces a pool's description and configuration; ErrConflict while
// something else is under way for it than the intent named.
type UpdatePool struct {
	Name        string
	Description string
	Config      state.Config
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID       string
	ExpectRevision state.Revision
	Hint           Hint
}

// DeletePool removes a pool: ErrConflict when it holds volumes other than those
// of images, when a profile or an instance uses it, or while something else is
// under way for it than the intent named. Volumes of images go with it.
type DeletePool struct {
	Name     string
	IntentID string
	Hint     Hint
}
