package state

import (
	"errors"
	"fmt"
)

// The seven kinds of failure a caller may act on. Anything else is a fault of
// ours and reaches the user as an internal error.
var (
	// ErrInvalid means that the request can never work as it stands.
	ErrInvalid = errors.New("invalid")
	// ErrForbidden means that the caller is known and not allowed.
	ErrForbidden = errors.New("forbidden")
	// ErrNotFound means that there is no such thing, or none the caller may see.
	ErrNotFound = errors.New("not found")
	// ErrExists means that the name is taken.
	ErrExists = errors.New("already exists")
	// ErrConflict means that the thing is busy, in the wrong state, or has no
	// place to be.
	ErrConflict = errors.New("conflict")
	// ErrStale means that the caller's ETag no longer matches.
	ErrStale = errors.New("stale")
	// ErrUnavailable means that nobody could serve the request now; trying
	// again later may work.
	ErrUnavailable = errors.New("unavailable")
)

// Kinds lists every error kind, for tables that map them to a wire and back.
var Kinds = []error{ErrInvalid, ErrForbidden, ErrNotFound, ErrExists, ErrConflict, ErrStale, ErrUnavailable}

// Errorf returns an error of the given kind with its own message: errors.Is
// finds the kind, and users see only the message.
func Errorf(kind error, format string, args ...any) error {
	return &kindError{kind: kind, err: fmt.Errorf(format, args...)}
}

// Kind returns the kind of err, or nil when it has none.
func Kind(err error) error {
	for _, kind := range Kinds {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return nil
}

type kindError struct{ kind, err error }

func (e *kindError) Error() string   { return e.err.Error() }
func (e *kindError) Unwrap() []error { return []error{e.kind, e.err} }
