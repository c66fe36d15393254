//go:build !nextrelease

package store

// furtherSteps are those of a release that does not exist: see migrate_next.go.
func furtherSteps() []migration { return nil }
