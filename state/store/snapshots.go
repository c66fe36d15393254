package store

import (
	"time"

	"muster/state"
)

// CreateSnapshot records a snapshot of an instance. With an Intent it is busy
// until FinishSnapshot or DeleteSnapshot ends it.
type CreateSnapshot struct {
	// Snapshot is what to record. When its Config is nil, architecture,
	// description, ephemeral, configuration, devices and profiles are the
	// instance's at this moment.
	Snapshot state.Snapshot
	// Intent opens with the command; its subject is filled in, and its Kind is
	// "create" when empty. It may be nil.
	Intent *state.Intent
	// Hint is none with an Intent unless given: FinishSnapshot makes the event.
	Hint Hint
}

// FinishSnapshot ends the creation of a snapshot.
type FinishSnapshot struct {
	Project  string
	Instance string
	Name     string
	IntentID string
	Hint     Hint
}

// UpdateSnapshot replaces a snapshot's description and expiry.
type UpdateSnapshot struct {
	Project        string
	Instance       string
	Name           string
	Description    string
	ExpiresAt      time.Time
	ExpectRevision state.Revision
	Hint           Hint
}

// RenameSnapshot gives a snapshot another name.
type RenameSnapshot struct {
	Project  string
	Instance string
	Name     string
	NewName  string
	IntentID string
	Hint     Hint
}

// DeleteSnapshot forgets a snapshot.
type DeleteSnapshot struct {
	Project  string
	Instance string
	Name     string
	IntentID string
	Hint     Hint
}
