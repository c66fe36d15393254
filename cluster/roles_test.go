package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/cluster/coord"
	"muster/state/store"
)

func TestDecideRoles(t *testing.T) {
	// A member is "name role" with a "-" before it when it is offline and a "!" after it
	// when it is a witness, or a "~" when its log can't be written.
	member := func(spec string) coord.Member {
		m := coord.Member{Verdict: coord.Online}
		if spec[0] == '-' {
			m.Verdict, spec = coord.Offline, spec[1:]
		}
		m.ID = spec[:1]
		switch spec[1:] {
		case "v":
			m.Roles = rolesOf(store.Voter)
		case "s":
			m.Roles = rolesOf(store.Standby)
		}
		return m
	}
	for name, tc := range map[string]struct {
		members []string
		leaving string
		voters  int
		standby int
		want    string // each member's role in a letter, w for a worker
	}{
		"the first votes":                      {[]string{"a"}, "", 3, 4, "v"},
		"two: one vote, not two":               {[]string{"av", "b"}, "", 3, 4, "vs"},
		"three vote":                           {[]string{"av", "bs", "c"}, "", 3, 4, "vvv"},
		"room for stand-bys":                   {[]string{"av", "bv", "cv", "d", "e"}, "", 3, 4, "vvvss"},
		"the rest are workers":                 {[]string{"av", "bv", "cv", "d", "e"}, "", 3, 1, "vvvsw"},
		"no stand-bys wanted":                  {[]string{"av", "bv", "cv", "ds", "es"}, "", 3, 0, "vvvww"},
		"a stand-by replaces a lost voter":     {[]string{"-av", "bv", "cv", "ds", "e"}, "", 3, 1, "wvvvs"},
		"a worker replaces a lost voter":       {[]string{"-av", "bv", "cv", "d", "e"}, "", 3, 0, "wvvvw"},
		"a lost voter without a successor":     {[]string{"-av", "bv", "cv"}, "", 3, 4, "vvv"},
		"a lost voter may stand by":            {[]string{"-av", "bv", "cv", "ds"}, "", 3, 4, "svvv"},
		"a lost stand-by keeps its place":      {[]string{"av", "bv", "cv", "-ds"}, "", 3, 4, "vvvs"},
		"but not from one that is there":       {[]string{"av", "bv", "cv", "-ds", "e"}, "", 3, 1, "vvvws"},
		"a lost worker stays one":              {[]string{"av", "bv", "cv", "-d"}, "", 3, 4, "vvvw"},
		"one that leaves gives its vote up":    {[]string{"av", "bv", "cv", "d"}, "a", 3, 0, "wvvv"},
		"one that leaves of two":               {[]string{"av", "bs"}, "a", 3, 4, "wv"},
		"fewer votes wanted":                   {[]string{"av", "bv", "cv", "ds"}, "", 1, 0, "vwww"},
		"the last one stays, leaving or not":   {[]string{"av"}, "a", 3, 4, "v"},
		"who votes is not who comes first":     {[]string{"a", "b", "cv"}, "", 1, 0, "wwv"},
		"a witness takes a vote from others":   {[]string{"av", "bv", "cv", "d!"}, "", 3, 4, "vvsv"},
		"and loses it when it is lost":         {[]string{"as", "bv", "cv", "-dv!"}, "", 3, 4, "vvvs"},
		"two hosts and a witness":              {[]string{"av", "bs", "c!"}, "", 3, 4, "vvv"},
		"a full disk costs the vote":           {[]string{"av~", "bv", "cv", "d"}, "", 3, 4, "svvv"},
		"when another can have it":             {[]string{"av~", "bv", "cv"}, "", 3, 4, "vvv"},
		"and is well itself":                   {[]string{"av~", "bv", "cv", "d~"}, "", 3, 4, "vvvw"},
		"three left of five keep an odd count": {[]string{"av", "bv", "-cv", "-dv"}, "", 5, 4, "vvvs"},
	} {
		t.Run(name, func(t *testing.T) {
			var members []coord.Member
			leaving, witnesses, sick := map[string]bool{}, map[string]bool{}, map[string]bool{}
			for _, spec := range tc.members {
				members = append(members, member(strings.TrimRight(spec, "!~")))
				sick[members[len(members)-1].ID] = strings.HasSuffix(spec, "~")
				witnesses[members[len(members)-1].ID] = strings.HasSuffix(spec, "!")
			}
			leaving[tc.leaving] = true
			decided := decideRoles(members, leaving, witnesses, sick, nil, tc.voters, tc.standby)
			got := ""
			for _, m := range members {
				got += map[store.Role]string{store.Voter: "v", store.Standby: "s", store.Worker: "w"}[decided[m.ID]]
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("roles (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVotesAreSpreadOverFailureDomains(t *testing.T) {
	online := func(id string, role store.Role) coord.Member {
		return coord.Member{ID: id, Verdict: coord.Online, Roles: rolesOf(role)}
	}
	members := []coord.Member{
		online("a", store.Voter), online("b", store.Voter), online("c", store.Voter), online("d", store.Standby), online("e", store.Worker), online("f", store.Worker),
	}
	voters := func(domains map[string]string) string {
		decided, votes := decideRoles(members, nil, nil, nil, domains, 3, 2), ""
		for _, m := range members {
			if decided[m.ID] == store.Voter {
				votes += m.ID
			}
		}
		return votes
	}
	for name, tc := range map[string]struct {
		domains map[string]string
		want    string
	}{
		"none":                          {nil, "abc"},
		"all in the default one":        {map[string]string{"a": "default", "b": "default", "c": "default", "d": "default", "e": "default", "f": "default"}, "abc"},
		"spread already":                {map[string]string{"a": "r1", "b": "r2", "c": "r3", "d": "r1", "e": "r2", "f": "r3"}, "abc"},
		"two of three in one":           {map[string]string{"a": "r1", "b": "r1", "c": "r2", "d": "r1", "e": "r3", "f": "r3"}, "ace"},
		"fewer domains than votes":      {map[string]string{"a": "r1", "b": "r1", "c": "r1", "d": "r1", "e": "r2", "f": "r2"}, "abe"},
		"a stand-by before a worker":    {map[string]string{"a": "r1", "b": "r1", "c": "r2", "d": "r3", "e": "r3", "f": "r3"}, "acd"},
		"one domain, nothing to spread": {map[string]string{"a": "r1", "b": "r1", "c": "r1", "d": "r1", "e": "r1", "f": "r1"}, "abc"},
	} {
		if got := voters(tc.domains); got != tc.want {
			t.Errorf("%s: %s vote; want %s", name, got, tc.want)
		}
	}
}
