package store

import "muster/state"

// AddMember records a member that joins; ErrExists when its name or ID is taken.
type AddMember struct {
	Member state.Member
	Hint   Hint
}

// UpdateMember replaces what is recorded of a member besides its ID and name.
type UpdateMember struct {
	Name           string
	Address        string
	Architecture   string
	Description    string
	Config         state.Config
	Certificate    string
	ExpectRevision state.Revision
	Hint           Hint
}

// RenameMember gives a member another name, everywhere it is mentioned.
type RenameMember struct {
	Name    string
	NewName string
	Hint    Hint
}

// DeleteMember forgets a member; ErrConflict while instances, volumes or intents
// are on it.
type DeleteMember struct {
	Name string
	Hint Hint
}
