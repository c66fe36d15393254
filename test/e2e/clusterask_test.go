package e2e

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"muster/test/lab"
)

// answering runs the questions of musterd init with these answers from a pipe.
func answering(m *lab.Member, answers ...string) (string, error) {
	return run(m, strings.Join(answers, "\n")+"\n", "musterd", "init")
}

// spare puts an interface that nobody uses onto a member's machine.
func spare(t *testing.T, m *lab.Member, name string) {
	t.Helper()
	if err := m.Inside(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "end"})
	}); err != nil {
		t.Fatal(err)
	}
}

// A server that joins by answers is asked for what may differ on it. Looking does not
// use the token up, and what can't be is said at the question.
func TestClusterByAnswers(t *testing.T) {
	t.Parallel()
	network := lab.NewNetwork(t)
	first := lab.ClusterOf(t, 1, lab.Options{Network: network, NoInit: true})[0]
	second, third := lab.Start(t, lab.Options{NoInit: true, Network: network}), lab.Start(t, lab.Options{NoInit: true, Network: network})
	first.Purges()
	second.Purges(first)
	third.Purges()
	spare(t, first, "port0")
	spare(t, second, "port7")
	first.Muster("storage", "create", "data", "dir")
	first.Muster("storage", "create", "loop", "btrfs", "size=256MiB")
	first.Muster("network", "create", "lan", "ipv4.address=none", "ipv6.address=none", "bridge.external_interfaces=port0")

	here := second.Dir + "/there"
	if err := os.Mkdir(here, 0o711); err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(first.Muster("-q", "cluster", "add", "m2"))

	t.Run("a token that has expired is refused", func(t *testing.T) {
		old := first.Muster("-q", "cluster", "add", "m8")
		first.Run("musterd", "sql", "--write", "UPDATE tokens SET expires_at = '2020-01-01 00:00:00+00:00' WHERE name = 'm8'")
		first.Restart() // what was changed behind its back is read at the start
		if out, err := answering(third, "yes", "yes", strings.TrimSpace(old)); err == nil || !strings.Contains(out, "expired at 2020-01-01") || strings.Contains(out, "Address at which") {
			t.Errorf("%v: %s", err, out)
		}
	})

	t.Run("looking does not use the token up", func(t *testing.T) {
		for range 2 {
			out, err := answering(second, "yes", "yes", token, second.Address(), here, "", "", "port7", "no")
			if err == nil || !strings.Contains(out, "nothing was changed") || !strings.Contains(out, "Its storage pool data has source "+here) {
				t.Errorf("answered no at the end: %v: %s", err, out)
			}
		}
		if alone := decode[struct{ Enabled bool }](t, mustGet(t, second, "/1.0/cluster")); alone.Enabled {
			t.Error("a server that looked is in a cluster")
		}
		if out := first.Muster("cluster", "list-tokens", "-f", "csv"); !strings.HasPrefix(out, "m2,"+token) {
			t.Errorf("the tokens are %q; want that for m2", out)
		}
	})

	t.Run("what can't be is said at the question", func(t *testing.T) {
		for answer, want := range map[string]string{
			"there":    "is not an absolute path",
			"/nowhere": "does not exist; make the directory first",
			"/etc":     "is not empty",
			"/etc/":    `write "/etc"`,
		} {
			out, err := answering(second, "yes", "yes", token, second.Address(), answer)
			if err == nil || !strings.Contains(out, want) || !strings.Contains(out, `no answer to "Choose source for storage pool data`) {
				t.Errorf("source %q: %v: %s", answer, err, out)
			}
		}
	})

	t.Run("the answers hold on the new member, and there alone", func(t *testing.T) {
		out, err := answering(second, "yes", "yes", token, second.Address(), "/nowhere", here, "", "1MiB", "300MiB", "port0", "port7", "yes")
		if err != nil {
			t.Fatalf("musterd init: %v: %s", err, out)
		}
		for _, want := range []string{
			"Choose source for storage pool data (empty for the default): ", "Choose size for storage pool loop (empty for the default): ", "too small for btrfs",
			"Choose bridge.external_interfaces for network lan (empty for the default): ", `no interface "port0"`, "Made this server the member m2 of the cluster",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("it did not say %q: %s", want, out)
			}
		}
		status(t, first, "m1 Online", "m2 Online")
		type thing struct {
			Status string
			Config map[string]string
		}
		for _, row := range []struct{ path, key, m1, m2 string }{
			{"/1.0/storage-pools/data", "source", "", here},
			{"/1.0/storage-pools/loop", "size", "256MiB", "300MiB"},
			{"/1.0/networks/lan", "bridge.external_interfaces", "port0", "port7"},
		} {
			for name, want := range map[string]string{"m1": row.m1, "m2": row.m2} {
				eventually(t, func() string {
					var shown thing
					if err := first.Get(t.Context(), row.path+"?target="+name, &shown); err != nil {
						return err.Error()
					}
					if got := shown.Config[row.key]; got != want && want != "" || shown.Status != "Created" || want == "" && got == here {
						return fmt.Sprintf("%s on %s: %s %q, %s; want %q, Created", row.path, name, row.key, got, shown.Status, want)
					}
					return ""
				})
			}
		}
	})

	t.Run("a token that won't do is refused at the question", func(t *testing.T) {
		fresh := first.Token("m3")
		changed := func(key string, value any) string {
			other := maps.Clone(fresh)
			other[key] = value
			return lab.Encode(other)
		}
		deaf := net.JoinHostPort("10.77.0.1", "1")
		addresses := fresh["addresses"].([]any)
		for name, row := range map[string]struct{ token, want string }{
			"used":                 {token, "was used already or was withdrawn: ask for a new one"},
			"of another cluster":   {changed("fingerprint", strings.Repeat("0", 64)), "it is another cluster's"},
			"for another name":     {changed("server_name", "m9"), `is for member "m3", not "m9"`},
			"with nobody to reach": {changed("addresses", []string{deaf}), "give the token again once a member is up"},
		} {
			out, err := answering(third, "yes", "yes", row.token)
			if err == nil || !strings.Contains(out, row.want) || !strings.Contains(out, `no answer to "Join token"`) || strings.Contains(out, "Address at which") {
				t.Errorf("a token %s: %v: %s", name, err, out)
			}
		}
		// The good token still is, by way of the member that answers.
		out, err := answering(third, "yes", "yes", changed("addresses", append([]any{deaf}, addresses...)), third.Address())
		if err == nil || !strings.Contains(out, "Choose source for storage pool data") {
			t.Errorf("a good token after bad ones: %v: %s", err, out)
		}
		first.Muster("cluster", "revoke-token", "m3")
		eventually(t, func() string {
			if out, err := answering(third, "yes", "yes", lab.Encode(fresh)); err == nil || !strings.Contains(out, "withdrawn") {
				return fmt.Sprintf("a token that was withdrawn: %v: %s", err, out)
			}
			return ""
		})
	})

	t.Run("a server that can't join hears it before more questions", func(t *testing.T) {
		third.Muster("storage", "create", "own", "dir")
		out, err := answering(third, "yes", "yes", lab.Encode(first.Token("m4")), third.Address())
		if err == nil || !strings.Contains(out, "this server has storage pools: delete them") || strings.Contains(out, "Address at which") {
			t.Errorf("%v: %s", err, out)
		}
		third.Muster("storage", "delete", "own")
	})

	t.Run("a guess is refused, and slow", func(t *testing.T) {
		guess := map[string]any{"name": "m4", "secret": "0000", "protocol": 1}
		answer := post(t, first, "/internal/join/terms", guess)
		for range 4 {
			if answer.Code != http.StatusForbidden || strings.Contains(string(answer.Metadata), "data") {
				t.Fatalf("a wrong secret is answered %d %q %s", answer.Code, answer.Error, answer.Metadata)
			}
			answer = post(t, first, "/internal/join/terms", guess)
		}
	})
}
