package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/test/lab"
)

// Members are in groups and failure domains, and instances go by both.
func TestGroups(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t)})
	first, second := members[0], members[1]
	status(t, first, "m1 Online", "m2 Online", "m3 Online")
	first.Busybox()
	where := func(name string) string {
		t.Helper()
		return strings.TrimSpace(second.Run("lxc", "list", "local:^"+name+"$", "--format=csv", "-c", "L"))
	}

	first.Run("lxc", "cluster", "group", "create", "local:fast")
	first.Run("lxc", "cluster", "group", "assign", "local:m2", "default,fast")
	second.Run("lxc", "cluster", "group", "assign", "local:m3", "default,fast")
	var group struct {
		Name, Description string
		Members           []string
	}
	if err := second.Get(t.Context(), "/1.0/cluster/groups/fast", &group); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"m2", "m3"}, group.Members); diff != "" {
		t.Errorf("members of the group (-want +got):\n%s", diff)
	}
	for _, name := range []string{"g1", "g2", "g3", "g4"} {
		first.Run("lxc", "init", "local:busybox", "local:"+name, "--target", "@fast")
		if at := where(name); at != "m2" && at != "m3" {
			t.Errorf("%s is on %s; want it in the group", name, at)
		}
	}
	second.Run("lxc", "cluster", "group", "remove", "local:m3", "fast")
	first.Run("lxc", "move", "local:g1", "--target", "m1")
	first.Run("lxc", "move", "local:g1", "--target", "@fast")
	if at := where("g1"); at != "m2" {
		t.Errorf("an instance moved to the group is on %s", at)
	}
	for name, tc := range map[string]struct {
		method, path string
		body         any
		code         int
		want         string
	}{
		"a group with members":      {http.MethodDelete, "/1.0/cluster/groups/fast", nil, http.StatusConflict, `"m2" among them`},
		"the default group":         {http.MethodDelete, "/1.0/cluster/groups/default", nil, http.StatusForbidden, "can't be deleted"},
		"a member in no group":      {http.MethodPut, "/1.0/cluster/groups/default", map[string]any{"members": []string{"m2"}}, http.StatusConflict, "in no other cluster group"},
		"a member that is none":     {http.MethodPost, "/1.0/cluster/groups", map[string]any{"name": "x", "members": []string{"m9"}}, http.StatusNotFound, `"m9" not found`},
		"a bad name":                {http.MethodPost, "/1.0/cluster/groups", map[string]any{"name": "a/b"}, http.StatusBadRequest, "cluster group name"},
		"a group that exists":       {http.MethodPost, "/1.0/cluster/groups", map[string]any{"name": "fast"}, http.StatusConflict, "already exists"},
		"a group of a member":       {http.MethodPatch, "/1.0/cluster/members/m1", map[string]any{"groups": []string{"none"}}, http.StatusNotFound, `"none" not found`},
		"roles are not for clients": {http.MethodPatch, "/1.0/cluster/members/m1", map[string]any{"roles": []string{"king"}}, http.StatusBadRequest, "roles"},
		"a bad failure domain":      {http.MethodPatch, "/1.0/cluster/members/m1", map[string]any{"failure_domain": "a b/c"}, http.StatusBadRequest, "failure_domain"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, err := first.Request(t.Context(), tc.method, tc.path, tc.body, nil)
			if err != nil || answer.Code != tc.code || !strings.Contains(answer.Error, tc.want) {
				t.Errorf("%s %s: %d %q, %v; want %d and %q", tc.method, tc.path, answer.Code, answer.Error, err, tc.code, tc.want)
			}
		})
	}
	first.Run("lxc", "cluster", "group", "rename", "local:fast", "quick")
	if out := second.Run("lxc", "cluster", "group", "list", "local:", "--format=csv"); !strings.Contains(out, "quick") || strings.Contains(out, "fast") {
		t.Errorf("groups after the renaming: %s", out)
	}
	first.Run("lxc", "cluster", "group", "assign", "local:m2", "default")
	first.Run("lxc", "cluster", "group", "delete", "local:quick")

	for name, domain := range map[string]string{"m1": "rack1", "m2": "rack1", "m3": "rack2"} {
		if _, err := first.Do(t.Context(), http.MethodPatch, "/1.0/cluster/members/"+name, map[string]any{"failure_domain": domain}); err != nil {
			t.Fatal(err)
		}
	}
	if out := second.Run("lxc", "cluster", "show", "local:m3"); !strings.Contains(out, "failure_domain: rack2") {
		t.Errorf("lxc cluster show: %s", out)
	}
	for _, name := range []string{"g1", "g2", "g3", "g4"} {
		first.Run("lxc", "delete", "local:"+name)
	}
	first.Run("lxc", "init", "local:busybox", "local:d1", "--target", "m1")
	first.Run("lxc", "init", "local:busybox", "local:d2")
	if at := where("d2"); at != "m3" {
		t.Errorf("the second instance is on %s; want it in the other failure domain", at)
	}
}

// Labels draw instances together or apart.
func TestAffinity(t *testing.T) {
	t.Parallel()
	members := trio(t)
	first, second := members[0], members[1]
	first.Busybox()
	where := func(name string) string {
		t.Helper()
		return strings.TrimSpace(second.Run("lxc", "list", "local:^"+name+"$", "--format=csv", "-c", "L"))
	}
	first.Run("lxc", "init", "local:busybox", "local:db", "-c", "scheduler.labels=db")
	first.Run("lxc", "init", "local:busybox", "local:web", "-c", "scheduler.affinity=db")
	if db, web := where("db"), where("web"); db != web {
		t.Errorf("web is on %s and the db that it wants to be near on %s", web, db)
	}
	homes := map[string]bool{}
	for _, name := range []string{"r1", "r2", "r3"} {
		second.Run("lxc", "init", "local:busybox", "local:"+name, "-c", "scheduler.labels=replica", "-c", "scheduler.anti_affinity=replica")
		homes[where(name)] = true
	}
	if len(homes) != 3 {
		t.Errorf("replicas that want to be apart are on %v", homes)
	}
	answer, err := first.Request(t.Context(), http.MethodPost, "/1.0/instances", map[string]any{"config": map[string]string{"scheduler.labels": "a b/c"}, "source": map[string]any{"type": "none"}}, nil)
	if err != nil || answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, "scheduler.labels") {
		t.Errorf("a bad label: %d %q, %v", answer.Code, answer.Error, err)
	}
}
