package rest

import (
	"net/http"
	"strconv"
	"strings"

	"muster/state"
)

// etag is the ETag of an object at a revision.
func etag(revision state.Revision) string {
	return `"` + strconv.FormatUint(uint64(revision), 16) + `"`
}

// expected returns the revision that the caller's If-Match names, or zero when
// the caller expects nothing ("*", or no header). Stores compare it within the
// transaction that changes the object. An If-Match that is no ETag of ours is
// state.ErrStale: it can match nothing.
func expected(r *http.Request) (state.Revision, error) {
	given := ifMatch(r)
	if given == "" || given == "*" {
		return 0, nil
	}
	revision, err := strconv.ParseUint(given, 16, 64)
	if err != nil || revision == 0 {
		return 0, errStale
	}
	return state.Revision(revision), nil
}

// matches checks the caller's If-Match against an ETag.
func matches(r *http.Request, current string) error {
	given := ifMatch(r)
	if given == "" || given == "*" || given == strings.Trim(current, `"`) {
		return nil
	}
	return errStale
}

var errStale = state.Errorf(state.ErrStale, "the ETag does not match: the object changed since it was read")

// ifMatch returns the header without its quotes: clients send it both ways.
func ifMatch(r *http.Request) string {
	return strings.Trim(strings.TrimSpace(r.Header.Get("If-Match")), `"`)
}
