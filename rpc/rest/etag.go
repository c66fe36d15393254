package rest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"muster/state"
)

// etag is the ETag of an object at a revision.
func etag(revision state.Revision) string {
	return `"` + strconv.FormatUint(uint64(revision), 16) + `"`
}

// digest is the ETag of a value that has no revision of its own, such as the
// server's configuration.
func digest(value any) (string, error) {
	encoded, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(encoded)
	return `"` + hex.EncodeToString(sum[:16]) + `"`, nil
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

// matches checks the caller's If-Match against a digest.
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
