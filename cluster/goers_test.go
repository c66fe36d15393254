package cluster

import (
	"testing"

	"muster/cluster/coord"
	"muster/state/store"
)

// A member that shuts down waits only for members that can take its vote.
func TestWhoTakesAVote(t *testing.T) {
	on, off := coord.Online, coord.Offline
	for name, tc := range map[string]struct {
		other  coord.Verdict
		wanted map[string]store.Role
		seat   store.Role
		want   bool
	}{
		"the other takes it":                {on, map[string]store.Role{"a": store.Standby, "b": store.Voter}, store.Standby, true},
		"the other has it":                  {on, map[string]store.Role{"a": store.Standby, "b": store.Voter}, store.Voter, true},
		"it stays":                          {on, map[string]store.Role{"a": store.Voter, "b": store.Standby}, store.Standby, false},
		"the other was chosen, and is gone": {off, map[string]store.Role{"a": store.Standby, "b": store.Voter}, store.Standby, false},
		"the other is gone, with its vote":  {off, map[string]store.Role{"a": store.Standby, "b": store.Voter}, store.Voter, true},
	} {
		t.Run(name, func(t *testing.T) {
			members := []coord.Member{{ID: "a", Verdict: on}, {ID: "b", Verdict: tc.other}}
			seats := map[string]store.Role{"a": store.Voter, "b": tc.seat}
			if got := handsOn("a", members, tc.wanted, seats); got != tc.want {
				t.Errorf("others take the vote: %v; want %v", got, tc.want)
			}
		})
	}
}
