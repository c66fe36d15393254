// Package filter is the language of the filter argument of lists (LXD REST
// conventions, "Filtering"): field eq value, combined by and, or, not and
// parentheses.
//
// It never looks anything up: it decides about one object at a time, by the
// field names that clients see in its JSON.
package filter

import (
	"encoding/json"
	"strconv"
	"strings"
)

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
	fields, ok := object.(map[string]any)
	if !ok {
		encoded, err := json.Marshal(object)
		if err != nil || json.Unmarshal(encoded, &fields) != nil {
			return false
		}
	}
	return f.root.match(fields)
}

// node is a part of a filter.
type node interface {
	match(object map[string]any) bool
}

type (
	both   struct{ left, right node }
	either struct{ left, right node }
	not    struct{ inner node }
	// compare asks whether a field has a value.
	compare struct {
		field string
		equal bool
		value string
	}
)

func (n both) match(object map[string]any) bool { return n.left.match(object) && n.right.match(object) }

func (n either) match(object map[string]any) bool {
	return n.left.match(object) || n.right.match(object)
}
func (n not) match(object map[string]any) bool { return !n.inner.match(object) }

func (n compare) match(object map[string]any) bool {
	value, found := lookUp(object, n.field)
	return (found && same(value, n.value)) == n.equal
}

// lookUp follows a dotted path. Keys may hold dots themselves (config.image.os),
// so at each level the longest key that fits is tried first. The case of names is
// forgiven: the documents write Properties.os.
func lookUp(value any, path string) (any, bool) {
	object, ok := value.(map[string]any)
	if !ok {
		return nil, false
	}
	if found, ok := named(object, path); ok {
		return found, true
	}
	for cut := strings.LastIndexByte(path, '.'); cut > 0; cut = strings.LastIndexByte(path[:cut], '.') {
		if inner, ok := named(object, path[:cut]); ok {
			if found, ok := lookUp(inner, path[cut+1:]); ok {
				return found, true
			}
		}
	}
	return nil, false
}

func named(object map[string]any, name string) (any, bool) {
	if value, ok := object[name]; ok {
		return value, true
	}
	plain := strings.ReplaceAll(name, "_", "")
	for key, value := range object {
		if strings.EqualFold(key, name) || strings.EqualFold(strings.ReplaceAll(key, "_", ""), plain) {
			return value, true
		}
	}
	return nil, false
}

// same compares a decoded JSON value with how a user writes it. A list has the
// value when one of its elements does.
func same(value any, wanted string) bool {
	switch value := value.(type) {
	case string:
		return value == wanted
	case bool:
		return strconv.FormatBool(value) == strings.ToLower(wanted)
	case float64:
		number, err := strconv.ParseFloat(wanted, 64)
		return err == nil && number == value
	case []any:
		for _, element := range value {
			if same(element, wanted) {
				return true
			}
		}
	}
	return false
}
