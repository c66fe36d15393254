package store

import (
	"time"

	"muster/state"
)

// AddImage records an image whose files are complete; ErrExists when the project
// has that fingerprint.
type AddImage struct {
	Image state.Image
	// Aliases are made with it, pointing to it; an alias that exists is ErrExists.
	Aliases []state.ImageAlias
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID string
	Hint     Hint
}

// UpdateImage replaces what users may edit of an image.
type UpdateImage struct {
	Project        string
	Fingerprint    string
	Public         bool
	AutoUpdate     bool
	Properties     map[string]string
	Profiles       []string
	ExpiresAt      time.Time
	ExpectRevision state.Revision
	Hint           Hint
}

// DeleteImage forgets an image and its aliases: ErrConflict while an instance is
// being created from it, or while something else is under way for it than the
// intent named.
type DeleteImage struct {
	Project     string
	Fingerprint string
	// IntentID, when not empty, is the intent that ends with this command.
	IntentID string
	Hint     Hint
}

// SetImageUsed records when an image was last used. It makes no event.
type SetImageUsed struct {
	Project     string
	Fingerprint string
	At          time.Time
}

// AddImageMember records that a member holds an image's files. It makes no event
// and does nothing when that is known.
type AddImageMember struct {
	Project     string
	Fingerprint string
	Member      string
}

// RemoveImageMember records that a member no longer holds an image's files. It
// makes no event and does nothing when that is known.
type RemoveImageMember struct {
	Project     string
	Fingerprint string
	Member      string
}
