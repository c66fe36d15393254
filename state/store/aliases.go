package store

import "muster/state"

// CreateAlias names an image; ErrNotFound when the project has no such image.
type CreateAlias struct {
	Alias state.ImageAlias
	Hint  Hint
}

// UpdateAlias replaces an alias's target and description.
type UpdateAlias struct {
	Project        string
	Name           string
	Description    string
	Target         string
	ExpectRevision state.Revision
	Hint           Hint
}

// RenameAlias gives an alias another name.
type RenameAlias struct {
	Project string
	Name    string
	NewName string
	Hint    Hint
}

// DeleteAlias removes an alias.
type DeleteAlias struct {
	Project string
	Name    string
	Hint    Hint
}
