package setup

import (
	"bufio"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/rpc/client"
	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

func TestQuestions(t *testing.T) {
	var server api.Server
	for _, name := range []string{"dir", "overlay", "btrfs"} {
		server.Environment.StorageSupportedDrivers = append(server.Environment.StorageSupportedDrivers, api.ServerStorageDriverInfo{Name: name})
	}
	networks := []api.Network{{Name: "eth0"}, {Name: "musterbr0"}, {Name: "ours", Managed: true}}
	pools := []api.StoragePool{{Name: "old", Driver: "btrfs"}}
	for name, tc := range map[string]struct {
		member  membership
		answers []string
		want    Options
		said    []string
		wantErr bool
	}{
		"return, all the way": {
			answers: []string{"", "", "", "", "", "", "", ""},
			want: Options{
				Pool: "default", Driver: "overlay", Network: "musterbr1",
				NetworkConfig: map[string]string{"ipv4.address": "auto", "ipv6.address": "auto"},
			},
			said: []string{"Name of the storage pool [default]", "Name of the bridge [musterbr1]"},
		},
		"answers that are refused, then good ones": {
			answers: []string{"data", "tape", "dir", "/srv/data", "perhaps", "yes", "eth0", "lab", "nonsense", "10.1.2.1/24", "none", "y", "8443", "[::]:8443"},
			want: Options{
				Pool: "data", Driver: "dir", Source: "/srv/data", Network: "lab", Address: "[::]:8443",
				NetworkConfig: map[string]string{"ipv4.address": "10.1.2.1/24", "ipv6.address": "none"},
			},
			said: []string{`"tape" is none of dir, overlay, btrfs`, "yes or no?", `an interface "eth0" already`, "invalid CIDR address", "missing port"},
		},
		"a pool that is there, and no network": {
			answers: []string{"old", "no", "no"},
			want:    Options{Pool: "old", Driver: "btrfs", NoNetwork: true},
			said:    []string{"It is there already, with the driver btrfs"},
		},
		"the last answer without a line's end": {
			answers: []string{"old", "no"},
			want:    Options{Pool: "old", Driver: "btrfs", NoNetwork: true},
		},
		"the first member of a cluster is reachable": {
			member:  membership{name: "m1", address: "192.0.2.1:8443"},
			answers: []string{"old", "no"},
			want:    Options{Pool: "old", Driver: "btrfs", NoNetwork: true, Cluster: "m1", Address: "192.0.2.1:8443"},
		},
		"nobody answers": {wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			typed := strings.Join(tc.answers, "\n") + "\n"
			if name == "the last answer without a line's end" {
				typed += "no"
			}
			if tc.wantErr {
				typed = ""
			}
			q := questions{in: bufio.NewReader(strings.NewReader(typed)), out: &out}
			got, err := q.options(tc.member, server, networks, pools)
			if (err != nil) != tc.wantErr {
				t.Fatalf("error %v, want one: %v\n%s", err, tc.wantErr, out.String())
			}
			if diff := cmp.Diff(tc.want, got); !tc.wantErr && diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, out.String())
			}
			for _, said := range tc.said {
				if !strings.Contains(out.String(), said) {
					t.Errorf("it did not say %q:\n%s", said, out.String())
				}
			}
			if tc.wantErr {
				return
			}
			// The plan that is shown is a seed like any other.
			plan, err := yamldoc.Marshal(planOf(got))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseSeed(plan); err != nil {
				t.Errorf("%v\n%s", err, plan)
			}
		})
	}
}

