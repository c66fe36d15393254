package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/cluster"
	"muster/cluster/pki"
	"muster/test/lab"
)

// admitted has the cluster admit a server that has said nothing: what is left when the
// server is killed before it can write down that it was admitted.
func admitted(t *testing.T, first, joiner *lab.Member, token map[string]any) {
	t.Helper()
	if _, err := joiner.Do(t.Context(), http.MethodPatch, "/1.0", map[string]any{"config": map[string]string{"core.https_address": joiner.Address()}}); err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(joiner.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	server, err := pki.ParseCertificate(string(read(pki.ServerCertificateFile)))
	if err != nil {
		t.Fatal(err)
	}
	self, err := pki.ParseCertificate(string(read(pki.MemberCertificateFile)))
	if err != nil {
		t.Fatal(err)
	}
	request, _, err := pki.MakeRequest()
	if err != nil {
		t.Fatal(err)
	}
	var one struct{ Schema int64 }
	if err := first.Get(t.Context(), "/internal/database", &one); err != nil {
		t.Fatal(err)
	}
	join := cluster.JoinRequest{
		Name: token["server_name"].(string), Secret: token["secret"].(string), MemberID: pki.MemberOf(self), Address: joiner.Address(),
		Protocol: cluster.JoinProtocol, Fingerprint: pki.Fingerprint(server), Request: string(request), Architecture: "x86_64", EndsJoin: true,
	}
	join.Schema.Oldest, join.Schema.Newest = one.Schema, one.Schema
	if answer := post(t, first, "/internal/join", join); answer.Code != http.StatusOK {
		t.Fatalf("the cluster answers a server that joins %d %q", answer.Code, answer.Error)
	}
}

// pair is a cluster of one with a pool and a network, and a server that is to join it.
func pair(t *testing.T) (first, joiner *lab.Member) {
	t.Helper()
	network := lab.NewNetwork(t)
	first = lab.ClusterOf(t, 1, lab.Options{Network: network})[0]
	joiner = lab.Start(t, lab.Options{NoInit: true, Network: network})
	first.Purges()
	joiner.Purges(first)
	return first, joiner
}

// bounded is a context that ends long before what was right would.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A server that was killed while it joined leaves a member that never came. It holds up
// nobody, and the same server may join with the same token.
func TestKilledBeforeItKnewThatItWasAdmitted(t *testing.T) {
	t.Parallel()
	first, joiner := pair(t)
	token := first.Token("m2")
	admitted(t, first, joiner, token)
	status(t, first, "m1 Online", "m2 Offline")
	if _, err := first.Do(bounded(t), http.MethodPost, "/1.0/storage-pools", map[string]any{"name": "later", "driver": "dir"}); err != nil {
		t.Errorf("make a pool while a server joins: %v", err)
	}
	answer, err := first.Request(bounded(t), http.MethodDelete, "/1.0/cluster/members/m2", nil, nil)
	if err != nil || answer.Code != http.StatusConflict || !strings.Contains(answer.Error, "use force") {
		t.Errorf("remove a member that never came: %d %q, %v; want 409 and to use force", answer.Code, answer.Error, err)
	}
	joiner.Run("musterd", "init", "--token", lab.Encode(token), "--address", joiner.Address())
	status(t, first, "m1 Online", "m2 Online")
	if _, err := os.Stat(filepath.Join(joiner.Dir, "alone")); !os.IsNotExist(err) {
		t.Errorf("what a server was before it joined stays: %v", err)
	}
}

// A member that never came is removed by force at once, and a new token joins.
func TestAMemberThatNeverCameIsRemoved(t *testing.T) {
	t.Parallel()
	first, joiner := pair(t)
	admitted(t, first, joiner, first.Token("m2"))
	if _, err := first.Do(bounded(t), http.MethodDelete, "/1.0/cluster/members/m2?force=1", nil); err != nil {
		t.Fatalf("remove a member that never came, by force: %v", err)
	}
	status(t, first, "m1 Online")
	joiner.Join(first, "m2")
	status(t, first, "m1 Online", "m2 Online")
}

// A join that nobody ends is taken back, and the server is again what it was: also when it
// had become a member on its own disk and comes back too late.
func TestAJoinIsTakenBack(t *testing.T) {
	t.Parallel()
	first, joiner := pair(t)
	if _, err := joiner.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "mine"}); err != nil {
		t.Fatal(err)
	}
	// It is stopped when it has written down that it was admitted.
	init := joiner.Command("musterd", "init", "--token", lab.Encode(first.Token("m2")), "--address", joiner.Address())
	if err := init.Start(); err != nil {
		t.Fatal(err)
	}
	watch(t, filepath.Join(joiner.Dir, "joining.json"), filepath.Join(joiner.Dir, "alone"))
	joiner.Kill()
	_ = init.Wait() // its daemon was killed
	eventuallyWithin(t, 2*time.Minute, func() string {
		var rows []member
		if err := first.Get(t.Context(), "/1.0/cluster/members?recursion=1", &rows); err != nil || len(rows) != 1 {
			return fmt.Sprintf("the members are %+v, %v; want m1 alone", rows, err)
		}
		return ""
	})
	joiner.Launched()
	if inCluster(t, joiner) {
		t.Error("the server is in a cluster whose join was taken back")
	}
	if err := joiner.Get(t.Context(), "/1.0/profiles/mine", &struct{}{}); err != nil {
		t.Errorf("what the server had before it joined: %v", err)
	}
	joiner.Join(first, "m2")
	status(t, first, "m1 Online", "m2 Online")
}

