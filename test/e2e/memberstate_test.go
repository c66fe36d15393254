package e2e

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"muster/rpc/rest/api"
	"muster/test/lab"
)

// Any member tells how each of them is doing, and soon that one is away.
func TestMemberState(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t)})
	first, third := members[0], members[2]
	status(t, first, "m1 Online", "m2 Online", "m3 Online")
	for _, name := range []string{"m1", "m3"} {
		var shown api.ClusterMemberState
		eventually(t, func() string {
			if err := first.Get(t.Context(), "/1.0/cluster/members/"+name+"/state", &shown); err != nil {
				return err.Error()
			}
			if len(shown.StoragePools) == 0 {
				return name + " has no part of the pool yet"
			}
			return ""
		})
		info, space := shown.SysInfo, shown.StoragePools["default"].Space
		if info.Uptime <= 0 || len(info.LoadAverages) != 3 || info.FreeRAM == 0 || info.FreeRAM > info.TotalRAM || info.Processes == 0 {
			t.Errorf("%s: %+v; want what this machine does", name, info)
		}
		if space.Total == 0 || space.Used == 0 || space.Used > space.Total {
			t.Errorf("%s: the pool's space is %+v", name, space)
		}
		if out := third.Muster("cluster", "info", name); !strings.Contains(out, "server_name: "+name) || !strings.Contains(out, "total_ram: ") {
			t.Errorf("cluster info %s: %s", name, out)
		}
	}
	if _, err := os.Stat("/usr/bin/lxc"); err == nil {
		if out := first.Run("lxc", "query", "local:/1.0/cluster/members/m2/state"); !strings.Contains(out, "load_averages") {
			t.Errorf("lxc query: %s", out)
		}
	}
	// While databases are handed out, the one that goes may be needed for a quorum.
	eventually(t, func() string {
		rows, err := first.Rows(t.Context())
		if err != nil {
			return err.Error()
		}
		for _, row := range rows {
			if len(row.Roles) == 0 {
				return row.Name + " holds no database yet"
			}
		}
		return ""
	})
	third.Kill()
	status(t, first, "m1 Online", "m2 Online", "m3 Offline")
	began := time.Now()
	for name, want := range map[string]int{"m3": http.StatusOK, "m9": http.StatusNotFound, "m2": http.StatusOK} {
		answer, err := first.Request(t.Context(), http.MethodGet, "/1.0/cluster/members/"+name+"/state", nil, nil)
		if err != nil || answer.Code != want {
			t.Errorf("%s: %d %q, %v; want %d", name, answer.Code, answer.Error, err, want)
		}
	}
	t.Logf("three answers, one about a member that is away, took %v", time.Since(began))
	if out := first.Muster("cluster", "info", "m3"); !strings.Contains(out, "status: Offline") {
		t.Errorf("cluster info of a member that is away: %s", out)
	}
	// Ready is said when nobody calls it offline any more.
	third.Up()
	for _, row := range rows(t, first, 3, func(lab.Row) bool { return true }) {
		if row.Status != "Online" {
			t.Errorf("just after it was ready, %s is %s: %s", row.Name, row.Status, row.Message)
		}
	}
}
