package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"muster/test/lab"
)

// says runs a client and returns what it printed on both.
func says(t *testing.T, m *lab.Member, program string, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := m.Command(program, args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Errorf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out.String(), problems.String())
	}
	return out.String(), problems.String()
}

// What is on a member that nobody can ask is shown as that, with what was known of it last;
// without a majority nothing is called healthy that can't be known.
func TestWhatCantBeKnown(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t)})
	first, second, third := members[0], members[1], members[2]
	first.Busybox()
	first.Muster("launch", "busybox", "c1", "--target", "m1")
	first.Muster("launch", "busybox", "c2", "--target", "m2")
	type shown struct {
		Name, Status    string
		StatusCode      int    `json:"status_code"`
		LastKnownStatus string `json:"last_known_status"`
		State           *struct{ Status string }
	}
	line := func(one shown) string {
		text := fmt.Sprintf("%s %s %d %s", one.Name, one.Status, one.StatusCode, one.LastKnownStatus)
		if one.State != nil {
			text += " " + one.State.Status
		}
		return strings.TrimSpace(text)
	}
	// shows wants the instances so in every list.
	shows := func(m *lab.Member, want ...string) {
		t.Helper()
		for _, recursion := range []string{"1", "2"} {
			eventually(t, func() string {
				var found []shown
				if err := m.Get(t.Context(), "/1.0/instances?recursion="+recursion, &found); err != nil {
					return err.Error()
				}
				for i, one := range found {
					one.State = nil
					if i >= len(want) || line(one) != want[i] {
						return fmt.Sprintf("recursion %s shows %q; want %q", recursion, line(one), want)
					}
				}
				return ""
			})
		}
		for i, name := range []string{"c1", "c2"} {
			for _, query := range []string{"", "?recursion=1"} {
				var one shown
				if err := m.Get(t.Context(), "/1.0/instances/"+name+query, &one); err != nil {
					t.Error(err)
				}
				state := one.State
				one.State = nil
				if line(one) != want[i] || query != "" && (state == nil || state.Status != one.Status) {
					t.Errorf("GET %s%s shows %q and the state %v; want %q", name, query, line(one), state, want[i])
				}
			}
		}
	}
	shows(third, "c1 Running 103", "c2 Running 103")

	second.Kill()
	status(t, third, "m1 Online", "m2 Offline", "m3 Online")
	shows(third, "c1 Running 103", "c2 Error 112 Running")
	var one shown
	if err := third.Get(t.Context(), "/1.0/instances/c2/state", &one); err != nil || one.Status != "Error" {
		t.Errorf("the state of an instance on an offline member: %+v, %v", one, err)
	}
	var found []shown
	if err := third.Get(t.Context(), "/1.0/instances?recursion=1&filter=status%20eq%20Error", &found); err != nil || len(found) != 1 || found[0].Name != "c2" {
		t.Errorf("those in error are %+v, %v; want c2", found, err)
	}
	var machine struct {
		Sysinfo struct {
			TotalRAM uint64 `json:"total_ram"`
		}
	}
	if err := third.Get(t.Context(), "/1.0/cluster/members/m2/state", &machine); err != nil || machine.Sysinfo.TotalRAM == 0 {
		t.Errorf("the state of an offline member: %+v, %v; want what is recorded", machine, err)
	}
	if err := third.Get(t.Context(), "/1.0/storage-pools/default/volumes/container/c2", &struct{}{}); err != nil {
		t.Errorf("a volume of an offline member: %v", err)
	}
	if out, _ := says(t, third, "muster", "list", "--format", "csv", "-c", "ns"); !strings.Contains(out, "c2,ERROR") {
		t.Errorf("muster list shows\n%s", out)
	}
	if _, err := exec.LookPath("lxc"); err == nil {
		if out, _ := says(t, third, "lxc", "info", "local:c2"); !strings.Contains(out, "Status: ERROR") || !strings.Contains(out, "Location: m2") {
			t.Errorf("lxc info shows\n%s", out)
		}
		if out, _ := says(t, third, "lxc", "list", "local:", "--format", "csv", "-c", "ns"); !strings.Contains(out, "c2,ERROR") {
			t.Errorf("lxc list shows\n%s", out)
		}
	}

	first.Kill()
	eventually(t, func() string {
		var rows []struct {
			member
			Message string
		}
		if err := third.Get(t.Context(), "/1.0/cluster/members?recursion=1", &rows); err != nil {
			return err.Error()
		}
		// The verdict on m2 stands; nobody can give one on m1.
		for i, want := range []string{"Unreachable", "Offline", "Online"} {
			if rows[i].Status != want || want != "Offline" && !strings.Contains(rows[i].Message, "No majority of the database members for") {
				return fmt.Sprintf("%+v is shown; want %s, and since when nothing can be known", rows[i], want)
			}
		}
		return ""
	})
	shows(third, "c1 Error 112 Running", "c2 Error 112 Running")
	out, warned := says(t, third, "muster", "cluster", "list")
	if !strings.Contains(out, "UNREACHABLE") || !strings.Contains(warned, "Warning:") || strings.Count(warned, "no majority") != 1 {
		t.Errorf("muster cluster list prints\n%s\nand warns %q", out, warned)
	}
	if _, err := exec.LookPath("lxc"); err == nil {
		if out, _ := says(t, third, "lxc", "cluster", "list", "local:"); !strings.Contains(out, "UNREACHABLE") || !strings.Contains(out, "No majority") {
			t.Errorf("lxc cluster list shows\n%s", out)
		}
		if out, _ := says(t, third, "lxc", "list", "local:"); strings.Count(out, "ERROR") != 2 {
			t.Errorf("lxc list shows\n%s", out)
		}
	}
	if answer, err := third.Request(t.Context(), http.MethodGet, "/1.0/cluster/members", nil, nil); err != nil || answer.Header.Get("Muster-Stale") == "" {
		t.Errorf("the list is not marked as stale: %v", err)
	}

	first.Up()
	second.Up()
	status(t, third, "m1 Online", "m2 Online", "m3 Online")
	shows(third, "c1 Running 103", "c2 Running 103")
	if _, warned := says(t, third, "muster", "cluster", "list"); warned != "" {
		t.Errorf("with a majority muster warns %q", warned)
	}
}
