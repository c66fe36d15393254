package clients

import (
	"strings"
	"testing"

	"muster/test/lab"
)

// stockConfig are keys that preseeds for LXD carry.
const stockConfig = `config:
  core.proxy_https: http://proxy.example:3128
  core.proxy_ignore_hosts: localhost
  core.trust_password: sesame
  cluster.join_token_expiry: 1H
  images.auto_update_interval: 15
  images.remote_cache_expiry: 5
  user.site: attic
`

// A preseed for LXD is taken with all its server keys, from LXD's own init and from ours.
// Keys that have no effect yet are stored, listed as such and warned of.
func TestServerKeysOfStockPreseeds(t *testing.T) {
	lab.NeedsRoot(t)
	needs(t, "lxd", "lxd")
	for name, program := range map[string]string{"lxd": "lxd", "musterd": "musterd"} {
		t.Run(name, func(t *testing.T) {
			m := lab.Start(t, lab.Options{NoInit: true})
			cmd := m.Command(program, "init", "--preseed")
			cmd.Stdin = strings.NewReader(stockConfig)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s init --preseed: %v\n%s", program, err, out)
			}
			if warns := strings.Contains(string(out), `"images.remote_cache_expiry" is stored and has no effect yet`); warns != (program == "musterd") {
				t.Errorf("%s init --preseed printed %q", program, out)
			}
			for _, s := range []step{
				{run: "lxc config get local: images.auto_update_interval", want: `15\n$`},
				{run: "lxc config get local: core.proxy_https", want: `^http://proxy.example:3128\n$`},
				{run: "lxc config get local: user.site", want: `^attic\n$`},
				{run: "lxc config set local: core.https_allowed_origin '*'", want: `^$`},
				{run: "lxc config set local: images.auto_update_interval often", want: `whole number`, fails: true},
				{run: "lxc config set local: core.proxy_htps x", want: `did you mean "core.proxy_https"`, fails: true},
				{run: "lxc config unset local: core.https_allowed_origin", want: `^$`},
				{run: "muster config set maas.api.url http://x 2>&1", want: `Warning: server key "maas.api.url" is stored and has no effect yet`},
				{run: "muster config set core.shutdown_timeout 3 2>&1", want: `^$`},
				{run: "muster config metadata -f csv", want: `maas.api.url,global,,none yet,.*user.\*,global,,yes,`},
			} {
				s.check(t, m)
			}
		})
	}
}
