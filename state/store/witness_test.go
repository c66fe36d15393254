package store

import (
	"errors"
	"strings"
	"testing"

	"muster/state"
)

// A server that has alone what a profile needs is told why it can't be a witness, and what
// to do.
func TestAServerAloneBecomesNoWitness(t *testing.T) {
	s := freshStore(t)
	ctx := t.Context()
	for _, c := range []Command{
		CreatePool{Pool: state.Pool{Name: "p", Driver: "dir", Locals: state.Locals{"ant": {}}}},
		UpdateProfile{Project: state.DefaultProject, Name: "default", Devices: state.Devices{"root": {"type": "disk", "pool": "p", "path": "/"}}},
	} {
		if _, err := s.Apply(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Apply(ctx, SetWitness{Name: "ant", Witness: true})
	if !errors.Is(err, state.ErrConflict) {
		t.Fatalf("a witness with a pool that is in use: %v; want a conflict", err)
	}
	for _, word := range []string{`can't be a witness, which votes and has no storage pools`, `storage pool "p" is in use by profile "default"`, "without --witness"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error is %q; want %q in it", err, word)
		}
	}
}