// inCluster waits until the server answers, and says whether it is in a cluster.
func inCluster(t *testing.T, m *lab.Member) bool {
	t.Helper()
	var shown struct{ Enabled bool }
	eventuallyWithin(t, time.Minute, func() string {
		if err := m.Get(t.Context(), "/1.0/cluster", &shown); err != nil {
			return err.Error()
		}
		return ""
	})
	return shown.Enabled
}

// watch returns as soon as one of the files is there.
func watch(t *testing.T, files ...string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, file := range files {
			if _, err := os.Stat(file); err == nil {
				return
			}
		}
	}
	t.Fatalf("none of %q has come", files)
}

// A server that is killed at any moment while it joins is a member or a server of its own
// when it is started again, and the cluster says the same.
//
// MUSTER_JOIN_KILLS is how many times it is killed, 3 unless it is set.
func TestKilledWhileItJoins(t *testing.T) {
	t.Parallel()
	first, joiner := pair(t)
	kills := 3
	if text := os.Getenv("MUSTER_JOIN_KILLS"); text != "" {
		if _, err := fmt.Sscan(text, &kills); err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	token := first.Token("m2")
	for round := range kills {
		init := joiner.Command("musterd", "init", "--token", lab.Encode(token), "--address", joiner.Address())
		if err := init.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.Duration(random.IntN(400)) * time.Millisecond
		time.Sleep(after) // any moment will do
		joiner.Kill()
		_ = init.Wait() // its daemon was killed
		joiner.Launched()
		if inCluster(t, joiner) {
			status(t, first, "m1 Online", "m2 Online")
			t.Logf("round %d, killed after %v: it is a member", round, after)
			if _, err := first.Do(bounded(t), http.MethodDelete, "/1.0/cluster/members/m2", nil); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() string {
				// It forgets the cluster, and then begins anew.
				var pools []string
				if err := joiner.Get(t.Context(), "/1.0/storage-pools", &pools); err != nil || len(pools) > 0 {
					return fmt.Sprintf("the server that was removed has the pools %q, %v", pools, err)
				}
				return ""
			})
			token = first.Token("m2")
			continue
		}
		t.Logf("round %d, killed after %v: it is alone, and joins by the same token", round, after)
	}
	joiner.Run("musterd", "init", "--token", lab.Encode(token), "--address", joiner.Address())
	status(t, first, "m1 Online", "m2 Online")
}

// Members of one machine can't all have the bridge of that name. One without it says so:
// when it joins, and in the list of members.
func TestAMemberWithoutItsBridgeSaysSo(t *testing.T) {
	t.Parallel()
	first, second := lab.Start(t, lab.Options{}), lab.Start(t, lab.Options{NoInit: true})
	first.Purges()
	second.Purges(first)
	first.Muster("config", "set", "core.https_address", first.Address())
	first.Muster("cluster", "enable", "m1")
	if out := first.Muster("cluster", "list", "-f", "csv"); strings.Contains(out, "OFFLINE") {
		t.Errorf("the only member says of itself: %s", out)
	}
	var networks []struct {
		Name    string
		Managed bool
	}
	if err := first.Get(t.Context(), "/1.0/networks?recursion=1&filter=managed%20eq%20true", &networks); err != nil || len(networks) != 1 {
		t.Fatalf("the networks are %+v, %v; want one", networks, err)
	}
	bridge := networks[0].Name
	out, err := run(second, "", "musterd", "init", "--token", lab.Encode(first.Token("m2")), "--address", second.Address())
	for _, word := range []string{`has joined as member "m2"`, `not all of it works: network "` + bridge + `": this machine already`, "tries again by itself"} {
		if err == nil || !strings.Contains(out, word) {
			t.Errorf("musterd init --token: %v: %s; want a failure with %q", err, out, word)
		}
	}
	for _, m := range []*lab.Member{first, second} {
		// Who votes may still change just after a join.
		eventually(t, func() string {
			for line := range strings.Lines(m.Muster("cluster", "list", "-f", "csv")) {
				whole := strings.Contains(line, "Fully operational")
				if isFirst := strings.HasPrefix(line, "m1,"); whole != isFirst || !isFirst && !strings.Contains(line, bridge) {
					return fmt.Sprintf("the list of members has %q", line)
				}
			}
			return ""
		})
	}
	// What it can't have is given up, and it is whole.
	first.Muster("profile", "device", "remove", "default", "eth0")
	first.Muster("network", "delete", bridge)
	if _, err := first.Settled(t.Context(), 2); err != nil {
		t.Error(err)
	}
}

// A server that joins the moment that the cluster begins does not take the first member's
// vote, whatever their IDs are.
func TestTheFirstMemberKeepsItsVote(t *testing.T) {
	lab.NeedsRoot(t)
	for range 3 {
		members := lab.ClusterOf(t, 2, lab.Options{NoInit: true})
		rows, err := members[0].Rows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !rows[0].Votes() || !rows[0].Coordinates() || rows[1].Votes() {
			t.Errorf("after the second joined: %+v; the first votes and leads", rows)
		}
	}
}
