package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"muster/test/lab"
)

// Two hosts and a witness: it votes and answers everything, hosts nothing, and makes the
// cluster outlive the loss of either host.
func TestWitness(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t), Witnesses: 1})
	first, second, witness := members[0], members[1], members[2]
	status(t, witness, "m1 Online", "m2 Online", "m3 Online")
	votes := rows(t, witness, 3, lab.Row.Votes)
	if len(votes) != 3 || !slices.Contains(votes[2].Roles, "witness") || slices.Contains(votes[0].Roles, "witness") {
		t.Errorf("the voters are %+v; want all three, m3 a witness", votes)
	}
	type shared struct {
		Name      string
		Status    string
		Managed   *bool
		Locations []string
	}
	hosts := func(path string) {
		t.Helper()
		eventually(t, func() string {
			count := 0
			for _, one := range decode[[]shared](t, mustGet(t, first, path+"?recursion=1")) {
				if one.Managed != nil && !*one.Managed {
					continue
				}
				count++
				slices.Sort(one.Locations)
				if one.Status != "Created" || !slices.Equal(one.Locations, []string{"m1", "m2"}) {
					return fmt.Sprintf("%s is %s on %v; want it created on the hosts", one.Name, one.Status, one.Locations)
				}
			}
			if count == 0 {
				return path + " has none"
			}
			return ""
		})
	}
	hosts("/1.0/storage-pools")
	hosts("/1.0/networks")

	// Everything is done through the witness.
	witness.Busybox()
	witness.Run("lxc", "storage", "create", "local:fast", "dir")
	hosts("/1.0/storage-pools")
	witness.Run("lxc", "storage", "set", "local:fast", "user.note=seen")
	witness.Run("lxc", "storage", "info", "local:fast")
	if note := witness.Run("lxc", "storage", "get", "local:fast", "user.note"); note != "seen\n" {
		t.Errorf("user.note of the pool is %q", note)
	}
	images := decode[[]struct {
		Fingerprint string
	}](t, mustGet(t, witness, "/1.0/images?recursion=1"))
	if len(images) != 1 {
		t.Fatalf("the images are %v", images)
	}
	eventually(t, func() string {
		out := first.Run("musterd", "sql", "SELECT member FROM image_members")
		if !strings.Contains(out, "m1") || !strings.Contains(out, "m2") || strings.Contains(out, "m3") {
			return fmt.Sprintf("the image is on %q; want it on the hosts", out)
		}
		return ""
	})
	for i := range 4 {
		witness.Run("lxc", "launch", "local:busybox", fmt.Sprintf("local:c%d", i))
	}
	places := strings.Fields(witness.Run("lxc", "list", "local:", "--format=csv", "-c", "L"))
	slices.Sort(places)
	if !slices.Equal(places, []string{"m1", "m1", "m2", "m2"}) {
		t.Errorf("the instances are on %v; want two on each host", places)
	}
	if out := witness.Run("lxc", "exec", "local:c0", "--", "echo", "through a witness"); out != "through a witness\n" {
		t.Errorf("exec printed %q", out)
	}
	witness.Run("lxc", "cluster", "list", "local:")
	witness.Run("lxc", "network", "list-leases", "local:"+network(t, first))
	refused := func(want, body string, method, path string) {
		t.Helper()
		answer, err := witness.Request(t.Context(), method, path, strings.NewReader(body), nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Code < 400 || answer.Code >= 500 || !strings.Contains(answer.Error, want) {
			t.Errorf("%s %s: %d %q; want it refused with %q", method, path, answer.Code, answer.Error, want)
		}
	}
	refused("is a witness", `{"name": "x", "source": {"type": "none"}}`, http.MethodPost, "/1.0/instances?target=m3")
	refused("is a witness", `{"name": "y", "driver": "dir"}`, http.MethodPost, "/1.0/storage-pools?target=m3")
	refused("not on member", `{"config": {"size": "1GiB"}}`, http.MethodPatch, "/1.0/storage-pools/fast?target=m3")
	witness.Run("lxc", "stop", "--force", "local:c1")
	refused("is a witness", `{"name": "c1", "migration": true}`, http.MethodPost, "/1.0/instances/c1?target=m3")

	// Either host may be lost.
	for i, lost := range []*lab.Member{first, second} {
		lost.Kill()
		eventually(t, func() string {
			_, err := witness.Do(t.Context(), http.MethodPatch, "/1.0/profiles/default", map[string]any{"description": fmt.Sprint("without ", i)})
			if err != nil {
				return err.Error()
			}
			return ""
		})
		lost.Up()
		status(t, witness, "m1 Online", "m2 Online", "m3 Online")
	}

	// A host with instances does not become a witness, and a witness becomes a host.
	end(t, second)
	second.StartsWith("--witness")
	second.Launched()
	if err := second.Exited(t.Context()); err == nil || !strings.Contains(second.Log(), "and a witness has none: move or delete them first") {
		t.Errorf("a host with instances starts as a witness: %v\n%s", err, second.Log())
	}
	second.StartsWith()
	second.Up()
	status(t, first, "m1 Online", "m2 Online", "m3 Online")
	end(t, witness)
	witness.StartsWith()
	witness.Up()
	eventually(t, func() string {
		_, err := first.Do(t.Context(), http.MethodPost, "/1.0/instances?target=m3", map[string]any{"name": "late", "source": map[string]any{"type": "image", "alias": "busybox"}})
		if err != nil {
			return err.Error()
		}
		return ""
	})
	witness.Run("lxc", "start", "local:late")
	witness.Run("lxc", "delete", "--force", "local:late", "local:c0", "local:c1", "local:c2", "local:c3")
	witness.Run("lxc", "storage", "delete", "local:fast")
	// And back, which takes its parts of pools and networks away.
	end(t, witness)
	witness.StartsWith("--witness")
	witness.Up()
	hosts("/1.0/storage-pools")
	hosts("/1.0/networks")
}

func end(t *testing.T, m *lab.Member) {
	t.Helper()
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
}
