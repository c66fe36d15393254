package runtimetest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/pkg/sftp"

	"muster/node/runtime"
	"muster/state"
)

func testLimits(t *testing.T, h Harness) {
	r := h.New(t)
	ctx := deadline(t)
	spec := h.Spec(t, "c1")
	spec.Limits.Memory.Limit = 256 << 20
	start(t, r, spec)
	wantLimit := func(doing string, want int64) {
		t.Helper()
		if usage, err := r.Usage(ctx, "c1"); err != nil || usage.MemoryLimit != want {
			t.Errorf("%s: memory limit %d, %v; want %d", doing, usage.MemoryLimit, err, want)
		}
	}
	wantLimit("from the start", 256<<20)
	must(t, "SetLimits", r.SetLimits(ctx, "c1", runtime.Limits{Memory: runtime.MemoryLimits{Limit: 128 << 20}, Processes: 100}))
	wantLimit("after SetLimits", 128<<20)
	_, err := r.Restart(ctx, "c1", runtime.Stop{Force: true})
	must(t, "Restart", err)
	wantLimit("after a restart", 128<<20)
	wantKind(t, "a negative limit", r.SetLimits(ctx, "c1", runtime.Limits{Processes: -1}), state.ErrInvalid)
	wantLimit("after a bad SetLimits", 128<<20)
	must(t, "SetLimits", r.SetLimits(ctx, "c1", runtime.Limits{}))
	if usage, err := r.Usage(ctx, "c1"); err != nil || usage.MemoryLimit <= 256<<20 {
		t.Errorf("without a limit: memory limit %d, %v; want the machine's memory", usage.MemoryLimit, err)
	}
	wantKind(t, "SetLimits of a stranger", r.SetLimits(ctx, "c2", runtime.Limits{}), state.ErrNotFound)
}

func interfaceNames(t testing.TB, r runtime.Runtime) []string {
	t.Helper()
	list, err := r.Interfaces(deadline(t), "c1")
	must(t, "Interfaces", err)
	var names []string
	for _, i := range list {
		// Tunnels that the kernel makes in every namespace are noise.
		if i.Name == "lo" || i.HostName != "" || i.Type == "broadcast" && i.Up {
			names = append(names, i.Name)
		}
	}
	slices.Sort(names)
	return names
}

func testNICs(t *testing.T, h Harness) {
	r := h.New(t)
	ctx := deadline(t)
	spec := h.Spec(t, "c1")
	bridge := h.Bridge(t)
	spec.NICs = []runtime.NIC{{
		Name: "eth0", Kind: runtime.NICVeth, Parent: bridge, HostName: bridge + "a",
		HWAddr: "00:16:3e:01:02:03", MTU: 1400,
	}}
	start(t, r, spec)
	list, err := r.Interfaces(ctx, "c1")
	must(t, "Interfaces", err)
	at := slices.IndexFunc(list, func(i runtime.Interface) bool { return i.Name == "eth0" })
	if at < 0 {
		t.Fatalf("Interfaces: %+v; want eth0 among them", list)
	}
	if i := list[at]; i.HWAddr != "00:16:3e:01:02:03" || i.MTU != 1400 || i.HostName != bridge+"a" || !i.Up || i.Type != "broadcast" {
		t.Errorf("Interfaces: %+v; want eth0 as it was asked for", i)
	}
	eth1 := runtime.NIC{Name: "eth1", Kind: runtime.NICVeth, HostName: bridge + "b"}
	must(t, "AddNIC", r.AddNIC(ctx, "c1", eth1))
	if got, want := interfaceNames(t, r), []string{"eth0", "eth1", "lo"}; !slices.Equal(got, want) {
		t.Errorf("after AddNIC: %v; want %v", got, want)
	}
	wantKind(t, "AddNIC again", r.AddNIC(ctx, "c1", eth1), state.ErrInvalid)
	_, err = r.Restart(ctx, "c1", runtime.Stop{Force: true})
	must(t, "Restart", err)
	if got, want := interfaceNames(t, r), []string{"eth0", "eth1", "lo"}; !slices.Equal(got, want) {
		t.Errorf("after a restart: %v; want %v", got, want)
	}
	must(t, "RemoveNIC", r.RemoveNIC(ctx, "c1", "eth0"))
	given, err := r.Spec(ctx, "c1")
	must(t, "Spec", err)
	if len(given.NICs) != 1 || given.NICs[0].Name != "eth1" || given.NICs[0].HostName != bridge+"b" {
		t.Errorf("Spec: interfaces %+v; want eth1", given.NICs)
	}
	_, err = r.Spec(ctx, "c9")
	wantKind(t, "Spec of what does not run", err, state.ErrNotFound)
	if got, want := interfaceNames(t, r), []string{"eth1", "lo"}; !slices.Equal(got, want) {
		t.Errorf("after RemoveNIC: %v; want %v", got, want)
	}
	wantKind(t, "RemoveNIC again", r.RemoveNIC(ctx, "c1", "eth0"), state.ErrNotFound)
}

