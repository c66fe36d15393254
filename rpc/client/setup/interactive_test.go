package setup

import (
	"bufio"
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
			got, err := q.options(server, networks, pools)
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
