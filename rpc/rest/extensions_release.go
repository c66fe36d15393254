//go:build !nextrelease

package rest

// freshExtensions are those that the release before this one does not serve: they are
// announced once every member is known to. There is none yet.
var freshExtensions []string
