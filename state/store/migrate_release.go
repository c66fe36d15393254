//go:build !nextrelease

package store

// furtherSteps are the steps that no query of this release names yet.
func furtherSteps() []migration { return nil }
