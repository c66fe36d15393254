package lxc_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/runtime/runtimetest"
	"muster/state"
)

func privileged(t testing.TB, id string) runtime.Spec {
	t.Helper()
	return runtime.Spec{ID: id, Hostname: id, Rootfs: runtimetest.BusyboxRoot(t, nil)}
}

// secret makes a file of the host that everybody may read.
func secret(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "secret")
	if err := os.WriteFile(path, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Promise 8: nothing of a container's file API reaches the host. The container
// sets the traps and the file API walks into them.
func TestFilesDoNotEscape(t *testing.T) {
	for name, make := range map[string]func(testing.TB, string) runtime.Spec{"unprivileged": spec, "privileged": privileged} {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, running %v", name, running), func(t *testing.T) {
				r := open(t)
				s, path := make(t, "c1"), secret(t)
				start(t, r, s)
				script := fmt.Sprintf(`set -e; cd /tmp
ln -s %[1]s absolute; ln -s ../../../../../../../../../..%[1]s relative; ln -s / root
ln -s /proc/1/root%[1]s magic; ln -s /proc/self/root%[1]s self; ln -s /proc/self/fd/6/../%[1]s fd; mkfifo fifo
mknod disk b 254 0 || true; mknod zero c 1 5 || true; ln -s /proc/sys/kernel/core_pattern core`, path)
				if code, out := runtimetest.Sh(t, r, "c1", script); code != 0 {
					t.Fatalf("set the traps: %d, %s", code, out)
				}
				conn, err := r.Files(t.Context(), "c1")
				if !running {
					if err := conn.Close(); err != nil {
						t.Fatal(err)
					}
					if err := r.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
						t.Fatal(err)
					}
					conn, err = r.RootFiles(t.Context(), s.Rootfs, s.IDMap)
				}
				if err != nil {
					t.Fatal(err)
				}
				files := runtimetest.Connect(t, conn)
				for _, trap := range []string{
					"absolute", "relative", "magic", "self", "fd", "root" + path,
					"../../../../../.." + path, "root/../../.." + path,
				} {
					if file, err := files.Open("/tmp/" + trap); err == nil {
						text := [100]byte{}
						n, _ := file.Read(text[:])
						t.Errorf("%s leads to %q of the host", trap, text[:n])
					}
				}
				begin := time.Now()
				for _, trap := range []string{"fifo", "disk", "zero"} {
					if _, err := files.Open("/tmp/" + trap); err == nil {
						t.Errorf("%s can be opened", trap)
					}
					if _, err := files.OpenFile("/tmp/"+trap, os.O_WRONLY); err == nil {
						t.Errorf("%s can be opened for writing", trap)
					}
				}
				if took := time.Since(begin); took > 2*time.Second {
					t.Errorf("refusing pipes and devices took %s", took)
				}
				// Writing through a link of the container's lands in the container.
				if file, err := files.Create("/tmp/root/tmp/written"); err != nil {
					t.Errorf("write through a link within the container: %v", err)
				} else if err := file.Close(); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(filepath.Join(s.Rootfs, "tmp/written")); err != nil {
					t.Errorf("what was written is not in the container: %v", err)
				}
				pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
				if err != nil {
					t.Fatal(err)
				}
				if file, err := files.OpenFile("/tmp/core", os.O_WRONLY); err == nil {
					_, _ = file.Write(pattern)
					t.Error("the host's core_pattern can be opened for writing")
				}
			})
		}
	}
}

// Owners and modes are the container's, in both ways in.
func TestFilesHaveTheContainersOwners(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	start(t, r, s)
	for _, running := range []bool{true, false} {
		conn, err := r.Files(t.Context(), "c1")
		if !running {
			if err := errors.Join(conn.Close(), r.Stop(t.Context(), "c1", runtime.Stop{Force: true})); err != nil {
				t.Fatal(err)
			}
			conn, err = r.RootFiles(t.Context(), s.Rootfs, s.IDMap)
		}
		if err != nil {
			t.Fatal(err)
		}
		files := runtimetest.Connect(t, conn)
		name := fmt.Sprintf("/tmp/owned-%v", running)
		file, err := files.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(file.Close(), files.Chown(name, 1000, 100), files.Chmod(name, 0o4711)); err != nil {
			t.Fatal(err)
		}
		var stat unix.Stat_t
		if err := unix.Stat(s.Rootfs+name, &stat); err != nil {
			t.Fatal(err)
		}
		if stat.Uid != ids.Host+1000 || stat.Gid != ids.Host+100 || stat.Mode&0o7777 != 0o4711 {
			t.Errorf("running %v: on the host it is %d:%d %o; want the container's 1000:100 4711", running, stat.Uid, stat.Gid, stat.Mode&0o7777)
		}
		if err := files.Chown(name, 70000, 0); err == nil {
			t.Error("a file can be given to a user that the container does not have")
		}
	}
}

