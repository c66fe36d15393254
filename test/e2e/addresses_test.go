package e2e

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/test/lab"
)

// An address belongs to one instance of the cluster, and what an instance leaves on a
// member is released when it goes.
func TestAddresses(t *testing.T) {
	t.Parallel()
	members := lab.ClusterOf(t, 3, lab.Options{Network: lab.NewNetwork(t)})
	first, second, third := members[0], members[1], members[2]
	first.Busybox()
	first.Run("lxc", "network", "create", "local:lan0", "ipv4.address=10.234.5.1/24", "ipv6.address=none")
	first.Run("lxc", "init", "local:busybox", "local:c1", "--target", "m1", "-n", "lan0")
	first.Run("lxc", "config", "device", "set", "local:c1", "eth0", "ipv4.address=10.234.5.50", "hwaddr=00:16:3e:55:00:01")
	second.Run("lxc", "init", "local:busybox", "local:c2", "--target", "m2", "-n", "lan0")

	refused := func(m *lab.Member, want, method, path string, body any) {
		t.Helper()
		answer, err := m.Request(t.Context(), method, path, body, nil)
		if err != nil || answer.Code != http.StatusBadRequest || !strings.Contains(answer.Error, want) {
			t.Errorf("%s %s %v: %d %q, %v; want 400 with %q", method, path, body, answer.Code, answer.Error, err, want)
		}
	}
	nic := func(options ...string) map[string]any {
		device := map[string]string{"type": "nic", "network": "lan0", "name": "eth0"}
		for _, option := range options {
			key, value, _ := strings.Cut(option, "=")
			device[key] = value
		}
		return map[string]any{"eth0": device}
	}
	holder := `is that of instance "c1" (project default, member m1)`
	for option, want := range map[string]string{
		"ipv4.address=10.234.5.50":  holder,
		"hwaddr=00:16:3E:55:00:01":  holder,
		"ipv4.address=10.234.5.1":   "the gateway",
		"ipv4.address=10.234.6.7":   "not in the subnet 10.234.5.0/24",
		"ipv4.address=10.234.5.255": "no instance's address",
		"ipv6.address=fd42::7":      "has no ipv6.address",
		"hwaddr=00:16:3e:55:00:01":  holder,
	} {
		refused(second, want, http.MethodPatch, "/1.0/instances/c2", map[string]any{"devices": nic(option)})
		refused(third, want, http.MethodPost, "/1.0/instances?target=m3", map[string]any{
			"name": "c9", "source": map[string]string{"type": "image", "alias": "busybox"}, "devices": nic(option),
		})
	}
	refused(first, "c1", http.MethodPut, "/1.0/networks/lan0", map[string]any{"config": map[string]string{"ipv4.address": "10.234.9.1/24", "ipv6.address": "none"}})
	refused(first, "c1", http.MethodPut, "/1.0/networks/lan0", map[string]any{"config": map[string]string{"ipv4.address": "10.234.5.50/24", "ipv6.address": "none"}})

	// A profile gives its devices to all that have it.
	first.Run("lxc", "profile", "create", "local:lan")
	third.Run("lxc", "init", "local:busybox", "local:c3", "--target", "m3", "-p", "default", "-p", "lan")
	first.Run("lxc", "init", "local:busybox", "local:c4", "--target", "m1", "-p", "default", "-p", "lan")
	refused(first, `instances "c3" and "c4" would both have ipv4.address 10.234.5.60`, http.MethodPatch, "/1.0/profiles/lan", map[string]any{"devices": nic("ipv4.address=10.234.5.60")})
	refused(first, holder, http.MethodPatch, "/1.0/profiles/lan", map[string]any{"devices": nic("hwaddr=00:16:3e:55:00:01")})

	// A copy takes its source's address along; only one of the two can run.
	third.Run("lxc", "copy", "local:c1", "local:copy", "--target", "m3")
	third.Run("lxc", "config", "set", "local:copy", "user.a=b")
	if _, err := third.Do(t.Context(), http.MethodPut, "/1.0/instances/copy/state", map[string]any{"action": "start"}); err == nil || !strings.Contains(err.Error(), holder) {
		t.Errorf("the start of a copy: %v; want it refused: %s", err, holder)
	}
	first.Run("lxc", "start", "local:c1")
	third.Run("lxc", "config", "device", "set", "local:copy", "eth0", "ipv4.address=10.234.5.51", "hwaddr=00:16:3e:55:00:02")
	third.Run("lxc", "start", "local:copy")

	// What is gone leaves nothing, however it went.
	kept := func(m *lab.Member, owner string) bool {
		return slices.ContainsFunc(m.Addresses(), func(a string) bool { return strings.Contains(a, "/"+owner+":") })
	}
	gone := func(m *lab.Member, owner string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for kept(m, owner) {
			if ctx.Err() != nil {
				t.Fatalf("addresses of %s are kept: %v", owner, m.Addresses())
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	if !kept(first, "c1") || !kept(third, "copy") {
		t.Errorf("addresses are %v and %v; want those of c1 and copy", first.Addresses(), third.Addresses())
	}
	first.Run("lxc", "move", "local:c1", "--target", "m2")
	gone(first, "c1")
	if !kept(second, "c1") {
		t.Errorf("addresses on m2 are %v; want those of c1", second.Addresses())
	}
	second.Run("lxc", "stop", "-f", "local:c1")
	second.Run("lxc", "rename", "local:c1", "local:c1b")
	if kept(second, "c1") || !kept(second, "c1b") {
		t.Errorf("addresses on m2 are %v; want those of c1b", second.Addresses())
	}
	// A nic comes and goes with a profile, on instances that don't run too.
	first.Run("lxc", "network", "create", "local:lan1", "ipv4.address=10.234.6.1/24", "ipv6.address=none")
	first.Run("lxc", "profile", "device", "add", "local:lan", "eth7", "nic", "network=lan1")
	inLAN1 := func(m *lab.Member, owner string) bool {
		return slices.Contains(m.Addresses(), "reservation lan1/"+owner+":eth7")
	}
	settled := func(m *lab.Member, owner string, want bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); inLAN1(m, owner) != want; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s has an address of lan1: %v; want %v", owner, !want, want)
			}
		}
	}
	settled(third, "c3", true)
	settled(first, "c4", true)
	first.Run("lxc", "profile", "device", "remove", "local:lan", "eth7")
	settled(third, "c3", false)
	settled(first, "c4", false)
	for _, name := range []string{"c1b", "c2", "c3", "c4", "copy"} {
		second.Run("lxc", "delete", "-f", "local:"+name)
	}
	for _, m := range members {
		if left := m.Addresses(); len(left) > 0 {
			t.Errorf("addresses are left: %v", left)
		}
	}
}