func testMounts(t *testing.T, h Harness) {
	r := h.New(t)
	ctx := deadline(t)
	start(t, r, h.Spec(t, "c1"))
	source := t.TempDir()
	mount := runtime.Mount{Source: source, Path: "/mnt/a", ReadOnly: true}
	must(t, "AddMount", r.AddMount(ctx, "c1", mount))
	wantKind(t, "AddMount again", r.AddMount(ctx, "c1", mount), state.ErrInvalid)
	wantKind(t, "AddMount of nothing", r.AddMount(ctx, "c1", runtime.Mount{Source: source + "/none", Path: "/mnt/b"}), state.ErrInvalid)
	must(t, "RemoveMount", r.RemoveMount(ctx, "c1", "/mnt/a/"))
	wantKind(t, "RemoveMount again", r.RemoveMount(ctx, "c1", "/mnt/a"), state.ErrNotFound)

	device := runtime.Device{Path: "/dev/empty", Major: 1, Minor: 3, Mode: 0o666}
	must(t, "AddDevice", r.AddDevice(ctx, "c1", device))
	wantKind(t, "AddDevice again", r.AddDevice(ctx, "c1", device), state.ErrInvalid)
	must(t, "RemoveDevice", r.RemoveDevice(ctx, "c1", "/dev/empty"))
	wantKind(t, "RemoveDevice again", r.RemoveDevice(ctx, "c1", "/dev/empty"), state.ErrNotFound)

	proxy := runtime.Proxy{
		Name:    "p",
		Listen:  []runtime.Endpoint{{Network: "unix", Address: source + "/socket"}},
		Connect: []runtime.Endpoint{{Network: "tcp", Address: "127.0.0.1:9"}},
	}
	must(t, "AddProxy", r.AddProxy(ctx, "c1", proxy))
	wantKind(t, "AddProxy again", r.AddProxy(ctx, "c1", proxy), state.ErrExists)
	if list, err := r.Proxies(ctx, "c1"); err != nil || len(list) != 1 || list[0].Name != "p" {
		t.Errorf("Proxies: %+v, %v; want p", list, err)
	}
	must(t, "RemoveProxy", r.RemoveProxy(ctx, "c1", "p"))
	wantKind(t, "RemoveProxy again", r.RemoveProxy(ctx, "c1", "p"), state.ErrNotFound)
	if list, err := r.Proxies(ctx, "c1"); err != nil || len(list) != 0 {
		t.Errorf("Proxies: %+v, %v; want none", list, err)
	}
}

// Connect returns an SFTP client over a connection of Files or RootFiles, closed
// with the test.
func Connect(t testing.TB, conn io.ReadWriteCloser) *sftp.Client {
	t.Helper()
	client, err := sftp.NewClientPipe(conn, conn)
	must(t, "speak SFTP", err)
	t.Cleanup(func() {
		_ = client.Close()
		if err := conn.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("close the files: %v", err)
		}
	})
	return client
}