// What a command gets is its three streams and its environment; the helpers
// that brought it in are not to be seen.
func TestCommandsSeeNothingOfTheHost(t *testing.T) {
	for name, make := range map[string]func(testing.TB, string) runtime.Spec{"unprivileged": spec, "privileged": privileged} {
		t.Run(name, func(t *testing.T) {
			r := open(t)
			info := start(t, r, make(t, "c1"))
			conn, err := r.Files(t.Context(), "c1")
			if err != nil {
				t.Fatal(err)
			}
			runtimetest.Connect(t, conn)
			_, out := runtimetest.Sh(t, r, "c1", "ls /proc/self/fd | wc -l")
			// ls itself opens the folder.
			if strings.TrimSpace(out) != "4" {
				_, out := runtimetest.Sh(t, r, "c1", "ls -l /proc/self/fd")
				t.Errorf("a command has these descriptors:\n%s", out)
			}
			_, out = runtimetest.Sh(t, r, "c1", "ps -o pid,args; cat /proc/1/environ | tr '\\0' '\\n'")
			if strings.Contains(out, "muster") || strings.Contains(out, "PATH=/usr/sbin:/sbin\n") {
				t.Errorf("the container sees helpers or the daemon's environment:\n%s", out)
			}
			for _, pid := range []string{"1", "self"} {
				_, out = runtimetest.Sh(t, r, "c1", "grep Seccomp: /proc/"+pid+"/status")
				if strings.Fields(out)[1] != "2" {
					t.Errorf("process %s has no system call filter: %s", pid, out)
				}
			}
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", info.InitPID))
			if err != nil {
				t.Fatal(err)
			}
			for _, fd := range fds {
				target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", info.InitPID, fd.Name()))
				if err == nil && fd.Name() > "2" && !strings.HasPrefix(target, "anon_inode") {
					t.Errorf("init holds %s -> %s", fd.Name(), target)
				}
			}
		})
	}
}

