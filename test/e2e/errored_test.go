package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"muster/test/lab"
)

// mustRefuse sends a request and wants it refused with the words.
func mustRefuse(t *testing.T, m *lab.Member, method, path string, body any, code int, words ...string) {
	t.Helper()
	answer, err := m.Request(t.Context(), method, path, body, nil)
	if err != nil || answer.Code != code {
		t.Errorf("%s %s: %d %q, %v; want %d", method, path, answer.Code, answer.Error, err, code)
	}
	for _, word := range words {
		if !strings.Contains(answer.Error, word) {
			t.Errorf("%s %s is refused with %q; want %q in it", method, path, answer.Error, word)
		}
	}
}

// does sends a request that must succeed.
func does(t *testing.T, m *lab.Member, method, path string, body any) lab.Answer {
	t.Helper()
	answer, err := m.Do(t.Context(), method, path, body)
	if err != nil {
		t.Error(err)
	}
	return answer
}

// A pool or network that some member can't make stays, as Errored, to be repaired there and
// created once more, or deleted; what is set of a pending one is what it is made with.
func TestWhatCantBeMadeIsRepaired(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t)})
	first, second, third := members[0], members[1], members[2]
	type thing struct {
		Status    string
		Config    map[string]string
		Locations []string
	}
	shows := func(path string) (found thing) {
		t.Helper()
		if err := first.Get(t.Context(), path, &found); err != nil {
			t.Error(err)
		}
		return found
	}
	is := func(path, want string) {
		t.Helper()
		if got := shows(path); got.Status != want {
			t.Errorf("%s is %s; want %s", path, got.Status, want)
		}
	}
	blocked := filepath.Join(second.Dir, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	define := func(pool, source string) {
		t.Helper()
		for _, m := range members {
			config := map[string]string{}
			if m == second && source != "" {
				config["source"] = source
			}
			does(t, m, http.MethodPost, "/1.0/storage-pools?target="+fmt.Sprintf("m%d", slices.Index(members, m)+1), map[string]any{"name": pool, "driver": "dir", "config": config})
		}
	}
	makeAll := func(pool string) map[string]any { return map[string]any{"name": pool, "driver": "dir"} }

	t.Run("set while pending", func(t *testing.T) {
		define("p1", "")
		source := filepath.Join(second.Dir, "own")
		if err := os.Mkdir(source, 0o711); err != nil {
			t.Fatal(err)
		}
		does(t, third, http.MethodPatch, "/1.0/storage-pools/p1?target=m2", map[string]any{"config": map[string]string{"source": source}})
		is("/1.0/storage-pools/p1", "Pending")
		does(t, first, http.MethodPost, "/1.0/storage-pools", makeAll("p1"))
		is("/1.0/storage-pools/p1", "Created")
		if got := shows("/1.0/storage-pools/p1?target=m2").Config["source"]; got != source {
			t.Errorf("the source on m2 is %q; want %q, as it was set", got, source)
		}
		does(t, first, http.MethodDelete, "/1.0/storage-pools/p1", nil)
	})
	t.Run("a pool repaired by a change", func(t *testing.T) {
		define("p2", filepath.Join(blocked, "pool"))
		mustRefuse(t, first, http.MethodPost, "/1.0/storage-pools", makeAll("p2"), http.StatusBadRequest, "m2")
		is("/1.0/storage-pools/p2", "Errored")
		good := filepath.Join(second.Dir, "good")
		if err := os.Mkdir(good, 0o711); err != nil {
			t.Fatal(err)
		}
		does(t, first, http.MethodPatch, "/1.0/storage-pools/p2?target=m2", map[string]any{"config": map[string]string{"source": good}})
		eventually(t, func() string {
			if got := shows("/1.0/storage-pools/p2").Status; got != "Created" {
				return "the pool is " + got
			}
			return ""
		})
		does(t, first, http.MethodDelete, "/1.0/storage-pools/p2", nil)
	})
	t.Run("a pool created once more, or deleted", func(t *testing.T) {
		define("p3", filepath.Join(blocked, "pool"))
		define("p4", filepath.Join(blocked, "other"))
		for _, pool := range []string{"p3", "p4"} {
			mustRefuse(t, first, http.MethodPost, "/1.0/storage-pools", makeAll(pool), http.StatusBadRequest, "m2")
		}
		does(t, first, http.MethodDelete, "/1.0/storage-pools/p4", nil)
		if err := os.Remove(blocked); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(blocked, "pool"), 0o711); err != nil {
			t.Fatal(err)
		}
		does(t, third, http.MethodPost, "/1.0/storage-pools", makeAll("p3"))
		is("/1.0/storage-pools/p3", "Created")
		mustRefuse(t, third, http.MethodPost, "/1.0/storage-pools", makeAll("p3"), http.StatusConflict, "already exists")
		does(t, first, http.MethodDelete, "/1.0/storage-pools/p3", nil)
	})
	t.Run("a network", func(t *testing.T) {
		inTheWay := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "nx"}}
		if err := second.Inside(func() error { return netlink.LinkAdd(inTheWay) }); err != nil {
			t.Fatal(err)
		}
		made := map[string]any{"name": "nx", "config": map[string]string{"ipv4.address": "10.199.7.1/24", "ipv6.address": "none"}}
		mustRefuse(t, first, http.MethodPost, "/1.0/networks", made, http.StatusBadRequest, "m2")
		is("/1.0/networks/nx", "Errored")
		if err := second.Inside(func() error { return netlink.LinkDel(inTheWay) }); err != nil {
			t.Fatal(err)
		}
		does(t, third, http.MethodPost, "/1.0/networks", map[string]any{"name": "nx"})
		if got := shows("/1.0/networks/nx"); got.Status != "Created" || got.Config["ipv4.address"] != "10.199.7.1/24" {
			t.Errorf("the network is %+v; want it created as it was first asked for", got)
		}
		does(t, first, http.MethodDelete, "/1.0/networks/nx", nil)
	})
	t.Run("groups and domains of a member", func(t *testing.T) {
		const path = "/1.0/cluster/members/m2"
		has := func(want string) {
			t.Helper()
			var m struct {
				Groups []string
				Domain string `json:"failure_domain"`
			}
			if err := first.Get(t.Context(), path, &m); err != nil || fmt.Sprint(m.Groups, m.Domain) != want {
				t.Errorf("m2 is in %v, %s, %v; want %s", m.Groups, m.Domain, err, want)
			}
		}
		does(t, first, http.MethodPatch, path, map[string]any{"failure_domain": "rack7"})
		for _, body := range []string{`{"groups":[]}`, `{"groups":null}`} {
			mustRefuse(t, first, http.MethodPut, path, json.RawMessage(body), http.StatusBadRequest, "groups", "default")
			mustRefuse(t, first, http.MethodPatch, path, json.RawMessage(body), http.StatusBadRequest, "groups", "default")
		}
		does(t, first, http.MethodPut, path, json.RawMessage(`{"description":"d"}`))
		has("[default]rack7")
		does(t, first, http.MethodPut, path, json.RawMessage(`{"failure_domain":"","groups":["default"]}`))
		has("[default]default")
	})
}
