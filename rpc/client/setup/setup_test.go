package setup_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster/rpc/client"
	"muster/rpc/client/setup"
	"muster/rpc/rest/api"
)

func TestParseSeed(t *testing.T) {
	seed, err := setup.ParseSeed([]byte(`
config:
  core.https_address: "[::]:8443"
  images.auto_update_interval: 15
storage_pools:
- name: data
  driver: btrfs
  config:
    size: 20GiB
networks:
- name: br7
  type: bridge
  config:
    ipv4.nat: true
profiles:
- name: default
  devices:
    eth0: {type: nic, network: br7, name: eth0}
projects:
- name: web
cluster:
  enabled: true
  server_name: m1
`))
	if err != nil {
		t.Fatal(err)
	}
	want := setup.Seed{
		Config: map[string]string{"core.https_address": "[::]:8443", "images.auto_update_interval": "15"},
		StoragePools: []api.StoragePoolsPost{{
			Name: "data", Driver: "btrfs", StoragePoolPut: api.StoragePoolPut{Config: map[string]string{"size": "20GiB"}},
		}},
		Networks: []setup.SeedNetwork{{NetworksPost: api.NetworksPost{
			Name: "br7", Type: "bridge", NetworkPut: api.NetworkPut{Config: map[string]string{"ipv4.nat": "true"}},
		}}},
		Profiles: []setup.SeedProfile{{ProfilesPost: api.ProfilesPost{Name: "default", ProfilePut: api.ProfilePut{
			Devices: map[string]map[string]string{"eth0": {"type": "nic", "network": "br7", "name": "eth0"}},
		}}}},
		Projects: []api.ProjectsPost{{Name: "web"}},
		Cluster:  &setup.SeedCluster{Enabled: true, ServerName: "m1"},
	}
	if diff := cmp.Diff(want, seed); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"a misspelt key":                 {"storage_pool:\n- name: x\n", `unknown field "storage_pool"`},
		"a pool without a driver":        {"storage_pools:\n- name: x\n", "storage_pools[0] needs a name and a driver"},
		"a nameless network":             {"networks:\n- type: bridge\n", "networks[0] has no name"},
		"a nameless profile":             {"profiles:\n- config: {}\n", "profiles[0] has no name"},
		"a nameless project":             {"projects:\n- config: {}\n", "projects[0] has no name"},
		"a cluster without a name":       {"cluster:\n  enabled: true\n", "server_name is missing"},
		"a cluster to join, not enabled": {"cluster:\n  cluster_token: x\n", "enabled is not true"},
		"a token that is none":           {"cluster: {enabled: true, server_address: '192.0.2.2:8443', cluster_token: x}\n", "cluster_token: "},
		"an address, and no certificate": {"cluster: {enabled: true, server_name: m2, server_address: '192.0.2.2:8443', cluster_address: '192.0.2.1:8443'}\n", "cluster_certificate"},
		"joining from nowhere":           {"cluster: {enabled: true, server_name: m2, cluster_token: x}\n", "server_address is missing"},
		"joining with a pool":            {"cluster: {enabled: true, cluster_token: x}\nstorage_pools: [{name: a, driver: dir}]\n", "leave out storage_pools"},
		"joining with nothing to show":   {"cluster: {enabled: true, server_name: m2, server_address: '192.0.2.2:8443', cluster_address: '192.0.2.1:8443', cluster_certificate: x}\n", "cluster_password is missing"},
		"broken YAML":                    {"config: [", "preseed: "},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := setup.ParseSeed([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestFreeNetworkName(t *testing.T) {
	taken := func(names ...string) (all []api.Network) {
		for _, name := range names {
			all = append(all, api.Network{Name: name})
		}
		return all
	}
	for name, tc := range map[string]struct {
		networks []api.Network
		wish     string
		want     string
	}{
		"the wish, when it is free":  {taken("eth0", "lo"), "musterbr0", "musterbr0"},
		"the next number":            {taken("musterbr0"), "musterbr0", "musterbr1"},
		"the first gap":              {taken("musterbr0", "musterbr2", "musterbr1"), "musterbr0", "musterbr3"},
		"a lower one, when free":     {taken("br7"), "br7", "br0"},
		"a number for a bare name":   {taken("lab"), "lab", "lab0"},
		"prefixes are another thing": {taken("musterbr00"), "musterbr0", "musterbr0"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := setup.FreeNetworkName(tc.networks, tc.wish); got != tc.want {
				t.Errorf("FreeNetworkName(%q) = %q, want %q", tc.wish, got, tc.want)
			}
		})
	}
}

func TestBestDriver(t *testing.T) {
	server := func(names ...string) (s api.Server) {
		for _, name := range names {
			s.Environment.StorageSupportedDrivers = append(s.Environment.StorageSupportedDrivers, api.ServerStorageDriverInfo{Name: name})
		}
		return s
	}
	if got := setup.BestDriver(server("dir", "overlay", "btrfs")); got != "overlay" {
		t.Errorf("with overlay: %q", got)
	}
	if got := setup.BestDriver(server("dir", "btrfs")); got != "dir" {
		t.Errorf("without overlay: %q", got)
	}
}

// fresh is a name of the test's own on a real daemon, with an empty profile
// called so.
func fresh(t *testing.T) (*client.Client, string) {
	t.Helper()
	socket := os.Getenv("MUSTER_TEST_SOCKET")
	if socket == "" {
		t.Skip("needs a daemon: MUSTER_TEST_SOCKET names no socket")
	}
	c, err := client.New(client.Config{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	var b [3]byte
	_, _ = rand.Read(b[:])
	name := "s" + hex.EncodeToString(b[:])
	ctx := t.Context()
	if err := c.CreateProfile(ctx, api.ProfilesPost{Name: name}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		clean(ctx, t, c, name)
	})
	return c, name
}

// clean removes what a test made, whatever its end was.
func clean(ctx context.Context, t *testing.T, c *client.Client, name string) {
	gone := func(what string, err error) {
		if err != nil && !client.IsNotFound(err) {
			t.Errorf("delete %s: %v", what, err)
		}
	}
	gone("profile", c.DeleteProfile(ctx, name))
	gone("profile", c.DeleteProfile(ctx, name+"-big"))
	gone("profile", c.DeleteProfile(ctx, name+"-bigger"))
	gone("network", c.DeleteNetwork(ctx, name))
	gone("pool", c.DeletePool(ctx, name))
}

var quiet = map[string]string{"ipv4.address": "none", "ipv6.address": "none"}

func TestAuto(t *testing.T) {
	c, name := fresh(t)
	opts := setup.Options{Pool: name, Driver: "dir", Network: name, NetworkConfig: quiet, Profile: name}
	result, err := setup.Auto(t.Context(), c, opts)
	if err != nil {
		t.Fatal(err)
	}
	want := setup.Result{Pool: name, Network: name, Made: []string{
		"storage pool " + name + " (dir)", "network " + name, "profile " + name,
	}}
	if diff := cmp.Diff(want, result); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	profile, _, err := c.Profile(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	devices := map[string]map[string]string{
		"root": {"type": "disk", "path": "/", "pool": name},
		"eth0": {"type": "nic", "name": "eth0", "network": name},
	}
	if diff := cmp.Diff(devices, profile.Devices); diff != "" {
		t.Errorf("the profile (-want +got):\n%s", diff)
	}
	again, err := setup.Auto(t.Context(), c, opts)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(setup.Result{Pool: name, Network: name}, again, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("a second call (-want +got):\n%s", diff)
	}
}

func TestAutoTakesBackWhatItMade(t *testing.T) {
	c, name := fresh(t)
	bad := map[string]string{"ipv4.address": "nonsense", "ipv6.address": "none"}
	_, err := setup.Auto(t.Context(), c, setup.Options{Pool: name, Driver: "dir", Network: name, NetworkConfig: bad, Profile: name})
	if err == nil || !strings.Contains(err.Error(), "make a network") {
		t.Fatalf("error %v, want one about the network", err)
	}
	if _, _, err := c.Pool(t.Context(), name); !client.IsNotFound(err) {
		t.Errorf("the pool is still there (%v)", err)
	}
}

func TestPreseed(t *testing.T) {
	c, name := fresh(t)
	seed := func(description string) []byte {
		text := `
storage_pools:
- name: NAME
  driver: dir
networks:
- name: NAME
  type: bridge
  config: {ipv4.address: none, ipv6.address: none}
profiles:
- name: NAME
  description: DESCRIPTION
  devices:
    root: {type: disk, path: /, pool: NAME}
- name: NAME-big
  config: {limits.cpu: 4}
`
		return []byte(strings.NewReplacer("NAME", name, "DESCRIPTION", description).Replace(text))
	}
	ctx := t.Context()
	for _, description := range []string{"first", "first", "second"} {
		if err := setup.Preseed(ctx, c, seed(description)); err != nil {
			t.Fatalf("%s: %v", description, err)
		}
		profile, _, err := c.Profile(ctx, name)
		if err != nil || profile.Description != description {
			t.Errorf("description %q (%v), want %q", profile.Description, err, description)
		}
	}
	// A seed that fails at its end leaves nothing changed, and nothing new.
	bad := string(seed("third")) + "certificates:\n- name: x\n  certificate: '!'\n"
	bad = strings.ReplaceAll(bad, "-big", "-bigger")
	if err := setup.Preseed(ctx, c, []byte(bad)); err == nil || !strings.Contains(err.Error(), "neither PEM nor base64") {
		t.Fatalf("error %v, want one about the certificate", err)
	}
	if profile, _, err := c.Profile(ctx, name); err != nil || profile.Description != "second" {
		t.Errorf("after the failure: description %q (%v), want that from before", profile.Description, err)
	}
	if _, _, err := c.Profile(ctx, name+"-bigger"); !client.IsNotFound(err) {
		t.Errorf("the new profile is still there (%v)", err)
	}
	// What is dumped can be applied, and changes nothing.
	dump, err := setup.Dump(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"name: " + name + "-big", "description: second", "limits.cpu: \"4\""} {
		if !strings.Contains(string(dump), line) {
			t.Errorf("the dump does not say %q:\n%s", line, dump)
		}
	}
	if _, err := setup.ParseSeed(dump); err != nil {
		t.Errorf("the dump can't be read: %v\n%s", err, dump)
	}
}

func TestInteractiveGivesUp(t *testing.T) {
	c, name := fresh(t)
	for title, answers := range map[string]string{
		"the plan is refused":      "no\n" + name + "\ndir\n\nyes\n" + name + "\nnone\nnone\nno\nno\n",
		"the answers end too soon": "no\n" + name + "\n",
	} {
		var out strings.Builder
		if _, err := setup.Interactive(t.Context(), c, strings.NewReader(answers), &out); err == nil {
			t.Errorf("%s: no error", title)
		}
		if _, _, err := c.Pool(t.Context(), name); !client.IsNotFound(err) {
			t.Errorf("%s: the pool was made (%v)", title, err)
		}
	}
}
