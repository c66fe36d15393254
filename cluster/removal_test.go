package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"

	"muster/cluster/coord"
	"muster/state"
)

// The error of a removal that can't end yet says what to wait for.
func TestWhatARemovalWaitsFor(t *testing.T) {
	members := []coord.Member{{Name: "one", Pending: true}, {Name: "two"}, {Name: "five", Pending: true}}
	for _, tc := range []struct {
		members []coord.Member
		words   []string
	}{
		{members, []string{`"five" still takes part in the database`, "still changing (one)", "muster cluster list"}},
		{members[1:], []string{`"five" still takes part in the database`, "try again (context deadline exceeded)"}},
	} {
		err := stillIn("five", state.LogDatabase, tc.members, context.DeadlineExceeded)
		if !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("%v; want it to be unavailable", err)
		}
		for _, word := range tc.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("the error is %q; want %q in it", err, word)
			}
		}
	}
}
