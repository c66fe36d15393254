package rest

import (
	"context"
	"errors"
	"net/http"

	"muster/state"
)

// statusOf is the table of kinds (STYLE 1.4): one kind, one HTTP status.
var statusOf = []struct {
	kind   error
	status int
}{
	{state.ErrInvalid, http.StatusBadRequest},
	{state.ErrForbidden, http.StatusForbidden},
	{state.ErrNotFound, http.StatusNotFound},
	{state.ErrExists, http.StatusConflict},
	{state.ErrConflict, http.StatusConflict},
	{state.ErrStale, http.StatusPreconditionFailed},
	{state.ErrUnavailable, http.StatusServiceUnavailable},
}

// describe returns the HTTP status and the sentence for err. Errors without a
// kind are faults of ours: 500, and the caller of describe logs them.
func describe(err error) (status int, sentence string) {
	for _, row := range statusOf {
		if errors.Is(err, row.kind) {
			return row.status, err.Error()
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, "the request took too long and was given up; it may still take effect"
	case errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable, "the request was given up before it was done"
	}
	// The text is kept: users of a container manager are operators, and a
	// sentence like "no space left on device" is what they need.
	return http.StatusInternalServerError, "internal error: " + err.Error()
}

// writeError answers with err in the envelope.
func writeError(w http.ResponseWriter, status int, sentence string) error {
	return envelope{kind: "error", errorCode: status, error: sentence, httpStatus: status}.write(w)
}

// Refuse answers with an error as a Server does, for whoever stands in for one.
func Refuse(w http.ResponseWriter, err error) {
	status, sentence := describe(err)
	_ = writeError(w, status, sentence)
}
