package lxc_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"muster/node/runtime"
	"muster/node/runtime/lxc"
	"muster/node/runtime/runtimetest"
)

var names atomic.Int32

// hostName returns a name for the host's end of a veth that nothing else has.
func hostName() string { return fmt.Sprintf("mv%d-%d", os.Getpid(), names.Add(1)) }

// groups returns the control groups of a container, in every hierarchy.
func groups(t testing.TB, r *lxc.Runtime, id string) []string {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/cgroup/*/" + prefix(t, r) + "/" + id)
	if err != nil {
		t.Fatal(err)
	}
	unified, err := filepath.Glob("/sys/fs/cgroup/" + prefix(t, r) + "/" + id)
	if err != nil {
		t.Fatal(err)
	}
	return append(found, unified...)
}

// prefix is the group of all containers of a runtime.
func prefix(t testing.TB, r *lxc.Runtime) string {
	t.Helper()
	return lxc.Prefix(r)
}

// groupFile reads a file of a container's group.
func groupFile(t testing.TB, r *lxc.Runtime, id, controller, name string) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup/" + controller, "/sys/fs/cgroup"} {
		text, err := os.ReadFile(filepath.Join(dir, prefix(t, r), id, "payload", name))
		if err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	t.Fatalf("%s has no %s", id, name)
	return ""
}

// wantNothingLeft looks for what a container that ended may have left on the
// machine.
func wantNothingLeft(t testing.TB, r *lxc.Runtime, id string) {
	t.Helper()
	if found := groups(t, r, id); len(found) > 0 {
		t.Errorf("control groups are left: %v", found)
	}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if strings.HasPrefix(link.Name(), fmt.Sprintf("mv%d-", os.Getpid())) {
			t.Errorf("interface %s is left", link.Name())
		}
	}
	dir := filepath.Dir(r.LogFile(id, "x"))
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left below %s", dir)
	}
	for _, pid := range processes(t, dir, id) {
		t.Errorf("process %s is left", pid)
	}
}

// processes returns those whose command line names a container of dir.
func processes(t testing.TB, dir, id string) []string {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		text, err := os.ReadFile(entry)
		if err != nil {
			continue
		}
		args := strings.Split(string(text), "\x00")
		if len(args) > 3 && strings.HasSuffix(args[0], "muster-shim") && args[2] == filepath.Dir(dir) && args[3] == id {
			found = append(found, entry+" "+args[1])
		}
	}
	return found
}

// Two runtimes on one machine have containers of the same names.
func TestTwoDaemons(t *testing.T) {
	a, b := open(t), open(t)
	rootA, rootB := spec(t, "c1"), spec(t, "c1")
	infoA, infoB := start(t, a, rootA), start(t, b, rootB)
	for _, r := range []*lxc.Runtime{a, b} {
		list, err := r.List(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("List: %+v, %v; want one", list, err)
		}
	}
	if err := a.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, a, "c1")
	if info, err := b.Info(t.Context(), "c1"); err != nil || info.InitPID != infoB.InitPID || info.InitPID == infoA.InitPID {
		t.Errorf("the other container is %+v, %v; want it undisturbed", info, err)
	}
	if err := a.Remove(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if len(groups(t, b, "c1")) == 0 {
		t.Error("the other container has lost its control groups")
	}
}

// A daemon that lives long does not collect descriptors.
func TestNoDescriptorsAreLeft(t *testing.T) {
	r := open(t)
	s, p := spec(t, "u1"), privileged(t, "p1")
	round := func() {
		for _, s := range []runtime.Spec{s, p} {
			start(t, r, s)
			runtimetest.Sh(t, r, s.ID, "true")
			command, err := r.Exec(t.Context(), s.ID, runtime.ExecSpec{Command: []string{"true"}, Interactive: true})
			if err != nil {
				t.Fatal(err)
			}
			console, err := r.Console(t.Context(), s.ID)
			if err != nil {
				t.Fatal(err)
			}
			files, err := r.Files(t.Context(), s.ID)
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Interfaces(t.Context(), s.ID)
			err = errors.Join(err,
				r.AddMount(t.Context(), s.ID, runtime.Mount{Source: "/tmp", Path: "/mnt", Shift: true}),
				r.AddNIC(t.Context(), s.ID, runtime.NIC{Name: "x", Kind: runtime.NICVeth, HostName: hostName()}),
				r.SetLimits(t.Context(), s.ID, runtime.Limits{Processes: 100}),
				command.Close(), console.Close(), files.Close(),
				r.Stop(t.Context(), s.ID, runtime.Stop{Force: true}))
			if _, again := r.Exec(t.Context(), s.ID, runtime.ExecSpec{Command: []string{"true"}}); again == nil || err != nil {
				t.Fatalf("the round: %v; a command in a stopped container: %v", err, again)
			}
		}
	}
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	round() // makes what is kept, such as the sealed shim
	before := count()
	for range 3 {
		round()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors after three rounds; want %d as after the first", after, before)
	}
}
