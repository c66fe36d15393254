package store

import (
	"time"

	"muster/state"
)

// Kind is the kind of object that a change is about.
type Kind string

// The kinds of object, each with the type of Change.Before and Change.After.
const (
	KindProject     Kind = "project"     // *state.Project
	KindMember      Kind = "member"      // *state.Member
	KindGroup       Kind = "group"       // *state.Group
	KindSetting     Kind = "setting"     // *state.Setting
	KindCertificate Kind = "certificate" // *state.Certificate
	KindToken       Kind = "token"       // *state.Token
	KindProfile     Kind = "profile"     // *state.Profile
	KindInstance    Kind = "instance"    // *state.Instance
	KindSnapshot    Kind = "snapshot"    // *state.Snapshot
	KindImage       Kind = "image"       // *state.Image
	KindAlias       Kind = "alias"       // *state.ImageAlias
	KindNetwork     Kind = "network"     // *state.Network
	KindPool        Kind = "pool"        // *state.Pool
	KindVolume      Kind = "volume"      // *state.Volume
	KindIntent      Kind = "intent"      // *state.Intent
)

// Change is what one command did to one object.
type Change struct {
	// Revision is the command's; Index orders the changes of one command.
	Revision state.Revision
	Index    int
	Kind     Kind
	// Before and After are the object's versions, pointers to the noun of Kind. An
	// object that was created has no Before, one that was deleted no After. Before
	// is also nil for a change that was made before this member's View began; a
	// deletion always has it. A rename has both, with different names.
	Before, After any
	// Action is the lifecycle event to make, such as "instance-started"; empty
	// when the change is no event of its own.
	Action  string
	Context map[string]any
	// Requestor is who asked, or nil.
	Requestor *Requestor
	// At is when the leader ran the command.
	At time.Time
}
