package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// A database's leader whose disk is full ends, so that another leads: what is
// acknowledged is kept, and once there is room again it is as good as new.
func TestALeaderWithAFullDisk(t *testing.T) {
	members := lab.ClusterOf(t, 3, lab.Options{NoInit: true, Network: lab.NewNetwork(t), Disk: 160 << 20})
	for _, m := range members {
		status(t, m, "m1 Online", "m2 Online", "m3 Online")
	}
	full := leader(t, members[0])
	other := members[(full+1)%3]
	members[full].FillDisk()
	var made []string
	const wanted = 300
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	// Together they are more than the log has room for without asking for more.
	for i := 0; len(made) < wanted && ctx.Err() == nil; i++ {
		name := fmt.Sprintf("p%d", i)
		if _, err := other.Do(ctx, http.MethodPost, "/1.0/profiles", map[string]any{"name": name, "description": fmt.Sprintf("%030000d", i)}); err == nil {
			made = append(made, name)
		}
	}
	if len(made) < wanted {
		t.Errorf("within a minute %d profiles were made; want %d", len(made), wanted)
	}
	if !members[full].Ended() {
		t.Error("the member whose disk is full goes on")
	} else if log := members[full].Log(); !strings.Contains(log, "make room on the disk") {
		t.Errorf("it ended with\n%s\nwant a word about the disk", log)
	}
	members[full].FreeDisk()
	if members[full].Ended() {
		members[full].Up()
	}
	for i, m := range members {
		status(t, m, "m1 Online", "m2 Online", "m3 Online")
		for _, name := range made {
			if err := m.Get(t.Context(), "/1.0/profiles/"+name, &struct{}{}); err != nil {
				t.Errorf("profile %s through m%d: %v", name, i+1, err)
			}
		}
	}
}
