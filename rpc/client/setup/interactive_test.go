package setup

import (
	"bufio"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
			})
			if (err != nil) != tc.wantErr || tc.wantErr && !errors.Is(err, ErrNoAnswer) {
				t.Fatalf("error %v, want one: %v\n%s", err, tc.wantErr, out.String())
			}
			if !tc.wantErr && got != tc.want {
				t.Errorf("%+v, want %+v\n%s", got, tc.want, out.String())
			}
			if !strings.Contains(out.String(), tc.said) {
				t.Errorf("it did not say %q:\n%s", tc.said, out.String())
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
