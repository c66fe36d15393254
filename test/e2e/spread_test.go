package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/test/lab"
)

// Instances, images, pools and networks are on every member, and it does not matter
// which of them is asked.
func TestInstancesOnEveryMember(t *testing.T) {
	t.Parallel()
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 3, lab.Options{Network: network})
	first, second, third := members[0], members[1], members[2]
	for _, m := range members {
		status(t, m, "m1 Online", "m2 Online", "m3 Online")
	}
	third.Busybox()

	type part struct {
		Name, Status string
		Config       map[string]string
		Locations    []string
	}
	get := func(m *lab.Member, path string) part {
		t.Helper()
		var shown part
		if err := m.Get(t.Context(), path, &shown); err != nil {
			t.Fatal(err)
		}
		return shown
	}
	var bridge string
	t.Run("pools and networks came with the members", func(t *testing.T) {
		var networks []struct {
			Name    string
			Managed bool
		}
		if err := first.Get(t.Context(), "/1.0/networks?recursion=1", &networks); err != nil {
			t.Fatal(err)
		}
		for _, n := range networks {
			if n.Managed {
				bridge = n.Name
			}
		}
		everywhere := []string{"m1", "m2", "m3"}
		for _, path := range []string{"/1.0/storage-pools/default", "/1.0/networks/" + bridge} {
			eventually(t, func() string {
				shown := get(second, path)
				return cmp.Diff(part{Name: shown.Name, Status: "Created", Config: shown.Config, Locations: everywhere}, shown)
			})
		}
		if shown := get(second, "/1.0/storage-pools/default"); shown.Config["source"] != "" {
			t.Errorf("the whole pool shows a member's source %q", shown.Config["source"])
		}
		if shown := get(second, "/1.0/storage-pools/default?target=m3"); !strings.HasPrefix(shown.Config["source"], third.Dir) {
			t.Errorf("the pool on m3 has the source %q; want one in %s", shown.Config["source"], third.Dir)
		}
	})

	t.Run("a deleted image leaves nothing on any member", func(t *testing.T) {
		second.Run("lxc", "init", "--empty", "local:short", "--target", "m2")
		second.Run("lxc", "publish", "local:short", "local:", "--alias", "short")
		second.Run("lxc", "delete", "local:short")
		first.Run("lxc", "init", "local:short", "local:shorter", "--target", "m1") // which fetches it
		first.Run("lxc", "delete", "local:shorter")
		var alias struct{ Target string }
		if err := third.Get(t.Context(), "/1.0/images/aliases/short", &alias); err != nil {
			t.Fatal(err)
		}
		kept := func() (on []string) {
			for i, m := range members {
				if found, _ := filepath.Glob(filepath.Join(m.Dir, "images", alias.Target+"*")); len(found) > 0 {
					on = append(on, fmt.Sprintf("m%d", i+1))
				}
			}
			return on
		}
		if on := kept(); !slices.Contains(on, "m1") || !slices.Contains(on, "m2") {
			t.Fatalf("the image is on %v; want m1 and m2 at least", on)
		}
		third.Run("lxc", "image", "delete", "local:short")
		eventually(t, func() string {
			if on := kept(); len(on) > 0 {
				return fmt.Sprintf("the files of the deleted image are on %v", on)
			}
			return ""
		})
	})

	t.Run("new instances are spread, run and are reached through anyone", func(t *testing.T) {
		for i := range 6 {
			m := members[i%3]
			if out := m.Run("lxc", "launch", "local:busybox", fmt.Sprintf("local:c%d", i)); !strings.Contains(out, "Starting") {
				t.Errorf("lxc launch printed %q", out)
			}
		}
		for _, m := range members {
			count := map[string]int{}
			for line := range strings.Lines(m.Run("lxc", "list", "local:", "--format=csv", "-c", "nsL")) {
				fields := strings.Split(strings.TrimSpace(line), ",")
				if fields[1] != "RUNNING" {
					t.Errorf("%s is %s", fields[0], fields[1])
				}
				count[fields[2]]++
			}
			if diff := cmp.Diff(map[string]int{"m1": 2, "m2": 2, "m3": 2}, count); diff != "" {
				t.Errorf("instances by member (-want +got):\n%s", diff)
			}
		}
		eventually(t, func() string {
			if out := second.Run("lxc", "list", "local:", "--format=csv", "-c", "4"); strings.Count(out, "eth0") != 6 {
				return "addresses by DHCP: " + out
			}
			return ""
		})
		for i := range 6 {
			m := members[(i+1)%3]
			if out := m.Run("lxc", "exec", fmt.Sprintf("local:c%d", i), "--", "hostname"); strings.TrimSpace(out) != fmt.Sprintf("c%d", i) {
				t.Errorf("hostname in c%d is %q", i, out)
			}
		}
	})

	t.Run("where an instance goes can be said and explained", func(t *testing.T) {
		first.Run("lxc", "init", "local:busybox", "local:there", "--target", "m2")
		if out := third.Run("lxc", "list", "local:there", "--format=csv", "-c", "L"); out != "m2\n" {
			t.Errorf("there is on %q", out)
		}
		body := map[string]any{"name": "x", "source": map[string]any{"type": "none"}, "config": map[string]string{"limits.memory": "900TiB"}}
		for _, tc := range []struct {
			query, want string
			code        int
		}{
			{"", "short of memory", http.StatusConflict},
			{"?target=nobody", `"nobody" not found`, http.StatusNotFound},
			{"?target=@nogroup", `cluster group "nogroup" not found`, http.StatusNotFound},
		} {
			answer, err := first.Request(t.Context(), http.MethodPost, "/1.0/instances"+tc.query, body, nil)
			if err != nil || answer.Code != tc.code || !strings.Contains(answer.Error, tc.want) {
				t.Errorf("POST /1.0/instances%s: %d %q, %v; want %d and %q", tc.query, answer.Code, answer.Error, err, tc.code, tc.want)
			}
		}
		answer, err := second.Request(t.Context(), http.MethodPost, "/1.0/instances?dry-run", body, nil)
		var explained struct {
			Member, Error string
			Members       []struct{ Member, Filter string }
		}
		if err == nil {
			err = json.Unmarshal(answer.Metadata, &explained)
		}
		if err != nil || explained.Member != "" || len(explained.Members) != 3 || explained.Members[0].Filter != "capacity" {
			t.Errorf("the dry run explains %+v, %v; want three members refused for their capacity", explained, err)
		}
		if _, err := second.Do(t.Context(), http.MethodPatch, "/1.0/cluster/members/m2", map[string]any{"config": map[string]string{"scheduler.instance": "manual"}}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			first.Run("lxc", "init", "local:busybox", "local:")
		}
		if out := third.Run("lxc", "list", "local:", "--format=csv", "-c", "L"); strings.Count(out, "m2") != 3 {
			t.Errorf("a member with scheduler.instance=manual took instances by itself: %s", out)
		}
		if _, err := second.Do(t.Context(), http.MethodPatch, "/1.0/cluster/members/m2", map[string]any{"config": map[string]string{"scheduler.instance": ""}}); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("an image comes to all members", func(t *testing.T) {
		eventually(t, func() string {
			var table struct{ Rows [][]any }
			asked := members[leader(t, first)]
			answer, err := asked.Request(t.Context(), http.MethodPost, "/internal/sql", map[string]any{"query": "SELECT member FROM image_members"}, nil)
			if err == nil {
				err = json.Unmarshal(answer.Metadata, &table)
			}
			if err != nil || len(table.Rows) != 3 {
				return fmt.Sprintf("the image is on %v, %v %s", table.Rows, err, answer.Error)
			}
			return ""
		})
	})

	t.Run("a profile changes instances on other members", func(t *testing.T) {
		first.Run("lxc", "profile", "device", "add", "local:default", "shared", "disk", "source=/etc", "path=/mnt/shared")
		eventually(t, func() string {
			for i := range 6 {
				out := second.Run("lxc", "exec", fmt.Sprintf("local:c%d", i), "--", "sh", "-c", "ls /mnt/shared || true")
				if !strings.Contains(out, "passwd") {
					return fmt.Sprintf("c%d has %q where the profile puts a disk", i, out)
				}
			}
			return ""
		})
		first.Run("lxc", "profile", "device", "remove", "local:default", "shared")
		for name, devices := range map[string]any{
			"root disk":    map[string]any{},
			"storage pool": map[string]any{"root": map[string]string{"type": "disk", "path": "/", "pool": "elsewhere"}},
		} {
			answer, err := first.Request(t.Context(), http.MethodPut, "/1.0/profiles/default", map[string]any{"devices": devices}, nil)
			if err != nil || answer.Code < 400 || answer.Code >= 500 || !strings.Contains(answer.Error, name) {
				t.Errorf("a profile that takes the %s away: %d %q, %v", name, answer.Code, answer.Error, err)
			}
		}
	})

	t.Run("pools are made part by part or at once", func(t *testing.T) {
		for i := range members {
			first.Run("lxc", "storage", "create", "local:parts", "dir", "--target", fmt.Sprintf("m%d", i+1))
		}
		if shown := get(second, "/1.0/storage-pools/parts"); shown.Status != "Pending" {
			t.Errorf("a pool that is defined is %q", shown.Status)
		}
		if answer, err := first.Request(t.Context(), http.MethodPost, "/1.0/storage-pools?target=m1", map[string]any{"name": "parts", "driver": "dir"}, nil); err != nil || answer.Code != http.StatusConflict {
			t.Errorf("a part defined twice: %d, %v; want 409", answer.Code, err)
		}
		third.Run("lxc", "storage", "create", "local:parts", "dir")
		if shown := get(second, "/1.0/storage-pools/parts"); shown.Status != "Created" || len(shown.Locations) != 3 {
			t.Errorf("the pool is %+v", shown)
		}
		second.Run("lxc", "storage", "delete", "local:parts")
		second.Run("lxc", "storage", "create", "local:once", "btrfs", "size=300MiB")
		first.Run("lxc", "init", "local:busybox", "local:onbtrfs", "--target", "m3", "-s", "once")
		if answer, err := first.Request(t.Context(), http.MethodDelete, "/1.0/storage-pools/once", nil, nil); err != nil || answer.Code != http.StatusConflict {
			t.Errorf("a pool in use was deleted: %d, %v", answer.Code, err)
		}
		first.Run("lxc", "delete", "local:onbtrfs")
		third.Run("lxc", "storage", "delete", "local:once")
		for name, body := range map[string]map[string]any{
			"source":            {"name": "bad", "driver": "dir", "config": map[string]string{"source": "/srv"}},
			"rsync.compression": {"name": "bad", "driver": "dir", "config": map[string]string{"rsync.compression": "x"}},
		} {
			answer, err := first.Request(t.Context(), http.MethodPost, "/1.0/storage-pools", body, nil)
			if err != nil || answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, name) {
				t.Errorf("a pool with %s: %d %q, %v; want 400", name, answer.Code, answer.Error, err)
			}
		}
	})

	t.Run("networks are on every member", func(t *testing.T) {
		first.Run("lxc", "network", "create", "local:second", "ipv6.address=none", "ipv4.address=10.213.7.1/24")
		second.Run("lxc", "network", "set", "local:second", "ipv4.dhcp.expiry", "30m")
		for i := range members {
			var shown struct {
				State     string
				Addresses []struct{ Address string }
			}
			if err := third.Get(t.Context(), fmt.Sprintf("/1.0/networks/second/state?target=m%d", i+1), &shown); err != nil ||
				!slices.ContainsFunc(shown.Addresses, func(a struct{ Address string }) bool { return a.Address == "10.213.7.1" }) {
				t.Errorf("the network on m%d: %+v, %v", i+1, shown, err)
			}
		}
		third.Run("lxc", "network", "delete", "local:second")
		for i := range members {
			answer, err := first.Request(t.Context(), http.MethodGet, fmt.Sprintf("/1.0/networks/second/state?target=m%d", i+1), nil, nil)
			if err != nil || answer.Code != http.StatusNotFound {
				t.Errorf("the deleted network on m%d: %d, %v; want 404", i+1, answer.Code, err)
			}
		}
	})

	t.Run("a copy, a publication and a bulk change find their members", func(t *testing.T) {
		second.Run("lxc", "copy", "local:there", "local:copied")
		if out := third.Run("lxc", "list", "local:copied", "--format=csv", "-c", "L"); out != "m2\n" {
			t.Errorf("the copy is on %q; want it beside its source", out)
		}
		first.Run("lxc", "publish", "local:there", "local:", "--alias", "published")
		second.Run("lxc", "stop", "--all", "--force", "local:")
		if out := third.Run("lxc", "list", "local:", "--format=csv", "-c", "s"); strings.Contains(out, "RUNNING") {
			t.Errorf("after lxc stop --all: %s", out)
		}
	})

	t.Run("a member that is away takes nothing from the others", func(t *testing.T) {
		first.Run("lxc", "start", "local:c0", "local:c1", "local:c2")
		third.Kill()
		status(t, first, "m1 Online", "m2 Online", "m3 Offline")
		began := time.Now()
		var rows []struct {
			Name, Location string
			State          *struct{ Status string }
		}
		if err := first.Get(t.Context(), "/1.0/instances?recursion=2", &rows); err != nil {
			t.Fatal(err)
		}
		t.Logf("the list took %v", time.Since(began))
		known := 0
		for _, row := range rows {
			if row.State == nil || (row.State.Status == "Error") != (row.Location == "m3") {
				t.Errorf("%s on %s: state %+v; want Error of the member that is away only", row.Name, row.Location, row.State)
			}
			if row.Location == "m3" {
				known++
			}
		}
		if known == 0 {
			t.Errorf("the instances of the member that is away are not listed: %+v", rows)
		}
		second.Run("lxc", "storage", "create", "local:late", "dir")
		for range 2 {
			second.Run("lxc", "init", "local:busybox", "local:")
		}
		if answer, err := first.Request(t.Context(), http.MethodPost, "/1.0/instances?target=m3", map[string]any{"source": map[string]any{"type": "none"}}, nil); err != nil || answer.Code != http.StatusServiceUnavailable {
			t.Errorf("an instance on a member that is away: %d %q, %v; want 503", answer.Code, answer.Error, err)
		}
		third.Up()
		eventually(t, func() string {
			if shown := get(third, "/1.0/storage-pools/late"); shown.Status != "Created" {
				return "the pool made meanwhile is " + shown.Status
			}
			return ""
		})
		status(t, first, "m1 Online", "m2 Online", "m3 Online")
		first.Run("lxc", "storage", "delete", "local:late")
	})
}
