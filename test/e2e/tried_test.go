package e2e

import (
	"strings"
	"testing"

	"muster/test/lab"
)

// A configuration that liblxc would refuse at the next start is refused when it is set,
// whichever way it comes, and the instance goes on as it was.
func TestConfigIsTriedWhenSet(t *testing.T) {
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	m.Muster("launch", "busybox", "c")
	m.Muster("profile", "create", "p")
	m.Muster("profile", "add", "c", "p")
	refused := func(key string, args ...string) {
		t.Helper()
		out, err := run(m, "", "muster", args...)
		if err == nil || !strings.Contains(out, key) {
			t.Errorf("muster %s: %v: %s; want it refused, naming %s", strings.Join(args, " "), err, out, key)
		}
	}
	bad := map[string]string{
		"raw.lxc":                   "lxc.mount.entry = /nowhere mnt none bind 0 0",
		"linux.sysctl.kernel.panic": "5",
		"limits.kernel.nofile":      "2000:1000",
	}
	for key, value := range bad {
		refused(key, "config", "set", "c", key+"="+value)
		refused(key, "profile", "set", "p", key+"="+value)
		refused(key, "init", "busybox", "bad", "-c", key+"="+value)
	}
	refused("raw.lxc", "config", "set", "c", "raw.lxc=nonsense")
	refused("raw.lxc", "profile", "set", "p", "raw.lxc=nonsense")
	refused("raw.lxc", "profile", "set", "default", "raw.lxc=nonsense")
	refused("raw.lxc", "init", "busybox", "bad", "-c", "raw.lxc=nonsense")

	m.Muster("config", "set", "c", "raw.lxc=lxc.environment = A=b", "limits.kernel.nofile=1000:2000")
	m.Muster("restart", "--force", "c")
	m.Muster("stop", "--force", "c")
	for key, value := range bad {
		refused(key, "config", "set", "c", key+"="+value)
	}
	m.Muster("start", "c")
	if names := strings.Fields(m.Muster("list", "--format", "csv", "-c", "n")); len(names) != 1 {
		t.Errorf("instances %v; want c alone", names)
	}
}
