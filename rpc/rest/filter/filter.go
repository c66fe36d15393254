// Package filter is the language of the filter argument of lists (LXD REST
// conventions, "Filtering"): field eq value, combined by and, or, not and
// parentheses.
//
// It never looks anything up: it decides about one object at a time, by the
// field names that clients see in its JSON.
package filter

import "reflect"

// Filter is a parsed filter. It is immutable and may be used by many goroutines.
// The nil Filter matches everything.
type Filter struct {
	source string
	root   node
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
func (f *Filter) Match(object any) bool {
	if f == nil {
		return true
	}
	return f.root.match(reflect.ValueOf(object))
}

// node is a part of a filter.
type node interface {
	match(object reflect.Value) bool
}

type (
	both   struct{ left, right node }
	either struct{ left, right node }
	not    struct{ inner node }
	// compare asks whether a field has a value.
	compare struct {
		field string
		equal bool
		value pattern
	}
)

func (n both) match(object reflect.Value) bool { return n.left.match(object) && n.right.match(object) }

func (n either) match(object reflect.Value) bool {
	return n.left.match(object) || n.right.match(object)
}
func (n not) match(object reflect.Value) bool { return !n.inner.match(object) }

func (n compare) match(object reflect.Value) bool {
	value, found := lookUp(object, n.field)
	return (found && same(value, n.value)) == n.equal
}
