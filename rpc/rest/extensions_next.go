//go:build nextrelease

package rest

// freshExtensions are what the release announces that is made to test upgrades; see
// state/store/migrate_next.go.
var freshExtensions = []string{"muster_next_release"}
