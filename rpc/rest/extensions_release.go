//go:build !nextrelease

package rest

// furtherExtensions are those of a release that does not exist: see extensions_next.go.
var furtherExtensions []string
