package rest

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/cluster"
	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

func TestProfiles(t *testing.T) {
	c := newRealm(t).local
	got := c.must("POST /1.0/profiles", `{"name": "web", "description": "web servers", "config": {"limits.cpu": "2", "user.x": ""}, "devices": {"none": {"type": "none"}}}`, nil)
	if got.status != http.StatusCreated || got.http.Header.Get("Location") != "/1.0/profiles/web" {
		t.Errorf("create: %d, Location %q; want 201 and /1.0/profiles/web", got.status, got.http.Header.Get("Location"))
	}
	var urls []string
	c.must("GET /1.0/profiles", "", &urls)
	if diff := cmp.Diff([]string{"/1.0/profiles/default", "/1.0/profiles/web"}, urls); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	var profile api.Profile
	c.must("GET /1.0/profiles/web", "", &profile)
	want := api.Profile{Name: "web", UsedBy: []string{}, ProfilePut: api.ProfilePut{
		Description: "web servers", Config: map[string]string{"limits.cpu": "2"}, Devices: map[string]map[string]string{"none": {"type": "none"}},
	}}
	if diff := cmp.Diff(want, profile); diff != "" {
		t.Errorf("get (-want +got):\n%s", diff)
	}
	var all []api.Profile
	c.must("GET /1.0/profiles?recursion=1", "", &all)
	if len(all) != 2 || !cmp.Equal(all[1], want) {
		t.Errorf("recursion 1: %+v", all)
	}
	c.must("GET /1.0/profiles?recursion=1&filter=name+eq+web", "", &all)
	if len(all) != 1 || all[0].Name != "web" {
		t.Errorf("filter: %+v; want web alone", all)
	}

	c.must("PUT /1.0/profiles/web", `{"description": "all of it"}`, nil)
	c.must("GET /1.0/profiles/web", "", &profile)
	if profile.Description != "all of it" || len(profile.Config) != 0 || len(profile.Devices) != 0 {
		t.Errorf("after PUT: %+v; want everything replaced", profile)
	}
	got = c.must("POST /1.0/profiles/web", `{"name": "www"}`, nil)
	if got.status != http.StatusCreated || got.http.Header.Get("Location") != "/1.0/profiles/www" {
		t.Errorf("rename: %d, Location %q; want 201 and /1.0/profiles/www", got.status, got.http.Header.Get("Location"))
	}
	got = c.must("DELETE /1.0/profiles/www", "", nil)
	if got.status != http.StatusAccepted || got.Operation == "" || got.http.Header.Get("Location") != got.Operation {
		t.Errorf("delete: %d, operation %q; want 202 with an operation", got.status, got.Operation)
	}
	var op api.Operation
	c.must("GET "+got.Operation+"/wait", "", &op)
	if op.Status != "Success" || op.StatusCode != api.Success {
		t.Errorf("the operation of a deletion: %+v; want Success", op)
	}
	c.refused("GET /1.0/profiles/www", "", 404, `profile "www" not found`)
}

func TestProfilesRefuse(t *testing.T) {
	c := newRealm(t).local
	c.must("POST /1.0/profiles", `{"name": "web"}`, nil)
	for name, row := range map[string]struct {
		line, body string
		status     int
		words      string
	}{
		"a name that is taken":               {"POST /1.0/profiles", `{"name": "web"}`, 409, "web"},
		"renaming to a name that is taken":   {"POST /1.0/profiles/web", `{"name": "default"}`, 409, "default"},
		"no name":                            {"POST /1.0/profiles", `{}`, 400, "name"},
		"a name with a slash":                {"POST /1.0/profiles", `{"name": "a/b"}`, 400, "a/b"},
		"an unknown key":                     {"POST /1.0/profiles", `{"name": "x", "config": {"limits.memori": "1GB"}}`, 400, "limits.memory"},
		"a bad size":                         {"PUT /1.0/profiles/web", `{"config": {"limits.memory": "1XB"}}`, 400, "limits.memory"},
		"a number where text belongs":        {"PUT /1.0/profiles/web", `{"config": {"limits.cpu": 2}}`, 400, "want an object of strings"},
		"a device without a type":            {"PUT /1.0/profiles/web", `{"devices": {"root": {"path": "/"}}}`, 400, "root"},
		"patching with nonsense":             {"PATCH /1.0/profiles/web", `{"config": []}`, 400, `field "config"`},
		"a profile that is not there":        {"PUT /1.0/profiles/none", `{}`, 404, "none"},
		"deleting one that is not there":     {"DELETE /1.0/profiles/none", "", 404, "none"},
		"deleting the default profile":       {"DELETE /1.0/profiles/default", "", 403, "default"},
		"renaming the default profile":       {"POST /1.0/profiles/default", `{"name": "x"}`, 403, "default"},
		"a project that is not there":        {"GET /1.0/profiles?project=none", "", 404, `project "none" not found`},
		"creating in a project not there":    {"POST /1.0/profiles?project=none", `{"name": "x"}`, 404, `project "none" not found`},
		"a recursion that is no number":      {"GET /1.0/profiles?recursion=all", "", 400, "recursion"},
		"a filter that does not parse":       {"GET /1.0/profiles?filter=name+like+web", "", 400, "like"},
		"a body that is empty":               {"PUT /1.0/profiles/web", "", 400, "empty"},
		"renaming without a new name":        {"POST /1.0/profiles/web", `{}`, 400, "name"},
		"a method that profiles do not have": {"PUT /1.0/profiles", `{}`, 405, "GET, POST"},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.t = t
			c.refused(row.line, row.body, row.status, row.words)
		})
	}
	var urls []string
	c.must("GET /1.0/profiles", "", &urls)
	if len(urls) != 2 {
		t.Errorf("profiles after all refusals: %v; want default and web", urls)
	}
}