func TestMembershipQuestions(t *testing.T) {
	var server api.Server
	server.Environment.ServerName = "host7"
	token := api.ClusterMemberJoinToken{ServerName: "m2", Fingerprint: "ab", Secret: "s", Addresses: []string{"192.0.2.1:8443"}}
	for name, tc := range map[string]struct {
		clustered bool
		answers   []string
		want      membership
		said      string
		wantErr   bool
	}{
		"no, unless asked for":       {answers: []string{""}},
		"a new cluster":              {answers: []string{"yes", "", "", ""}, want: membership{name: "host7", address: "203.0.113.7:8443"}},
		"a new one, in other words":  {answers: []string{"y", "n", "m1", "192.0.2.9:443"}, want: membership{name: "m1", address: "192.0.2.9:443"}},
		"an address that nobody has": {answers: []string{"y", "n", "m1", "[::]:8443", "192.0.2.9:8443"}, want: membership{name: "m1", address: "192.0.2.9:8443"}, said: "is not one address"},
		"one to join": {
			answers: []string{"y", "y", "rubbish", token.String(), ""},
			want:    membership{name: "m2", address: "192.0.2.2:8443", token: token.String()}, said: "muster cluster add",
		},
		"a server that is a member is not asked": {clustered: true, said: "in a cluster, as host7"},
		"no token":                               {answers: []string{"y", "y"}, wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			q := questions{in: bufio.NewReader(strings.NewReader(strings.Join(tc.answers, "\n") + "\n")), out: &out}
			if len(tc.answers) == 0 {
				q.in = bufio.NewReader(strings.NewReader(""))
			}
			asked := server
			asked.Environment.ServerClustered = tc.clustered
			got, err := q.membership(asked, func(from string) string {
				if from == "" {
					return "203.0.113.7:8443"
				}
				return "192.0.2.2:8443"
			}, func(string, []api.ClusterMemberConfigKey) ([]api.ClusterMemberConfigKey, error) { return nil, nil })
			if (err != nil) != tc.wantErr || tc.wantErr && !errors.Is(err, ErrNoAnswer) {
				t.Fatalf("error %v, want one: %v\n%s", err, tc.wantErr, out.String())
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(membership{})); !tc.wantErr && diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, out.String())
			}
			if !strings.Contains(out.String(), tc.said) {
				t.Errorf("it did not say %q:\n%s", tc.said, out.String())
			}
		})
	}
}

