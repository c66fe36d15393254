package e2e

import (
	"strings"
	"testing"

	"muster/test/lab"
)

// stackInside mounts an overlay on files of the container, as Docker and Podman do in a
// user namespace, and uses all that they need of it: copies up, whiteouts, opaque
// directories, and a second mount of the same layers.
const stackInside = `set -e
rm -rf /var/lib/docker; mkdir -p /var/lib/docker; cd /var/lib/docker; mkdir low up work at
echo low > low/f; echo gone > low/g; mkdir low/d; echo x > low/d/x
mount -t overlay overlay -o lowerdir=low,upperdir=up,workdir=work,userxattr at
echo high > at/f; rm at/g; rm -r at/d; mkdir at/d; umount at
mount -t overlay overlay -o lowerdir=low,upperdir=up,workdir=work,userxattr at
cat at/f; [ ! -e at/g ] && [ ! -e at/d/x ] && echo stacked; umount at`

// In an instance with security.nesting overlays can be mounted on its own files, in the
// default pool as everywhere, whenever the key was set; and after a restore and a copy.
func TestOverlaysInside(t *testing.T) {
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	stacks := func(instance string, want bool) {
		t.Helper()
		out, err := run(m, stackInside, "muster", "exec", instance, "--", "sh", "-s")
		if got := err == nil && strings.Contains(out, "high\nstacked"); got != want {
			t.Errorf("an overlay inside %s: %v: %s; want it to work: %v", instance, err, out, want)
		}
	}
	if driver := strings.TrimSpace(m.Muster("query", "/1.0/storage-pools/default")); !strings.Contains(driver, `"overlay"`) {
		t.Skipf("the default pool is no overlay: %s", driver)
	}
	m.Muster("storage", "create", "plain", "dir")
	m.Muster("storage", "create", "tree", "btrfs", "size=512MiB")
	for name, args := range map[string][]string{
		"n1": nil, "n2": {"-s", "plain"}, "n3": {"-s", "tree"}, "n4": {"-c", "security.privileged=true"},
	} {
		m.Muster(append([]string{"launch", "busybox", name, "-c", "security.nesting=true"}, args...)...)
		stacks(name, true)
		m.Muster("delete", "--force", name)
	}
	m.Muster("launch", "busybox", "c")
	stacks("c", false)
	m.Muster("exec", "c", "--", "sh", "-c", "echo kept > /root/f")
	m.Muster("snapshot", "c", "s")
	m.Muster("config", "set", "c", "security.nesting=true")
	m.Muster("restart", "--force", "c")
	stacks("c", true)
	if got := m.Muster("exec", "c", "--", "cat", "/root/f"); strings.TrimSpace(got) != "kept" {
		t.Errorf("afterwards /root/f has %q; want kept", got)
	}
	m.Muster("restore", "c", "s")
	m.Muster("config", "set", "c", "security.nesting=true")
	m.Muster("restart", "--force", "c")
	stacks("c", true)
	m.Muster("snapshot", "c", "t")
	m.Muster("copy", "c", "d")
	m.Muster("start", "d")
	stacks("d", true)
	m.Muster("restore", "c", "t")
	stacks("c", true)
}
