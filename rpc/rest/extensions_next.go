//go:build nextrelease

package rest

// furtherExtensions are what the release announces that is made to test upgrades; see
// state/store/migrate_next.go.
var furtherExtensions = []string{"muster_next_release"}
