package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/test/lab"
)

// Who removes a member dies after it was told to give up what it has, and before it is
// removed: it stays, and gets its parts of pools and networks back.
func TestTheRemoverDies(t *testing.T) {
	t.Parallel()
	// Four, so that three vote whoever leaves, and two do when one of them dies.
	members := lab.ClusterOf(t, 4, lab.Options{Network: lab.NewNetwork(t)})
	first, remover, leaving := members[0], members[1], members[3]
	status(t, first, "m1 Online", "m2 Online", "m3 Online", "m4 Online")
	eventually(t, func() string {
		_, err := first.Settled(t.Context(), 4)
		if err != nil {
			return err.Error()
		}
		return ""
	})
	parts := func(m *lab.Member) (found []string) {
		for _, path := range []string{"/1.0/storage-pools", "/1.0/networks"} {
			var shown []struct {
				Name      string
				Status    string
				Managed   *bool
				Locations []string
			}
			if err := m.Get(t.Context(), path+"?recursion=1", &shown); err != nil {
				return []string{err.Error()}
			}
			for _, one := range shown {
				if one.Managed == nil || *one.Managed {
					found = append(found, fmt.Sprintf("%s %s%v", one.Name, one.Status, one.Locations))
				}
			}
		}
		return found
	}
	before := parts(first)
	for _, part := range before {
		if !strings.Contains(part, "Created[m1 m2 m3 m4]") {
			t.Fatalf("the parts are %q; want them to be made on all", before)
		}
	}
	// It can't do what it is told yet, so that its remover waits for it.
	leaving.Pause()
	answered := make(chan error, 1)
	go func() {
		_, err := remover.Do(t.Context(), http.MethodDelete, "/1.0/cluster/members/m4", nil)
		answered <- err
	}()
	eventually(t, func() string {
		var shown struct{ Message string }
		if err := first.Get(t.Context(), "/1.0/cluster/members/m4", &shown); err != nil || shown.Message != "It is being removed" {
			return fmt.Sprintf("m4 says %q, %v; want that it is being removed", shown.Message, err)
		}
		return ""
	})
	leaving.Resume()
	remover.Kill()
	if err := <-answered; err == nil {
		t.Error("the removal succeeded before its remover died; want it cut off")
	}
	status(t, first, "m1 Online", "m2 Offline", "m3 Online", "m4 Online")
	remover.Up()
	status(t, first, "m1 Online", "m2 Online", "m3 Online", "m4 Online")
	for _, m := range members {
		eventually(t, func() string {
			if diff := cmp.Diff(before, parts(m)); diff != "" {
				return "the parts of pools and networks (-before +now):\n" + diff
			}
			return ""
		})
	}
	if votes := rows(t, first, 4, lab.Row.Votes); len(votes) != 3 {
		t.Errorf("%+v vote; want three", votes)
	}
	first.Busybox()
	first.Run("lxc", "launch", "local:busybox", "local:c1", "--target", "m4")
	first.Run("lxc", "delete", "-f", "local:c1")

	// Nobody is in the way of another removal, which m4 is asked for itself.
	if _, err := leaving.Do(t.Context(), http.MethodDelete, "/1.0/cluster/members/m4", nil); err != nil {
		t.Fatalf("m4 is asked to remove itself: %v", err)
	}
	status(t, first, "m1 Online", "m2 Online", "m3 Online")
}
