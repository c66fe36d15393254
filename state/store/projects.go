package store

import "muster/state"

// CreateProject makes a project with an empty default profile.
type CreateProject struct {
	Project state.Project
	Hint    Hint
}

// UpdateProject replaces a project's description and configuration.
type UpdateProject struct {
	Name           string
	Description    string
	Config         state.Config
	ExpectRevision state.Revision
	Hint           Hint
}

// DeleteProject removes an empty project: ErrConflict when it holds anything but
// its default profile, ErrForbidden for the default project.
type DeleteProject struct {
	Name string
	Hint Hint
}
