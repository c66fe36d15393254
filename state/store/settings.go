package store

import "muster/state"

// SetSettings changes keys of the server configuration, all or none.
type SetSettings struct {
	// Cluster holds keys of the whole cluster; the empty value unsets a key.
	Cluster map[string]string
	// Local holds keys of the member named by Member.
	Member string
	Local  map[string]string
	// ExpectRevision and ExpectLocalRevision, when not zero, are what
	// View.SettingsRevision said of the two scopes; ErrStale if it is otherwise.
	ExpectRevision      state.Revision
	ExpectLocalRevision state.Revision
	Hint                Hint
}
