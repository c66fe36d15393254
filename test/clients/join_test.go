package clients

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/test/lab"
)

// indented is a text as a block of YAML.
func indented(text string) string {
	return "|\n    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
}

// Servers join with LXD's own `lxd init --preseed`, by the trust password and by a token.
// It ends when the server works as a member, with its pool and its network.
func TestStockPreseedJoins(t *testing.T) {
	lab.NeedsRoot(t)
	needs(t, "lxd", "lxd")
	network := lab.NewNetwork(t)
	first := lab.ClusterOf(t, 1, lab.Options{Network: network})[0]
	if _, err := first.Do(t.Context(), http.MethodPatch, "/1.0", map[string]any{"config": map[string]any{"core.trust_password": "sesame"}}); err != nil {
		t.Fatal(err)
	}
	certificate, err := os.ReadFile(filepath.Join(first.Dir, "server.crt"))
	if err != nil {
		t.Fatal(err)
	}
	joiners := []*lab.Member{lab.Start(t, lab.Options{NoInit: true, Network: network}), lab.Start(t, lab.Options{NoInit: true, Network: network})}
	joiners[0].Purges()
	joiners[1].Purges(joiners[0], first)
	first.Purges()
	address := func(m *lab.Member) string { return m.Address() }
	for i, row := range []struct{ name, seed string }{
		{"by the trust password", fmt.Sprintf("cluster:\n  enabled: true\n  server_name: m2\n  server_address: %s\n  cluster_address: %s\n  cluster_certificate: %s  cluster_password: sesame\n  member_config: []\n",
			address(joiners[0]), address(first), indented(string(certificate)))},
		{"by a token", fmt.Sprintf("cluster:\n  enabled: true\n  server_address: %s\n  cluster_token: %s\n  member_config: []\n",
			address(joiners[1]), lab.Encode(first.Token("m3")))},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := joiners[i]
			cmd := m.Command("lxd", "init", "--preseed")
			cmd.Stdin = strings.NewReader(row.seed)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			// With a token it asks the cluster itself, from the member's machine.
			if err := errors.Join(m.Inside(cmd.Start), cmd.Wait()); err != nil {
				t.Fatalf("lxd init --preseed: %v\n%s\n%s\n%s", err, out.String(), row.seed, m.Log())
			}
			name := fmt.Sprintf("m%d", i+2)
			for _, path := range []string{"/1.0/storage-pools/default", "/1.0/networks/musterbr0"} {
				var shown struct{ Status string }
				if err := m.Get(t.Context(), path+"?target="+name, &shown); err != nil || shown.Status != "Created" {
					t.Errorf("%s is %q on %s when the join has ended: %v", path, shown.Status, name, err)
				}
			}
			step{run: "lxc cluster list local: --format=csv", want: name + `,https.*ONLINE,`}.check(t, m)
		})
	}
}
