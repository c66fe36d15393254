package failover

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"muster/test/lab"
)

// TestNoFalseVerdict watches a cluster while every processor of the machine is busy:
// nobody is to be called offline. It lasts 15 seconds, or as many minutes as
// MUSTER_VERDICT_MINUTES says.
func TestNoFalseVerdict(t *testing.T) {
	lab.NeedsRoot(t)
	length := 15 * time.Second
	if value := os.Getenv("MUSTER_VERDICT_MINUTES"); value != "" {
		minutes, err := strconv.Atoi(value)
		if err != nil {
			t.Fatal(err)
		}
		length = time.Duration(minutes) * time.Minute
	}
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t), NoInit: true})
	type shown struct {
		ServerName string `json:"server_name"`
		Status     string `json:"status"`
	}
	look := func(m *lab.Member) []shown {
		var list []shown
		if err := m.Get(t.Context(), "/1.0/cluster/members?recursion=1", &list); err != nil {
			t.Errorf("the list of members: %v", err)
		}
		return list
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		online := 0
		for _, one := range look(members[0]) {
			if one.Status == "Online" {
				online++
			}
		}
		if online == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the members do not come online")
		}
	}
	for range runtime.NumCPU() {
		burner := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
		if err := burner.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = burner.Wait() }) // it is killed with the context
	}
	looks := 0
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for i, m := range members {
			looks++
			for _, one := range look(m) {
				if one.Status != "Online" {
					t.Errorf("after %v m%d shows %s as %s", length-time.Until(end), i+1, one.ServerName, one.Status)
				}
			}
		}
	}
	t.Logf("%d looks at the members in %v", looks, length)
}
