package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/test/lab"
)

// writes makes profiles of 20 kB through all the members until stop is called, and returns
// those that were acknowledged.
func writes(t *testing.T, members []*lab.Member, prefix string) (stop func() []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var made []string
	var writing sync.WaitGroup
	for n := range 6 {
		writing.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("%s-%d-%d", prefix, n, i)
				_, err := members[n%len(members)].Do(ctx, http.MethodPost, "/1.0/profiles", map[string]any{"name": name, "description": strings.Repeat("x", 20_000)})
				if err == nil {
					mu.Lock()
					made = append(made, name)
					mu.Unlock()
				}
			}
		})
	}
	return func() []string {
		cancel()
		writing.Wait()
		return made
	}
}

// statusOf is a member's status and message as another shows it.
func statusOf(t *testing.T, through *lab.Member, name string) string {
	t.Helper()
	var members []struct {
		member
		Message string
	}
	if err := through.Get(t.Context(), "/1.0/cluster/members?recursion=1", &members); err != nil {
		return err.Error()
	}
	for _, one := range members {
		if one.ServerName == name {
			return one.Status + ": " + one.Message
		}
	}
	return "none"
}

// A log whose disk refuses writes for a while is closed and opened again, by itself. Its
// member says so, the others go on, nothing that was acknowledged is lost, and the member
// is then as good as any: the others' leader may be killed.
func TestADiskThatRefusesWritesForAWhile(t *testing.T) {
	for name, tc := range map[string]struct {
		leads  bool
		refuse func(*lab.Member) func()
		says   string
	}{
		"a follower's is full": {false, filled, "is full"},
		"the leader's is full": {true, filled, "is full"},
		"a follower's fails":   {false, (*lab.Member).FailDisk, "input/output error"},
		"the leader's fails":   {true, (*lab.Member).FailDisk, "input/output error"},
	} {
		t.Run(name, func(t *testing.T) {
			members := lab.ClusterOf(t, 3, lab.Options{NoInit: true, Network: lab.NewNetwork(t), Disk: 400 << 20})
			for _, m := range members {
				status(t, m, "m1 Online", "m2 Online", "m3 Online")
			}
			sick := leader(t, members[0])
			if !tc.leads {
				sick = (sick + 1) % 3
			}
			well := []*lab.Member{members[(sick+1)%3], members[(sick+2)%3]}
			called := fmt.Sprintf("m%d", sick+1)
			began := time.Now()
			say := func(what string) { t.Logf("%5.1f s: %s", time.Since(began).Seconds(), what) }
			stop := writes(t, members, "meanwhile")
			mend := tc.refuse(members[sick])
			say("the disk refuses writes")
			for _, m := range members {
				eventually(t, func() string {
					if got := statusOf(t, m, called); !strings.HasPrefix(got, "Blocked") || !strings.Contains(got, tc.says) {
						return got
					}
					return ""
				})
			}
			say("all show the member as blocked")
			time.Sleep(5 * time.Second) //nolint:forbidigo // segments are used up meanwhile
			made := stop()
			say(fmt.Sprintf("%d values were acknowledged", len(made)))
			mend()
			say("the disk takes writes again")
			for _, m := range members {
				status(t, m, "m1 Online", "m2 Online", "m3 Online")
			}
			eventually(t, func() string {
				if got := statusOf(t, well[0], called); got != "Online: Fully operational" {
					return got
				}
				return ""
			})
			say("all show the member as well")
			stop = writes(t, members, "after")
			time.Sleep(time.Second) //nolint:forbidigo // for something to be acknowledged
			made = append(made, stop()...)
			killed := leader(t, well[0])
			members[killed].Kill()
			say(fmt.Sprintf("m%d leads and is killed", killed+1))
			left := slices.Delete(slices.Clone(members), killed, killed+1)
			eventually(t, func() string {
				_, err := left[0].Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": "last"})
				if err != nil && !strings.Contains(err.Error(), "exists") {
					return err.Error()
				}
				return ""
			})
			say("a write is acknowledged")
			members[killed].Up()
			for i, m := range members {
				eventually(t, func() string {
					var found []string
					if err := m.Get(t.Context(), "/1.0/profiles", &found); err != nil {
						return err.Error()
					}
					for _, name := range made {
						if !slices.Contains(found, "/1.0/profiles/"+name) {
							return fmt.Sprintf("m%d has lost profile %s, which was acknowledged", i+1, name)
						}
					}
					return ""
				})
			}
		})
	}
}

// filled fills a member's disk until it is called back.
func filled(m *lab.Member) (free func()) {
	m.FillDisk()
	return m.FreeDisk
}

