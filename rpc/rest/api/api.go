// Package api holds the JSON types of muster's REST API: what requests and
// answers look like on the wire, as LXD 5.0's public API names them.
//
// It holds no behaviour beyond encoding, checks nothing, imports no other room
// of muster, and may be used by programs outside of it. A type named XPut is
// what a client may replace, XsPost creates an X, XPost renames or moves it.
package api

import (
	"encoding/json"
	"time"
)

// Version is the major API version that every path starts with.
const Version = "1.0"

// Release is the release of LXD with whose clients the API is compatible.
const Release = "5.0.2"

// ResponseType tells the three return types apart.
type ResponseType string

// The three return types (LXD REST API, "Return values").
const (
	// SyncResponse carries its result in Metadata.
	SyncResponse ResponseType = "sync"
	// AsyncResponse names a background operation; Metadata is an Operation.
	AsyncResponse ResponseType = "async"
	// ErrorResponse carries a code and a sentence.
	ErrorResponse ResponseType = "error"
)

// Response is the envelope around every answer that is not a raw file. All
// seven keys are always present; stock clients rely on that.
type Response struct {
	Type ResponseType `json:"type"`
	// Status is the name of StatusCode; both are empty for an error.
	Status     string     `json:"status"`
	StatusCode StatusCode `json:"status_code"`
	// Operation is the URL of the background operation of an async answer.
	Operation string `json:"operation"`
	// ErrorCode repeats the HTTP status of an error.
	ErrorCode int `json:"error_code"`
	// Error is the sentence for the user.
	Error string `json:"error"`
	// Metadata is the result, the Operation, or null.
	Metadata json.RawMessage `json:"metadata"`
}

// never is how LXD's API writes a time that is not set.
var never = time.Time{}

// IsUnset says whether t is one of the two ways in which the API writes "never":
// year 1 and the Unix epoch (images' expires_at and last_used_at).
func IsUnset(t time.Time) bool {
	return t.Equal(never) || t.Unix() <= 0
}
