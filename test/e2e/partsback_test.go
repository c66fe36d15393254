package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"muster/test/lab"
)

// A member says what is wrong with its part of a pool or network now, nothing is placed on it
// that needs the part, and it brings the part back by itself, with the instances that wait.
func TestAPartThatIsNotThereComesBack(t *testing.T) {
	t.Parallel()
	lab.NeedsRoot(t)
	members := lab.ClusterOf(t, 2, lab.Options{Network: lab.NewNetwork(t)})
	first, second := members[0], members[1]
	first.Busybox()
	does(t, first, http.MethodPost, "/1.0/networks", map[string]any{"name": "nback", "config": map[string]string{"ipv4.address": "10.199.9.1/24", "ipv6.address": "none"}})
	for _, target := range []string{"m1", "m2"} {
		does(t, first, http.MethodPost, "/1.0/storage-pools?target="+target, map[string]any{"name": "pback", "driver": "btrfs", "config": map[string]string{"size": "256MiB"}})
	}
	does(t, first, http.MethodPost, "/1.0/storage-pools", map[string]any{"name": "pback", "driver": "btrfs"})
	first.Muster("launch", "busybox", "onpool", "-s", "pback", "--target", "m2")
	first.Muster("launch", "busybox", "onnet", "-n", "nback", "--target", "m2")

	// patience is for what a member tries again after 15 s on a busy machine.
	const patience = 2 * time.Minute
	message := func(words ...string) {
		t.Helper()
		eventuallyWithin(t, patience, func() string {
			var m2 struct{ Status, Message string }
			if err := first.Get(t.Context(), "/1.0/cluster/members/m2", &m2); err != nil {
				return err.Error()
			}
			for _, word := range words {
				if m2.Status != "Online" || !strings.Contains(m2.Message, word) {
					return "m2 is " + m2.Status + ": " + m2.Message + "; want " + word + " in it"
				}
			}
			return ""
		})
	}
	is := func(path, want string) {
		t.Helper()
		eventuallyWithin(t, patience, func() string {
			var thing struct{ Status string }
			if err := first.Get(t.Context(), path, &thing); err != nil {
				return err.Error()
			}
			if thing.Status != want {
				return path + " is " + thing.Status + "; want " + want
			}
			return ""
		})
	}
	image := filepath.Join(second.Dir, "disks", "pback.img")
	inTheWay := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "nback"}}

	second.Run("musterd", "shutdown")
	if err := second.Exited(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(image, image+".away"); err != nil {
		t.Fatal(err)
	}
	if err := second.Inside(func() error { return netlink.LinkAdd(inTheWay) }); err != nil {
		t.Fatal(err)
	}
	second.Up()
	message("Not fully operational", `network "nback"`, "already has an interface", `storage pool "pback"`)
	for _, path := range []string{"/1.0/networks/nback", "/1.0/storage-pools/pback"} {
		is(path+"?target=m2", "Unavailable")
		is(path+"?target=m1", "Created")
		is(path, "Unavailable")
	}
	is("/1.0/instances/onpool", "Stopped")
	is("/1.0/instances/onnet", "Stopped")

	instance := func(name string, devices map[string]any) map[string]any {
		devices["root"] = map[string]string{"type": "disk", "path": "/", "pool": "pback"}
		return map[string]any{
			"name": name, "source": map[string]string{"type": "image", "alias": "busybox"}, "profiles": []string{}, "devices": devices,
		}
	}
	mustRefuse(t, first, http.MethodPost, "/1.0/instances?target=m2", instance("x", map[string]any{}), http.StatusConflict, "pback")
	for _, name := range []string{"p1", "p2", "p3"} {
		// m1 has more instances than m2 by and by.
		does(t, first, http.MethodPost, "/1.0/instances", instance(name, map[string]any{}))
		var made struct{ Location string }
		if err := first.Get(t.Context(), "/1.0/instances/"+name, &made); err != nil || made.Location != "m1" {
			t.Errorf("%s is on %q, %v; want m1, the pool is not there on m2", name, made.Location, err)
		}
	}

	if err := os.Rename(image+".away", image); err != nil {
		t.Fatal(err)
	}
	if err := second.Inside(func() error { return netlink.LinkDel(inTheWay) }); err != nil {
		t.Fatal(err)
	}
	message("Fully operational")
	for _, path := range []string{"/1.0/networks/nback", "/1.0/storage-pools/pback"} {
		is(path+"?target=m2", "Created")
		is(path, "Created")
	}
	is("/1.0/instances/onpool", "Running")
	is("/1.0/instances/onnet", "Running")

	// While the daemon runs, too.
	if err := second.Inside(func() error {
		link, err := netlink.LinkByName("nback")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	}); err != nil {
		t.Fatal(err)
	}
	eventuallyWithin(t, patience, func() (missing string) {
		if err := second.Inside(func() error {
			bridge, err := netlink.LinkByName("nback")
			if err != nil {
				return err
			}
			links, err := netlink.LinkList()
			if !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().MasterIndex == bridge.Attrs().Index }) {
				missing = "the instance is not plugged into the bridge"
			}
			return err
		}); err != nil {
			return "the bridge: " + err.Error()
		}
		return missing
	})
}

// What can't be created because the pool went away leaves nothing behind, and the pool comes
// back by itself when it can.
func TestACreationWithoutItsPoolLeavesNothing(t *testing.T) {
	t.Parallel()
	lab.NeedsRoot(t)
	m := lab.Start(t, lab.Options{})
	m.Busybox()
	m.Muster("storage", "create", "b", "btrfs", "size=256MiB")
	image, root := filepath.Join(m.Dir, "disks", "b.img"), filepath.Join(m.Dir, "storage-pools", "b")
	if err := os.Rename(image, image+".away"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(root, "mounts"), root} {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Fatalf("unmount %s: %v", path, err)
		}
	}
	out, err := m.Command("muster", "launch", "busybox", "kbx", "-s", "b", "--no-profiles").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not mounted") {
		t.Errorf("launched without its pool: %v\n%s\nwant a failure that says that the pool is not mounted", err, out)
	}
	mustRefuse(t, m, http.MethodGet, "/1.0/instances/kbx", nil, http.StatusNotFound, "kbx")
	mustRefuse(t, m, http.MethodDelete, "/1.0/instances/kbx", nil, http.StatusNotFound, "kbx")
	if err := os.Rename(image+".away", image); err != nil {
		t.Fatal(err)
	}
	eventuallyWithin(t, 2*time.Minute, func() string {
		answer, err := m.Do(t.Context(), http.MethodPost, "/1.0/instances", map[string]any{
			"name": "kbx", "source": map[string]string{"type": "image", "alias": "busybox"}, "profiles": []string{},
			"devices": map[string]any{"root": map[string]string{"type": "disk", "path": "/", "pool": "b"}},
		})
		if err != nil {
			return answer.Error + ": " + err.Error()
		}
		return ""
	})
}
