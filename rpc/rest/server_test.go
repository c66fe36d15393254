package rest

import (
	"encoding/json"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/rpc/rest/api"
)

func TestServer(t *testing.T) {
	x := newRealm(t)
	var versions []string
	x.local.must("GET /", "", &versions)
	if !slices.Equal(versions, []string{"/1.0"}) {
		t.Errorf("versions %v; want /1.0", versions)
	}
	var server api.Server
	x.local.must("GET /1.0", "", &server)
	if server.Auth != "trusted" || server.APIVersion != "1.0" || server.APIStatus != "stable" || server.Public ||
		!slices.Contains(server.AuthMethods, "tls") {
		t.Errorf("server %+v; want a trusted, stable 1.0 that knows tls", server.ServerUntrusted)
	}
	environment := server.Environment
	if environment.ServerClustered || environment.ServerName != "ant" || environment.ServerPid != os.Getpid() || environment.ServerVersion != "5.0.2" || environment.MusterVersion != "0.1" {
		t.Errorf("environment %+v; want ant 0.1 with the API of 5.0.2, alone, this process", environment)
	}
	if environment.Kernel != "Linux" || environment.KernelVersion == "" || environment.Driver != "lxc" || environment.DriverVersion != "5.0.2" {
		t.Errorf("environment %+v; want Linux with a version and lxc 5.0.2", environment)
	}
	if runtime.GOARCH == "amd64" && !slices.Equal(environment.Architectures, []string{"x86_64", "i686"}) {
		t.Errorf("architectures %v; want x86_64 and i686", environment.Architectures)
	}
	if diff := cmp.Diff(map[string]string{"pidfd": "true"}, environment.LXCFeatures); diff != "" {
		t.Errorf("lxc features (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"idmapped_mounts": "false"}, environment.KernelFeatures); diff != "" {
		t.Errorf("kernel features (-want +got):\n%s", diff)
	}
	if len(environment.Addresses) != 0 || !strings.HasPrefix(environment.Certificate, "-----BEGIN CERTIFICATE") || len(environment.CertificateFingerprint) != 64 {
		t.Errorf("addresses %v, certificate %.30q (%s)", environment.Addresses, environment.Certificate, environment.CertificateFingerprint)
	}
	if len(environment.StorageSupportedDrivers) != 2 {
		t.Errorf("supported drivers %v; want overlay and dir", environment.StorageSupportedDrivers)
	}
}

func TestAStrangerSeesLittleOfTheServer(t *testing.T) {
	stranger := newRealm(t).remote(nil)
	got := stranger.must("GET /1.0", "", nil)
	var seen map[string]any
	if err := json.Unmarshal(got.Metadata, &seen); err != nil {
		t.Fatal(err)
	}
	if seen["auth"] != "untrusted" || seen["environment"] != nil || seen["config"] != nil {
		t.Errorf("a stranger sees %s; want neither environment nor config", got.Metadata)
	}
	stranger.must("GET /", "", nil)
	for _, line := range []string{
		"GET /1.0/profiles", "GET /1.0/operations", "GET /1.0/instances", "GET /1.0/events", "GET /1.0/certificates", "PUT /1.0", "GET /1.0/resources",
	} {
		stranger.refused(line, "{}", 403, "not authorized")
	}
}

func TestSettings(t *testing.T) {
	x := newRealm(t)
	c := x.local
	config := func() map[string]any {
		var server api.Server
		c.must("GET /1.0", "", &server)
		return server.Config
	}
	c.must("PUT /1.0", `{"config": {"user.a": "1", "core.trust_password": "sesame", "core.shutdown_timeout": 7, "core.https_address": "127.0.0.1:8443"}}`, nil)
	want := map[string]any{"user.a": "1", "core.trust_password": true, "core.shutdown_timeout": "7", "core.https_address": "127.0.0.1:8443"}
	if diff := cmp.Diff(want, config()); diff != "" {
		t.Errorf("after PUT (-want +got):\n%s", diff)
	}
	if stored := x.store.View().Setting("", trustPassword); strings.Contains(stored, "sesame") || stored == "" {
		t.Errorf("the store holds %q; want a hash", stored)
	}
	if got := x.store.View().Setting("ant", "core.https_address"); got != "127.0.0.1:8443" {
		t.Errorf("core.https_address of the member: %q; want it there and not in the cluster's", got)
	}
	hash := x.store.View().Setting("", trustPassword)
	c.must("PATCH /1.0", `{"config": {"user.b": "2", "user.a": ""}}`, nil)
	delete(want, "user.a")
	want["user.b"] = "2"
	if diff := cmp.Diff(want, config()); diff != "" {
		t.Errorf("after PATCH (-want +got):\n%s", diff)
	}
	// What clients read back as true they send back as true.
	c.must("PUT /1.0", `{"config": {"core.trust_password": true}}`, nil)
	if got := x.store.View().Setting("", trustPassword); got != hash {
		t.Error("a trust password of true changed the password")
	}
	if diff := cmp.Diff(map[string]any{"core.trust_password": true}, config()); diff != "" {
		t.Errorf("after the second PUT (-want +got):\n%s", diff)
	}
	c.must("PUT /1.0", `{"config": {}}`, nil)
	if got := x.store.View().Setting("", trustPassword); got != "" {
		t.Error("leaving the trust password out did not unset it")
	}
}

func TestSettingsRefuse(t *testing.T) {
	x := newRealm(t)
	c := x.local
	c.must("PATCH /1.0", `{"config": {"user.a": "1"}}`, nil)
	tag := c.must("GET /1.0", "", nil).http.Header.Get("ETag")
	for name, row := range map[string]struct {
		body   string
		status int
		words  string
	}{
		"an unknown key":               {`{"config": {"core.http_address": ":1"}}`, 400, "core.https_address"},
		"an object for a value":        {`{"config": {"user.a": {}}}`, 400, `"user.a" wants text`},
		"a bad number":                 {`{"config": {"core.shutdown_timeout": "soon"}}`, 400, "core.shutdown_timeout"},
		"a list for the configuration": {`{"config": []}`, 400, `field "config": want an object`},
		"an address that is not bound": {`{"config": {"core.https_address": "192.0.2.1:8443"}}`, 409, "not this machine's"},
		"a good key beside a bad one":  {`{"config": {"user.z": "1", "nope": "1"}}`, 400, "nope"},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.t = t
			c.refused("PATCH /1.0", row.body, row.status, row.words)
		})
	}
	var server api.Server
	got := c.must("GET /1.0", "", &server)
	if diff := cmp.Diff(map[string]any{"user.a": "1"}, server.Config); diff != "" {
		t.Errorf("after all refusals (-want +got):\n%s", diff)
	}
	if now := got.http.Header.Get("ETag"); now != tag {
		t.Errorf("ETag %s became %s though nothing changed", tag, now)
	}
	c.must("PATCH /1.0", `{"config": {"user.a": "2"}}`, nil)
	for _, method := range []string{"PUT", "PATCH"} {
		if got := c.do(method+" /1.0", `{"config": {"user.a": "3"}}`, "If-Match", tag); got.status != 412 {
			t.Errorf("%s with a stale ETag: %d; want 412", method, got.status)
		}
	}
}