// A program of the container that is a link to /proc/self/exe would be the
// shim; in a privileged container that is a copy nobody can write to.
func TestTheShimIsNotWritable(t *testing.T) {
	r := open(t)
	start(t, r, privileged(t, "c1"))
	before, err := os.ReadFile(shim)
	if err != nil {
		t.Fatal(err)
	}
	if code, out := runtimetest.Sh(t, r, "c1", "ln -s /proc/self/exe /bin/trap"); code != 0 {
		t.Fatal(out)
	}
	code, out, errs := runtimetest.Output(t, r, "c1", runtime.ExecSpec{Command: []string{"/bin/trap", "version"}})
	if code == 0 {
		t.Logf("the trap ran: %q %q", out, errs)
	}
	after, err := os.ReadFile(shim)
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Error("the shim was changed")
	}
	p, err := r.Exec(t.Context(), "c1", runtime.ExecSpec{Command: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	exe, err := os.Readlink("/proc/" + fields[1] + "/exe")
	if err != nil || !strings.HasPrefix(exe, "/memfd:") {
		t.Errorf("the helper of a privileged container runs from %q, %v; want a sealed memfd", exe, err)
	}
}

// A device that the container was not given stays closed, whatever nodes its root
// makes.
func TestDevicesAreGuarded(t *testing.T) {
	r := open(t)
	ctx := t.Context()
	for name, s := range map[string]runtime.Spec{"u1": spec(t, "u1"), "p1": privileged(t, "p1")} {
		start(t, r, s)
		// 10:235 is autofs: harmless to open, and where the kernel lacks it, opening
		// fails in another way than by a refusal.
		opens := func(path string) bool {
			code, out := runtimetest.Sh(t, r, name, ": < "+path)
			return code == 0 || strings.Contains(out, "No such device")
		}
		runtimetest.Sh(t, r, name, "mknod /tmp/autofs c 10 235")
		if opens("/tmp/autofs") {
			t.Errorf("%s opens a device that it was not given", name)
		}
		device := runtime.Device{Path: "/dev/given/autofs", Major: 10, Minor: 235, Mode: 0o640, UID: 1000}
		if err := r.AddDevice(ctx, name, device); err != nil {
			t.Fatal(err)
		}
		if !opens(device.Path) {
			t.Errorf("%s can't open a device that it was given", name)
		}
		if _, out := runtimetest.Sh(t, r, name, "stat -c '%u %a' "+device.Path); out != "1000 640\n" {
			t.Errorf("%s: the device is %q; want user 1000, mode 640", name, out)
		}
		if _, err := r.Restart(ctx, name, runtime.Stop{Force: true}); err != nil {
			t.Fatal(err)
		}
		if !opens(device.Path) {
			t.Errorf("%s can't open its device after a restart", name)
		}
		if err := r.RemoveDevice(ctx, name, device.Path); err != nil {
			t.Fatal(err)
		}
		if opens(device.Path) || opens("/tmp/autofs") {
			t.Errorf("%s opens a device that was taken away", name)
		}
	}
}

// A fork bomb stays within its limit, and a forced stop ends it at once.
func TestForkBomb(t *testing.T) {
	r, s := open(t), spec(t, "c1")
	s.Limits.Processes = 60
	start(t, r, s)
	p, err := r.Exec(t.Context(), "c1", runtime.ExecSpec{Command: []string{"sh", "-c", "bomb() { sleep 1000 & bomb & bomb & wait; }; bomb"}})
	if err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, func() string {
		if events := groupFile(t, r, "c1", "pids", "pids.events"); strings.Fields(events)[1] == "0" {
			return "the bomb has not gone off: pids.events is " + events
		}
		return ""
	})
	for range 200 {
		usage, err := r.Usage(t.Context(), "c1")
		// The kernel lets who is moved into a group exceed its limit.
		if err != nil || usage.Processes > 62 {
			t.Fatalf("%d processes, %v; want at most 60", usage.Processes, err)
		}
	}
	if _, err := r.Info(t.Context(), "c1"); err != nil {
		t.Errorf("Info: %v", err)
	}
	begin := time.Now()
	if err := r.Stop(t.Context(), "c1", runtime.Stop{Force: true}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("a forced stop of a fork bomb took %s", took)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	wantNothingLeft(t, r, "c1")
}

// raw.lxc can't be used to reach around the runtime, and a bad line is named.
func TestRawLXC(t *testing.T) {
	r := open(t)
	for name, tc := range map[string]struct{ raw, want string }{
		"a key that does not exist":   {"lxc.uts.name = a\nlxc.no.such = 1", "lxc.no.such = 1"},
		"a value that does not parse": {"lxc.idmap.x = u", "lxc.idmap"},
		"a line that is none":         {"hello", "hello"},
		"a bad number":                {"lxc.pty.max = many", "lxc.pty.max = many"},
		"another root":                {"lxc.rootfs.path = /", "lxc.rootfs.path"},
		"other control groups":        {"lxc.cgroup.dir.container = x", "lxc.cgroup.dir"},
		"another file":                {"lxc.include = /etc/passwd", "lxc.include"},
	} {
		s := spec(t, "c1")
		s.RawLXC = tc.raw
		_, err := r.Start(t.Context(), s)
		if !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want ErrInvalid that names %q", name, err, tc.want)
		}
	}
	s := spec(t, "c1")
	s.RawLXC = "# a comment\n\nlxc.environment = RAW=yes\nlxc.mount.entry = tmpfs mnt tmpfs size=64k 0 0\n"
	start(t, r, s)
	if _, out := runtimetest.Sh(t, r, "c1", "grep /mnt /proc/mounts; cat /proc/1/environ | tr '\\0' '\\n'"); !strings.Contains(out, "size=64k") || !strings.Contains(out, "RAW=yes") {
		t.Errorf("the container shows %q; want what raw.lxc asked for", out)
	}
}

// A container that can't start says why and leaves nothing.
func TestFailedStarts(t *testing.T) {
	r := open(t)
	missing := spec(t, "c1")
	missing.Init = []string{"/sbin/none", "an argument"}
	noRoot := spec(t, "c2")
	noRoot.Rootfs += "/nowhere"
	noBridge := spec(t, "c3")
	noBridge.NICs = []runtime.NIC{{Name: "eth0", Kind: runtime.NICVeth, Parent: "nobridge", HostName: hostName()}}
	badProxy := spec(t, "c4")
	badProxy.Proxies = []runtime.Proxy{{
		Name: "p", Listen: []runtime.Endpoint{{Network: "unix", Address: "/no/such/folder/socket"}},
		Connect: []runtime.Endpoint{{Network: "tcp", Address: "127.0.0.1:1"}},
	}}
	for name, tc := range map[string]struct {
		spec runtime.Spec
		want string
	}{
		"no init":                   {missing, "/sbin/none"},
		"no root file system":       {noRoot, "nowhere"},
		"no bridge":                 {noBridge, "nobridge"},
		"a proxy that can't listen": {badProxy, "/no/such/folder"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Start(t.Context(), tc.spec)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Start: %v; want an error that names %s", err, tc.want)
			}
			if list, err := r.List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("List: %+v, %v; want nothing", list, err)
			}
			wantNothingLeft(t, r, tc.spec.ID)
		})
	}
}
