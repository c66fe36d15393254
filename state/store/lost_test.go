package store

import (
	"fmt"
	"testing"

	dqlite "github.com/canonical/go-dqlite/driver"

	"muster/state"
)

// The leader that loses its leadership while a session is opened is none: whoever asked
// is sent on, and is not told of a fault.
func TestALeaderThatIsGoneIsNoFault(t *testing.T) {
	gone := fmt.Errorf("failed to create dqlite connection: %w", dqlite.ErrNoAvailableLeader)
	if !isLost(gone) {
		t.Errorf("%v: it is not taken for a lost leadership", gone)
	}
	if isLost(state.Errorf(state.ErrInvalid, "a name has a slash")) {
		t.Error("a refusal is taken for a lost leadership")
	}
}
