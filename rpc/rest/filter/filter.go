// Package filter is the language of the filter argument of lists (LXD REST
// conventions, "Filtering"): field eq value, combined by and, or, not and
// parentheses.
//
// It never looks anything up: it decides about one object at a time, by the
// field names that clients see in its JSON.
package filter

import "muster/state"

// Filter is a parsed filter. It is immutable and may be used by many goroutines.
// The nil Filter matches everything.
type Filter struct {
	source string
}

// Parse reads a filter. A mistake is state.ErrInvalid and names its place, in
// characters from 1. The empty string gives the nil Filter.
func Parse(source string) (*Filter, error) {
	if source == "" {
		return nil, nil
	}
	return nil, state.Errorf(state.ErrUnavailable, "filters are not built yet")
}

// String returns the filter as it was given to Parse.
func (f *Filter) String() string {
	if f == nil {
		return ""
	}
	return f.source
}

// Match reports whether the filter selects object: a struct (or a pointer to
// one) with JSON tags, or a map of decoded JSON. A field that object does not
// have equals nothing, so "ne" holds for it.
func (f *Filter) Match(object any) bool { return f == nil }
