package store

import "muster/state"

// The subjects of intents. A snapshot's name is "instance/snapshot", a volume's
// "pool/type/name".
const (
	SubjectInstance = "instance"
	SubjectSnapshot = "snapshot"
	SubjectImage    = "image"
	SubjectNetwork  = "network"
	SubjectPool     = "pool"
	SubjectVolume   = "volume"
)

// Begin opens an intent and marks its subject busy: ErrConflict saying with what
// when something is under way for it (for an instance also when something is for
// one of its snapshots, and the other way round), ErrNotFound when it does not
// exist. An image need not exist, since it is not recorded before it is complete;
// its name is then whatever identifies the download. The command that finishes
// the work names the intent and so ends it.
type Begin struct {
	// Intent has ID, Member, Kind, Project, Subject, Name and Input.
	Intent state.Intent
}

// End closes an intent that led to no other change, and frees its subject. An
// intent that is not open is ErrNotFound.
type End struct {
	ID   string
	Hint Hint
}