// What may differ on a server is asked for when the cluster has said what that is, and
// each answer is tried there.
func TestMemberConfigQuestions(t *testing.T) {
	key := func(entity, name, key, value string) api.ClusterMemberConfigKey {
		return api.ClusterMemberConfigKey{Entity: entity, Name: name, Key: key, Value: value}
	}
	keys := []api.ClusterMemberConfigKey{
		key("storage-pool", "data", "source", ""), key("storage-pool", "data", "size", ""), key("network", "lan", "bridge.external_interfaces", ""),
	}
	refused := func(code int, sentence string) error { return &client.Error{Code: code, Message: sentence} }
	good := api.ClusterMemberJoinToken{ServerName: "m2", Fingerprint: "ab", Secret: "good", Addresses: []string{"192.0.2.1:8443"}}.String()
	used := api.ClusterMemberJoinToken{ServerName: "m2", Fingerprint: "ab", Secret: "used", Addresses: []string{"192.0.2.1:8443"}}.String()
	far := api.ClusterMemberJoinToken{ServerName: "m2", Fingerprint: "ab", Secret: "far", Addresses: []string{"192.0.2.9:8443"}}.String()
	full := api.ClusterMemberJoinToken{ServerName: "m2", Fingerprint: "ab", Secret: "full", Addresses: []string{"192.0.2.1:8443"}}.String()
	for name, tc := range map[string]struct {
		answers []string
		// spent is how often the token may be shown before it is gone; 0 is always.
		spent   int
		want    []api.ClusterMemberConfigKey
		said    []string
		notSaid []string
		wantErr string
	}{
		"return takes the defaults": {
			answers: []string{good, "", "", "", ""},
			said: []string{
				"Choose source for storage pool data (empty for the default): ", "Choose size for storage pool data", "Choose bridge.external_interfaces for network lan",
			},
		},
		"what is chosen is passed on": {
			answers: []string{good, "", "", "200MiB", "eth1"},
			want:    []api.ClusterMemberConfigKey{key("storage-pool", "data", "size", "200MiB"), key("network", "lan", "bridge.external_interfaces", "eth1")},
		},
		"a source has its own size": {
			answers: []string{good, "", "/dev/sdb", ""},
			want:    []api.ClusterMemberConfigKey{key("storage-pool", "data", "source", "/dev/sdb")},
			notSaid: []string{"Choose size"},
		},
		"an answer that is refused, then a good one": {
			answers: []string{good, "", "sdb", "/dev/sdb", ""},
			want:    []api.ClusterMemberConfigKey{key("storage-pool", "data", "source", "/dev/sdb")},
			said:    []string{`"sdb" is not an absolute path`},
		},
		"a token that was used, then a good one": {
			answers: []string{used, good, "", "", "", ""},
			said:    []string{"was used already"},
		},
		"only a token that was used": {
			answers: []string{used},
			said:    []string{"was used already"},
			notSaid: []string{"Address at which", "Choose"},
			wantErr: `no answer to "Join token" that would do: the join token was used already`,
		},
		"a cluster out of reach":    {answers: []string{far}, notSaid: []string{"Address at which"}, wantErr: "give the token again once a member is up"},
		"a server that can't join":  {answers: []string{full, good}, notSaid: []string{"Address at which"}, wantErr: "this server has instances"},
		"a token that is withdrawn": {answers: []string{good, "", "/dev/sdb", "/dev/sdc"}, spent: 1, wantErr: "was withdrawn"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			q := questions{in: bufio.NewReader(strings.NewReader(strings.Join(append([]string{"yes", "yes"}, tc.answers...), "\n") + "\n")), out: &out}
			shown := 0
			got, err := q.membership(api.Server{}, func(string) string { return "192.0.2.2:8443" }, func(text string, chosen []api.ClusterMemberConfigKey) ([]api.ClusterMemberConfigKey, error) {
				shown++
				switch {
				case tc.spent != 0 && shown > tc.spent:
					return nil, refused(400, "the join token was withdrawn")
				case text == used:
					return nil, refused(400, "the join token was used already")
				case text == far:
					return nil, refused(503, "the cluster can't be reached at 192.0.2.9:8443")
				case text == full:
					return nil, refused(409, "this server has instances")
				}
				for _, c := range chosen {
					if c.Key == "source" && !strings.HasPrefix(c.Value, "/") {
						return nil, refused(400, `"sdb" is not an absolute path`)
					}
				}
				return keys, nil
			})
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Errorf("error %v, want %q in it\n%s", err, tc.wantErr, out.String())
				}
			} else if diff := cmp.Diff(membership{name: "m2", address: "192.0.2.2:8443", token: good, config: tc.want}, got, cmp.AllowUnexported(membership{})); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s\n%s", err, diff, out.String())
			}
			for _, said := range tc.said {
				if !strings.Contains(out.String(), said) {
					t.Errorf("it did not say %q:\n%s", said, out.String())
				}
			}
			for _, said := range tc.notSaid {
				if strings.Contains(out.String(), said) {
					t.Errorf("it said %q:\n%s", said, out.String())
				}
			}
		})
	}
}

func TestReachedAt(t *testing.T) {
	var server api.Server
	server.Environment.Addresses = []string{"[::]:8443", "192.0.2.7:8443"}
	if got := reachedAt(server, false)(""); got != "192.0.2.7:8443" {
		t.Errorf("an address that it listens on: %q", got)
	}
	server.Environment.Addresses = nil
	if got := reachedAt(server, false)(""); got != "" {
		t.Errorf("a server elsewhere that listens on none: %q", got)
	}
	if got := reachedAt(server, true)("127.0.0.1:8443"); got != "127.0.0.1:8443" {
		t.Errorf("beside a member on this machine: %q", got)
	}
}