func TestAddressesAreSpelledOut(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1:8443", "host.example:8443"} {
		want := []string{address}
		if address == "" {
			want = []string{}
		}
		if got := (Host{Address: func() string { return address }}).addresses(); !slices.Equal(got, want) {
			t.Errorf("addresses of %q: %v; want %v", address, got, want)
		}
	}
	for _, address := range []string{"[::]:8443", "0.0.0.0:8443", ":8443"} {
		for _, got := range (Host{Address: func() string { return address }}).addresses() {
			if strings.Contains(got, "[::]") || strings.HasPrefix(got, "127.") || !strings.HasSuffix(got, ":8443") ||
				address == "0.0.0.0:8443" && strings.Contains(got, "[") {
				t.Errorf("addresses of %q hold %q", address, got)
			}
		}
	}
}

func TestResources(t *testing.T) {
	c := newRealm(t).local
	var resources api.Resources
	c.must("GET /1.0/resources", "", &resources)
	if got := resources.CPU.Total; got < uint64(runtime.NumCPU()) {
		t.Errorf("%d processors; this process alone may use %d", got, runtime.NumCPU())
	}
	if resources.Memory.Total < 64<<20 || resources.Memory.Used > resources.Memory.Total {
		t.Errorf("memory %+v; want a sensible total", resources.Memory)
	}
	c.refused("GET /1.0/resources?target=bee", "", 404, `cluster member "bee" not found`)
}

func TestProjects(t *testing.T) {
	x := newRealm(t)
	var projects []api.Project
	x.local.must("GET /1.0/projects?recursion=1", "", &projects)
	if len(projects) != 1 || projects[0].Name != "default" || !slices.Contains(projects[0].UsedBy, "/1.0/profiles/default") {
		t.Errorf("projects %+v; want default, used by its profile", projects)
	}
	x.local.must("GET /1.0/projects/default", "", nil)
	x.local.refused("GET /1.0/projects/none", "", 404, `project "none" not found`)
	x.local.refused("POST /1.0/projects", `{"name": "p"}`, 405, "does not take POST")
	if slices.Contains(extensionsOf(x.local), "projects") {
		t.Error("projects are announced though none can be made")
	}
}

func extensionsOf(c *caller) []string {
	var server api.ServerUntrusted
	c.must("GET /1.0", "", &server)
	return server.APIExtensions
}

func BenchmarkServer(b *testing.B) {
	x := newRealm(b)
	b.ResetTimer()
	for range b.N {
		x.local.must("GET /1.0", "", nil)
	}
}
