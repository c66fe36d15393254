package client

import (
	"errors"
	"fmt"
	"net/http"

	"muster/rpc/rest/api"
)

// Error is a refusal: the server answered, and said no.
type Error struct {
	// Code is the HTTP status.
	Code int
	// Message is the server's sentence.
	Message string
}

// Error returns the server's sentence.
func (e *Error) Error() string { return e.Message }

// StatusCode returns the HTTP status with which the server refused, or 0 when
// err is no refusal.
func StatusCode(err error) int {
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal.Code
	}
	return 0
}

// IsNotFound says whether the server knows no such thing.
func IsNotFound(err error) bool { return StatusCode(err) == http.StatusNotFound }

// IsConflict says whether the thing exists already or is busy.
func IsConflict(err error) bool { return StatusCode(err) == http.StatusConflict }

// OperationError is work that was accepted and then ended badly.
type OperationError struct {
	// ID is the operation's.
	ID string
	// Status is api.Failure or api.Cancelled.
	Status api.StatusCode
	// Message is the server's sentence.
	Message string
}

// Error returns the server's sentence.
func (e *OperationError) Error() string {
	if e.Message != "" {
		return e.Message
	}
	return fmt.Sprintf("operation %s ended as %q without a reason", e.ID, e.Status)
}

// ConnectionError means that no answer came: the server is not there, or the
// connection broke. Whether a change was made is unknown.
type ConnectionError struct {
	// Server is the socket's path or the URL.
	Server string
	// Err is what the network said.
	Err error
}

// Error names the server.
func (e *ConnectionError) Error() string { return fmt.Sprintf("%s: %v", e.Server, e.Err) }

// Unwrap returns what the network said.
func (e *ConnectionError) Unwrap() error { return e.Err }
