package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/state"
)

// What the log on disk says of the members is what the running members say, and one of
// them goes on alone with all that it had.
func TestRecover(t *testing.T) {
	l := newLab(t, 3)
	for n := range 300 { // beyond a snapshot of the log
		must(t, l.stores["m0"], setting(n))
	}
	leader, others := l.leader(t, "m0")
	want := map[string]Role{leader: Voter, others[0]: Voter, others[1]: Standby}
	if err := l.stores[leader].Assign(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	must(t, l.stores[others[1]], setting(300))
	survivor := l.stores[others[1]]
	dir, had := survivor.cfg.Dir, dump(t, survivor.View())
	for _, s := range l.stores {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Inspect(dir)
	if diff := cmp.Diff(want, found.Roles); diff != "" || err != nil {
		t.Errorf("the roles on disk differ (%v):\n%s", err, diff)
	}
	if found.Revision != survivor.View().Revision() {
		t.Errorf("the revision on disk is %d; want %d", found.Revision, survivor.View().Revision())
	}
	for range 2 { // it may be begun again
		if err := Recover(dir); err != nil {
			t.Fatal(err)
		}
	}
	alone, err := Open(t.Context(), Config{Dir: dir, Member: state.Member{ID: others[1]}})
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	if diff := cmp.Diff(had, dump(t, alone.View())); diff != "" {
		t.Errorf("the survivor lost something:\n%s", diff)
	}
	must(t, alone, setting(301))
}

// A member that is given up with instances stays, closed to every change, until both are
// forgotten.
func TestLostMembers(t *testing.T) {
	s := freshStore(t)
	must(t, s, AddMember{Member: state.Member{ID: "m1", Name: "bee"}})
	must(t, s, newInstanceOn("i1", "bee"))
	refused(t, s, DeleteMember{Name: "bee"}, state.ErrConflict, "still has instances")
	must(t, s, LoseMember{Name: "bee"})
	refused(t, s, UpdateMember{Name: "bee"}, state.ErrConflict, "can only be removed")
	must(t, s, DeleteMember{Name: "bee", Instances: true})
	view := s.View()
	if len(view.Instances("")) > 0 || len(view.Intents("")) > 0 {
		t.Errorf("left: %v, %v", view.Instances(""), view.Intents(""))
	}
}

// A member moves with its setting, and not to where another is.
func TestAddressesFollowTheSetting(t *testing.T) {
	s := freshStore(t)
	must(t, s, AddMember{Member: state.Member{ID: "m1", Name: "bee", Address: "192.0.2.1:8443"}})
	must(t, s, AddMember{Member: state.Member{ID: "m2", Name: "cat", Address: "192.0.2.2:8443"}})
	to := func(address string) SetSettings {
		return SetSettings{Member: "bee", Local: map[string]string{addressKey: address}}
	}
	refused(t, s, to("192.0.2.2:8443"), state.ErrExists, `"cat" has the address`)
	refused(t, s, to(""), state.ErrInvalid, "can't be unset")
	must(t, s, to("192.0.2.3:8443"))
	if m, err := s.View().Member("bee"); err != nil || m.Address != "192.0.2.3:8443" {
		t.Errorf("the member is at %q, %v", m.Address, err)
	}
}

// What can't be read is an error, never a guess.
func TestInspectRefusesDamage(t *testing.T) {
	if _, err := Inspect(t.TempDir()); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("an empty directory: %v; want ErrNotFound", err)
	}
	sound := []byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 'm', '1', 0, 1}
	if nodes, err := decodeConfiguration(sound); err != nil || len(nodes) != 1 || nodes[0].Address != "m1" || nodes[0].ID != 7 {
		t.Errorf("a sound configuration: %+v, %v", nodes, err)
	}
	for size := range sound {
		if nodes, err := decodeConfiguration(sound[:size]); err == nil {
			t.Errorf("cut to %d bytes it is %+v", size, nodes)
		}
	}
	s := freshStore(t)
	dir := s.cfg.Dir
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	open := slices.IndexFunc(files, func(f os.DirEntry) bool { return strings.HasPrefix(f.Name(), "open-") })
	if open < 0 {
		t.Skip("the node closed its segments")
	}
	if err := os.Truncate(filepath.Join(dir, files[open].Name()), 1000); err != nil {
		t.Fatal(err)
	}
	if err := Recover(dir); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("recovery on a damaged log: %v", err)
	}
}
