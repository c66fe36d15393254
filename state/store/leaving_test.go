package store

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/state"
)

// A removal that does not come to its end is taken back whole; one that was taken over
// or taken back ends nothing.
func TestARemovalOfAMemberIsTakenBack(t *testing.T) {
	s := freshStore(t)
	own := state.Config{"source": "/dev/sdb"}
	must(t, s, AddMember{Member: state.Member{ID: "bee-id", Name: "bee"}})
	must(t, s, CreatePool{Pool: state.Pool{Name: "fast", Driver: "dir", Locals: state.Locals{"ant": {}, "bee": {Config: own}}}})
	made := func(member string, config state.Config) {
		t.Helper()
		must(t, s, SetPoolLocal{Name: "fast", Member: member, Local: state.Local{Status: state.LocalCreated, Config: config}})
	}
	made("ant", nil)
	made("bee", own)
	want := func(mark string, parts state.Locals) {
		t.Helper()
		m, err := s.View().Member("bee")
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := Leaving(m); got != mark {
			t.Errorf("bee leaves by the mark %q; want %q", got, mark)
		}
		pool, err := s.View().Pool("fast")
		if err != nil {
			t.Fatal(err)
		}
		parts["ant"] = state.Local{Status: state.LocalCreated, Config: state.Config{}}
		if diff := cmp.Diff(parts, pool.Locals); diff != "" {
			t.Errorf("the pool's parts (-want +got):\n%s", diff)
		}
	}
	part := func(status state.LocalStatus) state.Locals {
		return state.Locals{"bee": {Status: status, Config: own}}
	}
	refused := func(command Command) {
		t.Helper()
		if _, err := s.Apply(t.Context(), command); !errors.Is(err, state.ErrConflict) {
			t.Errorf("%+v: %v; want a conflict", command, err)
		}
	}

	must(t, s, ClearMember{Name: "bee", Mark: "first", By: "ant-id"})
	want("first", part(state.LocalDeleting))
	must(t, s, UpdateMember{Name: "bee", Description: "edited meanwhile"})
	must(t, s, DropPoolLocal{Name: "fast", Member: "bee"})
	want("first", state.Locals{})
	must(t, s, StayMember{Name: "bee", Mark: "another"})
	want("first", state.Locals{})
	refused(DeleteMember{Name: "bee", Mark: "another"})
	must(t, s, StayMember{Name: "bee", Mark: "first"})
	want("", part(state.LocalCreating))
	refused(DeleteMember{Name: "bee", Mark: "first"})

	// Taken back before the member had removed its part, and it says so too late.
	must(t, s, ClearMember{Name: "bee", Mark: "second", By: "ant-id"})
	must(t, s, ClearMember{Name: "bee", Mark: "third", By: "bee-id"})
	refused(DeleteMember{Name: "bee", Mark: "second"})
	must(t, s, StayMember{Name: "bee", Mark: "third"})
	must(t, s, DropPoolLocal{Name: "fast", Member: "bee"})
	must(t, s, SetPoolLocal{Name: "fast", Member: "bee", Local: state.Local{Status: state.LocalDeleting, Message: "it is in use"}})
	want("", part(state.LocalCreating))
	made("bee", own)

	must(t, s, ClearMember{Name: "bee", Mark: "fourth", By: "ant-id"})
	must(t, s, DropPoolLocal{Name: "fast", Member: "bee"})
	must(t, s, DeleteMember{Name: "bee", Mark: "fourth"})
	if _, err := s.View().Member("bee"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("after the removal bee is found: %v", err)
	}
}
