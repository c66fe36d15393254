package rest

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// Whatever an alias is called, it is shown and deleted by that name, also one of a former
// release whose name is refused by now.
func TestEveryAliasCanBeDeleted(t *testing.T) {
	x := newRealm(t)
	fingerprint := strings.Repeat("a", 64)
	if _, err := x.store.Apply(t.Context(), store.AddImage{Image: state.Image{Project: state.DefaultProject, Fingerprint: fingerprint, Architecture: "x86_64", Members: []string{"ant"}}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"plain", "debian/12", "/x", "x/", "a//b", "a..b", "...", "a%2Fb", "a;b=c", "{x}", "ü", "export", "x/export"} {
		x.local.must("POST /1.0/images/aliases", `{"name":"`+name+`","target":"`+fingerprint+`"}`, nil)
	}
	for _, name := range []string{".", "..", "../x", "a/../b"} {
		x.local.refused("POST /1.0/images/aliases", `{"name":"`+name+`","target":"`+fingerprint+`"}`, http.StatusBadRequest, "step in a path")
		alias := state.ImageAlias{Project: state.DefaultProject, Name: name, Target: fingerprint}
		if _, err := x.store.Apply(t.Context(), store.CreateAlias{Alias: alias}); err != nil {
			t.Fatal(err)
		}
	}
	var urls []string
	x.local.must("GET /1.0/images/aliases", "", &urls)
	if len(urls) != 17 {
		t.Fatalf("the aliases are %q; want 17", urls)
	}
	for _, at := range urls {
		name, err := url.PathUnescape(strings.TrimPrefix(at, "/1.0/images/aliases/"))
		if err != nil {
			t.Fatal(err)
		}
		var shown api.ImageAliasesEntry
		x.local.must("GET "+at, "", &shown)
		if shown.Name != name {
			t.Errorf("%s shows %q", at, shown.Name)
		}
		x.local.must("DELETE "+at, "", nil)
	}
	x.local.must("GET /1.0/images/aliases/", "", &urls)
	if len(urls) > 0 {
		t.Errorf("the aliases %q stay", urls)
	}
	x.local.refused("DELETE /1.0/images/aliases/plain", "", http.StatusNotFound, `"plain" not found`)
	if got := x.local.do("OPTIONS /1.0/images/aliases/plain", ""); got.http.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(got.http.Header.Get("Allow"), "DELETE") {
		t.Errorf("OPTIONS is answered %d, Allow %q; want 405 with DELETE among the methods", got.http.StatusCode, got.http.Header.Get("Allow"))
	}
}
