package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// An instance goes to another member with all it has, and a fault on the way leaves it
// where it was.
func TestMove(t *testing.T) {
	t.Parallel()
	network := lab.NewNetwork(t)
	members := lab.ClusterOf(t, 3, lab.Options{Network: network})
	first, second, third := members[0], members[1], members[2]
	for _, m := range members {
		status(t, m, "m1 Online", "m2 Online", "m3 Online")
	}
	first.Busybox()
	second.Run("lxc", "storage", "create", "local:plain", "dir")
	at := func(name, state, location string) {
		t.Helper()
		if out := third.Run("lxc", "list", "local:^"+name+"$", "--format=csv", "-c", "nsL"); out != name+","+state+","+location+"\n" {
			t.Errorf("%s is %q; want it %s on %s", name, out, state, location)
		}
	}
	exec := func(name, script string) string {
		t.Helper()
		return strings.TrimSpace(second.Run("lxc", "exec", "local:"+name, "--", "sh", "-c", script))
	}

	for _, pool := range []string{"default", "plain"} {
		t.Run("a stopped instance with its snapshots, in pool "+pool, func(t *testing.T) {
			name := "s-" + pool
			first.Run("lxc", "launch", "local:busybox", "local:"+name, "--target", "m1", "-s", pool)
			exec(name, "echo old > /root/f; dd if=/dev/urandom of=/root/big bs=1M count=20 2>/dev/null; chown 1000:1001 /root/big; ln /root/big /root/hard; mkfifo /root/p")
			sum := exec(name, "md5sum < /root/big")
			first.Run("lxc", "snapshot", "local:"+name, "before")
			exec(name, "echo new > /root/f")
			first.Run("lxc", "stop", "--force", "local:"+name)
			third.Run("lxc", "move", "local:"+name, "--target", "m2")
			at(name, "STOPPED", "m2")
			first.Run("lxc", "start", "local:"+name)
			if got := exec(name, "cat /root/f; stat -c '%u:%g %h' /root/big; md5sum < /root/hard; test -p /root/p && echo fifo"); got != "new\n1000:1001 2\n"+sum+"\nfifo" {
				t.Errorf("on m2 there is %q", got)
			}
			first.Run("lxc", "stop", "--force", "local:"+name)
			third.Run("lxc", "restore", "local:"+name, "before")
			first.Run("lxc", "start", "local:"+name)
			if got := exec(name, "cat /root/f"); got != "old" {
				t.Errorf("the snapshot has %q", got)
			}
			first.Run("lxc", "delete", "--force", "local:"+name)
		})
	}

	t.Run("a running instance goes on there", func(t *testing.T) {
		first.Run("lxc", "launch", "local:busybox", "local:r1", "--target", "m1")
		exec("r1", "dd if=/dev/urandom of=/root/big bs=1M count=50 2>/dev/null; echo 1 > /root/count")
		sum := exec("r1", "md5sum < /root/big")
		began := time.Now()
		third.Run("lxc", "move", "local:r1", "--target", "m3")
		t.Logf("moving a running instance with 50 MB took %v", time.Since(began))
		at("r1", "RUNNING", "m3")
		if got := exec("r1", "md5sum < /root/big; cat /root/count"); got != sum+"\n1" {
			t.Errorf("on m3 there is %q", got)
		}
		first.Run("lxc", "move", "local:r1", "local:r2", "--target", "m2")
		at("r2", "RUNNING", "m2")
		first.Run("lxc", "delete", "--force", "local:r2")
	})

	t.Run("a copy on another member", func(t *testing.T) {
		first.Run("lxc", "launch", "local:busybox", "local:src", "--target", "m1")
		exec("src", "echo one > /root/f; sync")
		first.Run("lxc", "snapshot", "local:src", "s0")
		exec("src", "echo two > /root/f; sync")
		second.Run("lxc", "copy", "local:src", "local:dst", "--target", "m3")
		second.Run("lxc", "copy", "local:src/s0", "local:dst0", "--target", "m2")
		at("dst", "STOPPED", "m3")
		at("dst0", "STOPPED", "m2")
		first.Run("lxc", "start", "local:dst", "local:dst0")
		if got := exec("dst", "cat /root/f"); got != "two" {
			t.Errorf("the copy has %q", got)
		}
		if got := exec("dst0", "cat /root/f"); got != "one" {
			t.Errorf("the copy of the snapshot has %q", got)
		}
		if out := first.Run("lxc", "info", "local:dst"); !strings.Contains(out, "s0") {
			t.Errorf("the copy lacks the snapshot:\n%s", out)
		}
		at("src", "RUNNING", "m1")
		first.Run("lxc", "delete", "--force", "local:src", "local:dst", "local:dst0")
	})

	// What the move left on m1 may just be going.
	t.Run("its name is free again where it came from", func(t *testing.T) {
		for range 5 {
			first.Run("lxc", "init", "local:busybox", "local:again", "--target", "m1")
			second.Run("lxc", "move", "local:again", "--target", "m2")
			third.Run("lxc", "delete", "local:again")
			first.Run("lxc", "launch", "local:busybox", "local:again", "--target", "m1")
			if out := exec("again", "echo here"); out != "here" {
				t.Errorf("exec printed %q", out)
			}
			first.Run("lxc", "delete", "--force", "local:again")
		}
	})

	t.Run("what can't be is refused", func(t *testing.T) {
		first.Run("lxc", "init", "local:busybox", "local:stay", "--target", "m1")
		for _, tc := range []struct {
			target, want string
			code         int
		}{
			{"m1", "is on member \"m1\" already", http.StatusBadRequest},
			{"m9", `"m9" not found`, http.StatusNotFound},
			{"@none", `cluster group "none" not found`, http.StatusNotFound},
		} {
			answer, err := second.Request(t.Context(), http.MethodPost, "/1.0/instances/stay?target="+tc.target, map[string]any{"name": "stay", "migration": true}, nil)
			if err != nil || answer.Code != tc.code || !strings.Contains(answer.Error, tc.want) {
				t.Errorf("to %s: %d %q, %v; want %d and %q", tc.target, answer.Code, answer.Error, err, tc.code, tc.want)
			}
		}
		at("stay", "STOPPED", "m1")
		first.Run("lxc", "delete", "local:stay")
	})

	// The moment is left to chance: whatever it is, the instance is in one place,
	// running, with all it has.
	for i, victim := range []*lab.Member{third, first} {
		t.Run(fmt.Sprintf("m%d dies in the middle", []int{3, 1}[i]), func(t *testing.T) {
			for round := range 3 {
				name := fmt.Sprintf("k%d%d", i, round)
				second.Run("lxc", "launch", "local:busybox", "local:"+name, "--target", "m1")
				exec(name, "dd if=/dev/urandom of=/root/big bs=1M count=40 2>/dev/null; sync")
				sum := exec(name, "md5sum < /root/big")
				answer, err := second.Request(t.Context(), http.MethodPost, "/1.0/instances/"+name+"?target=m3", map[string]any{"name": name, "migration": true}, nil)
				if err != nil || answer.Code != http.StatusAccepted {
					t.Fatalf("the move does not begin: %d %q, %v", answer.Code, answer.Error, err)
				}
				time.Sleep(time.Duration(60+300*round) * time.Millisecond)
				victim.Kill()
				status(t, second, []string{"m1 Online", "m1 Offline"}[i], "m2 Online", []string{"m3 Offline", "m3 Online"}[i])
				victim.Up()
				status(t, second, "m1 Online", "m2 Online", "m3 Online")
				eventually(t, func() string {
					out := second.Run("lxc", "list", "local:"+name, "--format=csv", "-c", "sL")
					if strings.HasPrefix(out, "RUNNING,") {
						return ""
					}
					return "the instance is " + out
				})
				t.Logf("%s ended as %s", name, strings.TrimSpace(second.Run("lxc", "list", "local:"+name, "--format=csv", "-c", "sL")))
				if got := exec(name, "md5sum < /root/big"); got != sum {
					t.Errorf("%s lost what it had", name)
				}
				eventually(t, func() string {
					if answer, err := second.Request(t.Context(), http.MethodPut, "/1.0/instances/"+name+"/state", map[string]any{"action": "stop", "force": true}, nil); err != nil || answer.Code != http.StatusAccepted {
						return fmt.Sprintf("the instance can't be stopped: %d %s, %v", answer.Code, answer.Error, err)
					}
					return ""
				})
				eventually(t, func() string {
					if out := second.Run("lxc", "list", "local:"+name, "--format=csv", "-c", "s"); out != "STOPPED\n" {
						return "the instance is " + out
					}
					return ""
				})
				second.Run("lxc", "delete", "local:"+name)
			}
		})
	}
	second.Run("lxc", "storage", "delete", "local:plain")
}
