package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/test/lab"
)

type member struct {
	ServerName string   `json:"server_name"`
	Status     string   `json:"status"`
	Roles      []string `json:"roles"`
}

// eventually waits until look says that all is well, which it says by "".
func eventually(t *testing.T, look func() string) {
	t.Helper()
	eventuallyWithin(t, 30*time.Second, look)
}

// eventuallyWithin is eventually with another deadline.
func eventuallyWithin(t *testing.T, patience time.Duration, look func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		problem := look()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, problem)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// status waits until member m shows the members so, as "name status".
func status(t *testing.T, m *lab.Member, want ...string) {
	t.Helper()
	eventually(t, func() string {
		var members []member
		if err := m.Get(t.Context(), "/1.0/cluster/members?recursion=1", &members); err != nil {
			return err.Error()
		}
		var got []string
		for _, one := range members {
			got = append(got, one.ServerName+" "+one.Status)
		}
		return cmp.Diff(want, got)
	})
}

// leader returns the position of the member that leads the database, as m says.
func leader(t *testing.T, m *lab.Member) int {
	t.Helper()
	found := -1
	eventually(t, func() string {
		var members []member
		if err := m.Get(t.Context(), "/1.0/cluster/members?recursion=1", &members); err != nil {
			return err.Error()
		}
		for i, one := range members {
			if slices.Contains(one.Roles, "database-leader") && one.Status == "Online" {
				found = i
				return ""
			}
		}
		return "nobody leads"
	})
	return found
}

// Three servers become one cluster, in which every member answers the same, and which
// outlives its leader.
func TestCluster(t *testing.T) {
	t.Parallel()
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 3, lab.Options{Network: network})
	first, second, third := members[0], members[1], members[2]
	for _, m := range members {
		status(t, m, "m1 Online", "m2 Online", "m3 Online")
	}

	t.Run("what one member writes every member reads", func(t *testing.T) {
		for i, m := range members {
			name := fmt.Sprintf("p%d", i)
			if _, err := m.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": name}); err != nil {
				t.Fatal(err)
			}
			for _, other := range members {
				if _, err := other.Do(t.Context(), http.MethodGet, "/1.0/profiles/"+name, nil); err != nil {
					t.Errorf("profile %s: %v", name, err)
				}
			}
		}
	})

	t.Run("an instance is driven through any member", func(t *testing.T) {
		first.Busybox()
		if err := second.Get(t.Context(), "/1.0/images/aliases/busybox", &struct{}{}); err != nil {
			t.Error(err)
		}
		first.Run("lxc", "launch", "local:busybox", "local:c1", "--target", "m1")
		var shown struct{ Status, Location string }
		if err := third.Get(t.Context(), "/1.0/instances/c1", &shown); err != nil || shown.Status != "Running" || shown.Location != "m1" {
			t.Errorf("through m3 the instance is %+v, %v; want it running on m1", shown, err)
		}
		if out := second.Run("lxc", "exec", "local:c1", "--", "echo", "through m2"); out != "through m2\n" {
			t.Errorf("exec through m2 printed %q", out)
		}
		if out := third.Muster("exec", "c1", "--", "hostname"); strings.TrimSpace(out) != "c1" {
			t.Errorf("exec through m3 printed %q", out)
		}
		file := second.Dir + "/sent"
		second.Run("sh", "-c", "head -c 3000000 /dev/urandom > "+file)
		second.Run("lxc", "file", "push", file, "local:c1/root/sent")
		third.Run("lxc", "file", "pull", "local:c1/root/sent", file+".back")
		second.Run("cmp", file, file+".back")
		second.Run("lxc", "snapshot", "local:c1", "s1")
		third.Run("lxc", "restart", "--force", "local:c1")
		if out := third.Run("lxc", "list", "local:", "--format=csv", "-c", "nsL"); out != "c1,RUNNING,m1\n" {
			t.Errorf("lxc list through m3 printed %q", out)
		}
		second.Run("lxc", "delete", "--force", "local:c1")
		if answer, err := first.Request(t.Context(), http.MethodGet, "/1.0/instances/c1", nil, nil); err != nil || answer.Code != http.StatusNotFound {
			t.Errorf("after its deletion through m2 the instance answers %d, %v on m1; want 404", answer.Code, err)
		}
	})

	t.Run("writes go on after the leader was killed", func(t *testing.T) {
		lost := leader(t, first)
		members[lost].Kill()
		rest := slices.Delete(slices.Clone(members), lost, lost+1)
		for i, m := range rest {
			if _, err := m.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": fmt.Sprintf("after%d", i)}); err != nil {
				t.Errorf("a write after the leader was killed: %v", err)
			}
		}
		want := []string{"m1 Online", "m2 Online", "m3 Online"}
		want[lost] = strings.Replace(want[lost], "Online", "Offline", 1)
		status(t, rest[0], want...)
		members[lost].Up()
		status(t, members[lost], "m1 Online", "m2 Online", "m3 Online")
		for i := range rest {
			if err := members[lost].Get(t.Context(), fmt.Sprintf("/1.0/profiles/after%d", i), &struct{}{}); err != nil {
				t.Errorf("the member that is back: %v", err)
			}
		}
	})

	t.Run("the cluster comes back after all were killed", func(t *testing.T) {
		for _, m := range members {
			m.Kill()
		}
		ready := make(chan struct{}, len(members))
		for _, m := range members {
			go func() { m.Up(); ready <- struct{}{} }()
		}
		for range members {
			<-ready
		}
		for _, m := range members {
			status(t, m, "m1 Online", "m2 Online", "m3 Online")
		}
	})

	t.Run("what can't join leaves both sides as they were", func(t *testing.T) {
		stranger := lab.Start(t, lab.Options{NoInit: true, Network: network})
		token, there := first.Token("m4"), stranger.Address()
		wrong := maps.Clone(token)
		wrong["secret"] = "0000"
		forged := maps.Clone(token)
		forged["fingerprint"] = strings.Repeat("0", 64)
		for name, tc := range map[string]struct {
			body map[string]any
			code int
			want string
		}{
			"a wrong secret":        {map[string]any{"server_name": "m4", "server_address": there, "cluster_token": lab.Encode(wrong)}, 400, "ask for a new one"},
			"another cluster":       {map[string]any{"server_name": "m4", "server_address": there, "cluster_token": lab.Encode(forged)}, 403, "another cluster"},
			"a token for another":   {map[string]any{"server_name": "m5", "server_address": there, "cluster_token": lab.Encode(token)}, 400, `is for member "m4"`},
			"no address":            {map[string]any{"server_name": "m4", "cluster_token": lab.Encode(token)}, 400, "server_address"},
			"an address for anyone": {map[string]any{"server_name": "m4", "server_address": "0.0.0.0:28443", "cluster_token": lab.Encode(token)}, 400, "0.0.0.0"},
			"no token":              {map[string]any{"server_name": "m4", "server_address": there, "cluster_token": "x"}, 400, "cluster_token"},
			"a bad name":            {map[string]any{"server_name": "m.4", "server_address": there, "cluster_token": lab.Encode(token)}, 400, "member name"},
		} {
			t.Run(name, func(t *testing.T) {
				tc.body["enabled"] = true
				answer, err := stranger.Request(t.Context(), http.MethodPut, "/1.0/cluster", tc.body, nil)
				if err != nil || answer.Code != tc.code || !strings.Contains(answer.Error, tc.want) {
					t.Errorf("answered %d %q, %v; want %d and %q", answer.Code, answer.Error, err, tc.code, tc.want)
				}
			})
		}
		for _, m := range members {
			status(t, m, "m1 Online", "m2 Online", "m3 Online")
		}
		cluster := decode[struct{ Enabled bool }](t, mustGet(t, stranger, "/1.0/cluster"))
		if cluster.Enabled {
			t.Error("the stranger believes that it is in a cluster")
		}
		if answer, err := first.Request(t.Context(), http.MethodPost, "/1.0/cluster/members", map[string]any{"server_name": "m2"}, nil); err != nil || answer.Code != http.StatusConflict {
			t.Errorf("a token for a name that is taken: %d, %v; want 409", answer.Code, err)
		}
	})

	t.Run("a member that is removed is out", func(t *testing.T) {
		if _, err := first.Do(t.Context(), http.MethodDelete, "/1.0/cluster/members/m3", nil); err != nil {
			t.Fatal(err)
		}
		status(t, first, "m1 Online", "m2 Online")
		status(t, second, "m1 Online", "m2 Online")
		eventually(t, func() string {
			var alone struct{ Enabled bool }
			var profiles []string
			if err := third.Get(t.Context(), "/1.0/cluster", &alone); err != nil || alone.Enabled {
				return fmt.Sprintf("the removed member is in a cluster: %v, %v", alone.Enabled, err)
			}
			if err := third.Get(t.Context(), "/1.0/profiles", &profiles); err != nil || len(profiles) != 1 {
				return fmt.Sprintf("the removed member has profiles %v, %v; want its own default alone", profiles, err)
			}
			return ""
		})
		if _, err := second.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "two"}); err != nil {
			t.Error(err)
		}
		third.Join(first, "m5")
		for _, m := range members {
			status(t, m, "m1 Online", "m2 Online", "m5 Online")
		}
	})
}