func testFiles(t *testing.T, h Harness) {
	r, spec := h.New(t), h.Spec(t, "c1")
	ctx := deadline(t)
	_, err := r.Files(ctx, "c1")
	wantKind(t, "Files of a stranger", err, state.ErrNotFound)
	conn, err := r.RootFiles(ctx, spec.Rootfs, spec.IDMap)
	must(t, "RootFiles", err)
	files := Connect(t, conn)
	writeFile(t, files, "/tmp/early", "before the start")

	start(t, r, spec)
	conn, err = r.Files(ctx, "c1")
	must(t, "Files", err)
	files = Connect(t, conn)
	if got := readFile(t, files, "/tmp/early"); got != "before the start" {
		t.Errorf("/tmp/early holds %q; want what was written before the start", got)
	}
	must(t, "Mkdir", files.Mkdir("/tmp/dir"))
	writeFile(t, files, "/tmp/dir/file", "content")
	must(t, "Symlink", files.Symlink("file", "/tmp/dir/link"))
	if got := readFile(t, files, "/tmp/dir/link"); got != "content" {
		t.Errorf("the link leads to %q; want content", got)
	}
	if target, err := files.ReadLink("/tmp/dir/link"); err != nil || target != "file" {
		t.Errorf("ReadLink: %q, %v; want file", target, err)
	}
	entries, err := files.ReadDir("/tmp/dir")
	must(t, "ReadDir", err)
	if len(entries) != 2 || entries[0].Name() != "file" || entries[1].Name() != "link" {
		t.Errorf("ReadDir: %v; want file and link", entries)
	}
	if _, err := files.Stat("/tmp/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat of nothing: %v; want that it does not exist", err)
	}
	must(t, "Remove", files.Remove("/tmp/dir/file"))
	if _, err := files.Stat("/tmp/dir/file"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat of what was removed: %v; want that it does not exist", err)
	}
}

func writeFile(t testing.TB, files *sftp.Client, path, text string) {
	t.Helper()
	file, err := files.Create(path)
	must(t, "create "+path, err)
	_, err = io.WriteString(file, text)
	must(t, "write "+path, err)
	must(t, "close "+path, file.Close())
}

func readFile(t testing.TB, files *sftp.Client, path string) string {
	t.Helper()
	file, err := files.Open(path)
	must(t, "open "+path, err)
	text, err := io.ReadAll(file)
	must(t, "read "+path, err)
	must(t, "close "+path, file.Close())
	return string(text)
}

// awaitBoot waits until the container has said on its console that it booted.
func awaitBoot(t testing.TB, r runtime.Runtime, id string) {
	t.Helper()
	Eventually(t, func() string {
		log, err := r.ConsoleLog(t.Context(), id)
		if err != nil || !bytes.Contains(log, []byte("booted "+id)) {
			return "the console log has no boot"
		}
		return ""
	})
}

func testConsoleLog(t *testing.T, h Harness) {
	r := h.New(t)
	ctx := deadline(t)
	_, err := r.ConsoleLog(ctx, "c1")
	wantKind(t, "ConsoleLog of a stranger", err, state.ErrNotFound)
	start(t, r, h.Spec(t, "c1"))
	awaitBoot(t, r, "c1")
	must(t, "ClearConsoleLog", r.ClearConsoleLog(ctx, "c1"))
	if log, err := r.ConsoleLog(ctx, "c1"); err != nil || len(log) != 0 {
		t.Errorf("ConsoleLog after it was cleared: %q, %v; want nothing", log, err)
	}
	if code, out := Sh(t, r, "c1", "echo late > /dev/console"); code != 0 {
		t.Fatalf("write to the console: %d, %s", code, out)
	}
	Eventually(t, func() string {
		log, err := r.ConsoleLog(ctx, "c1")
		if err != nil || string(log) != "late\r\n" {
			return "the console log has nothing of what came after: " + string(log)
		}
		return ""
	})
	terminal, err := r.Console(ctx, "c1")
	must(t, "Console", err)
	_, err = r.Console(ctx, "c1")
	wantKind(t, "a second Console", err, state.ErrConflict)
	if code, out := Sh(t, r, "c1", "echo live > /dev/console"); code != 0 {
		t.Fatalf("write to the console: %d, %s", code, out)
	}
	var seen bytes.Buffer
	readUntil(t, terminal, &seen, "live\r\n")
	must(t, "Resize", terminal.Resize(80, 25))
	must(t, "Close", terminal.Close())
	Eventually(t, func() string {
		again, err := r.Console(ctx, "c1")
		if err != nil {
			return "the console is not free after it was closed: " + err.Error()
		}
		must(t, "Close", again.Close())
		return ""
	})
	must(t, "Stop", r.Stop(ctx, "c1", runtime.Stop{Force: true}))
	if log, err := r.ConsoleLog(ctx, "c1"); err != nil || !bytes.Contains(log, []byte("live")) {
		t.Errorf("ConsoleLog of a stopped container: %q, %v; want what it wrote", log, err)
	}
}