func TestETags(t *testing.T) {
	c := newRealm(t).local
	c.must("POST /1.0/profiles", `{"name": "web"}`, nil)
	tag := c.must("GET /1.0/profiles/web", "", nil).http.Header.Get("ETag")
	if tag == "" {
		t.Fatal("no ETag")
	}
	if again := c.must("GET /1.0/profiles/web", "", nil).http.Header.Get("ETag"); again != tag {
		t.Errorf("ETag %s, then %s, of the same object", tag, again)
	}
	if got := c.do("PUT /1.0/profiles/web", `{"description": "1"}`, "If-Match", tag); got.status != 200 {
		t.Errorf("with the current ETag: %d %s", got.status, got.Error)
	}
	for _, stale := range []string{tag, tag[1 : len(tag)-1], `"nonsense"`} {
		for _, method := range []string{"PUT", "PATCH", "DELETE"} {
			if got := c.do(method+" /1.0/profiles/web", `{"description": "2"}`, "If-Match", stale); got.status != 412 {
				t.Errorf("%s with the stale ETag %s: %d %s; want 412", method, stale, got.status, got.Error)
			}
		}
	}
	fresh := c.must("GET /1.0/profiles/web", "", nil).http.Header.Get("ETag")
	if got := c.do("PATCH /1.0/profiles/web", `{"description": "3"}`, "If-Match", fresh[1:len(fresh)-1]); got.status != 200 {
		t.Errorf("with the current ETag, unquoted: %d %s", got.status, got.Error)
	}
}

func TestPatch(t *testing.T) {
	c := newRealm(t).local
	c.must("POST /1.0/profiles", `{"name": "web", "description": "d", "config": {"user.a": "1", "user.b": "2"},
		"devices": {"n1": {"type": "none"}, "n2": {"type": "none"}}}`, nil)
	c.must("PATCH /1.0/profiles/web", `{"config": {"user.b": "", "user.c": "3"}, "devices": {"n2": null}}`, nil)
	var profile api.Profile
	c.must("GET /1.0/profiles/web", "", &profile)
	want := api.ProfilePut{
		Description: "d", Config: map[string]string{"user.a": "1", "user.c": "3"}, Devices: map[string]map[string]string{"n1": {"type": "none"}},
	}
	if diff := cmp.Diff(want, profile.ProfilePut); diff != "" {
		t.Errorf("after PATCH (-want +got):\n%s", diff)
	}

	// Clients that patch different keys at once must not undo each other.
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			if got := c.do("PATCH /1.0/profiles/web", fmt.Sprintf(`{"config": {"user.k%d": "v"}}`, i)); got.status != 200 {
				t.Errorf("patch %d: %d %s", i, got.status, got.Error)
			}
		})
	}
	clients.Wait()
	c.must("GET /1.0/profiles/web", "", &profile)
	if len(profile.Config) != 10 {
		t.Errorf("after 8 patches at once: %v; want all of them", profile.Config)
	}
}

func TestAPatchThatIsRefusedChangesNothing(t *testing.T) {
	x := newRealm(t)
	fingerprint := strings.Repeat("ab", 32)
	image := state.Image{
		Project: state.DefaultProject, Fingerprint: fingerprint, Type: "container", Architecture: "x86_64",
		Properties: map[string]string{"os": "busybox"}, Profiles: []string{"default"},
	}
	profile := state.Profile{
		Project: state.DefaultProject, Name: "web", Config: state.Config{"user.a": "1"}, Devices: state.Devices{"n": {"type": "none"}},
	}
	for _, command := range []store.Command{store.AddImage{Image: image}, store.CreateProfile{Profile: profile}} {
		if _, err := x.store.Apply(t.Context(), command); err != nil {
			t.Fatal(err)
		}
	}
	for path, change := range map[string]string{
		"/1.0/images/" + fingerprint: `{"properties": {"os": "other"}, "profiles": ["other"]}`,
		"/1.0/profiles/web":          `{"config": {"user.a": "2"}, "devices": {"n": {"type": "disk"}}}`,
	} {
		var before, after map[string]any
		x.local.must("GET "+path, "", &before)
		if got := x.local.do("PATCH "+path, change, "If-Match", "1"); got.status != 412 {
			t.Fatalf("a change of %s with a stale ETag: %d; want 412", path, got.status)
		}
		x.local.must("GET "+path, "", &after)
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%s after a change that was refused (-before +after):\n%s", path, diff)
		}
	}
	// A realm shows no members.
	member := state.Member{Config: state.Config{"user.a": "1"}}
	showMember(cluster.MemberInfo{Member: &member}).Config["user.a"] = "2"
	if member.Config["user.a"] != "1" {
		t.Error("what is shown of a member is the View's own")
	}
}

func TestCreatingOneNameTwiceAtOnce(t *testing.T) {
	c := newRealm(t).local
	var clients sync.WaitGroup
	statuses := make([]int, 8)
	for i := range statuses {
		clients.Go(func() { statuses[i] = c.do("POST /1.0/profiles", `{"name": "web"}`).status })
	}
	clients.Wait()
	count := map[int]int{}
	for _, status := range statuses {
		count[status]++
	}
	if count[201] != 1 || count[409] != 7 {
		t.Errorf("statuses %v; want one 201 and seven 409", count)
	}
}