func mustGet(t *testing.T, m *lab.Member, path string) lab.Answer {
	t.Helper()
	answer, err := m.Do(t.Context(), http.MethodGet, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// A verdict is not one member's word: who is merely out of the coordinator's reach stays
// online, and is seen to go when it goes.
func TestOneCutCableIsNobodysDeath(t *testing.T) {
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 3, lab.Options{Network: network, NoInit: true})
	for _, m := range members {
		status(t, m, "m1 Online", "m2 Online", "m3 Online")
	}
	var shown []member
	if err := members[0].Get(t.Context(), "/1.0/cluster/members?recursion=1", &shown); err != nil {
		t.Fatal(err)
	}
	coordinator := slices.IndexFunc(shown, func(m member) bool { return slices.Contains(m.Roles, "coordinator") })
	if coordinator < 0 {
		t.Fatalf("nobody coordinates: %+v", shown)
	}
	cut, witness := members[(coordinator+1)%3], members[(coordinator+2)%3]
	// The gossip knows everybody a moment after the last has joined.
	time.Sleep(3 * time.Second)
	network.Cut(members[coordinator], cut)
	for end := time.Now().Add(7 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err := witness.Get(t.Context(), "/1.0/cluster/members?recursion=1", &shown); err != nil {
			t.Fatal(err)
		}
		for _, one := range shown {
			if one.Status != "Online" {
				t.Fatalf("%s is %s though only one way to it is cut", one.ServerName, one.Status)
			}
		}
	}
	network.Heal()
	cut.Kill()
	want := []string{"m1 Online", "m2 Online", "m3 Online"}
	want[(coordinator+1)%3] = strings.Replace(want[(coordinator+1)%3], "Online", "Offline", 1)
	status(t, witness, want...)
}