// A guest that writes throughout fills the disk of a server. Stopping and deleting it works
// all the same; nothing else is taken, and everything once there is room.
func TestAFullDiskIsFreedByDeleting(t *testing.T) {
	m := lab.Start(t, lab.Options{Network: lab.NewNetwork(t), Disk: 400 << 20})
	m.Busybox()
	for _, name := range []string{"writer", "quiet"} {
		if err := m.Launch(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	held := func() int64 {
		var size int64
		for _, log := range []string{"database", "raft"} {
			info, err := os.Stat(filepath.Join(m.Dir, log, "reserve"))
			if err != nil {
				t.Fatal(err)
			}
			size += info.Size()
		}
		return size
	}
	eventually(t, func() string {
		if held() < 44<<20 {
			return "the room for a full disk is not kept yet"
		}
		return ""
	})
	m.Muster("exec", "writer", "--", "sh", "-c", "while true; do cat /dev/zero >> /root/file 2>/dev/null; done >/dev/null 2>&1 &")
	profile := func(name string) error {
		_, err := m.Do(t.Context(), http.MethodPost, "/1.0/profiles", map[string]any{"name": name})
		return err
	}
	eventuallyWithin(t, time.Minute, func() string {
		if err := profile(fmt.Sprintf("p%d", time.Now().UnixNano())); err == nil || !strings.Contains(err.Error(), "only stopping and deleting works") {
			return fmt.Sprintf("a profile can be made on a full disk: %v", err)
		}
		return ""
	})
	m.Muster("list") // it answers
	m.Muster("stop", "--force", "writer")
	m.Muster("delete", "writer")
	eventually(t, func() string {
		if err := profile("taken"); err != nil && !strings.Contains(err.Error(), "exists") {
			return err.Error()
		}
		return ""
	})
	eventually(t, func() string {
		if held() < 44<<20 {
			return "the room for a full disk is not kept again"
		}
		return ""
	})
	if got := m.Muster("exec", "quiet", "--", "echo", "it runs on"); !strings.Contains(got, "it runs on") {
		t.Errorf("the other instance says %q", got)
	}
}

// Three disks that are full lose nothing: deleting works, nothing else is taken, and all is
// well again when there is room, also for a member that was killed meanwhile.
func TestThreeFullDisks(t *testing.T) {
	members := lab.ClusterOf(t, 3, lab.Options{NoInit: true, Network: lab.NewNetwork(t), Disk: 400 << 20})
	for _, m := range members {
		status(t, m, "m1 Online", "m2 Online", "m3 Online")
	}
	stop := writes(t, members, "before")
	for _, m := range members {
		eventually(t, func() string {
			for _, log := range []string{"database", "raft"} {
				if info, err := os.Stat(filepath.Join(m.Dir, log, "reserve")); err != nil || info.Size() < 12<<20 {
					return "the room for a full disk is not kept yet"
				}
			}
			return ""
		})
	}
	made := stop()
	for _, m := range members {
		m.FillDisk()
	}
	do := func(m *lab.Member, method, path string, body any) error {
		_, err := m.Do(t.Context(), method, path, body)
		return err
	}
	eventuallyWithin(t, time.Minute, func() string {
		err := do(members[0], http.MethodPost, "/1.0/profiles", map[string]any{"name": fmt.Sprintf("p%d", time.Now().UnixNano())})
		if err == nil || !strings.Contains(err.Error(), "only stopping and deleting works") {
			return fmt.Sprintf("a profile can be made on full disks: %v", err)
		}
		return ""
	})
	gone := made[0]
	eventuallyWithin(t, time.Minute, func() string {
		err := do(members[1], http.MethodDelete, "/1.0/profiles/"+gone, nil)
		if err != nil && !strings.Contains(err.Error(), "not found") {
			return err.Error()
		}
		return ""
	})
	members[2].Kill()
	members[2].Up()
	for _, m := range members {
		m.FreeDisk()
	}
	for i, m := range members {
		status(t, m, "m1 Online", "m2 Online", "m3 Online")
		eventuallyWithin(t, time.Minute, func() string {
			err := do(m, http.MethodPost, "/1.0/profiles", map[string]any{"name": fmt.Sprintf("after-%d", i)})
			if err != nil && !strings.Contains(err.Error(), "exists") {
				return err.Error()
			}
			return ""
		})
		var found []string
		if err := m.Get(t.Context(), "/1.0/profiles", &found); err != nil {
			t.Fatal(err)
		}
		for _, name := range made[1:] {
			if !slices.Contains(found, "/1.0/profiles/"+name) {
				t.Fatalf("m%d has lost profile %s, which was acknowledged", i+1, name)
			}
		}
		if slices.Contains(found, "/1.0/profiles/"+gone) {
			t.Errorf("m%d has profile %s, which was deleted", i+1, gone)
		}
	}
}
