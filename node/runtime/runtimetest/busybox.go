package runtimetest

import (
	"debug/elf"
	"io"
	"os"
	"path/filepath"
	"testing"

	"muster/node/runtime"
)

// applets are the programs that the root file system offers.
var applets = []string{
	"cat", "chmod", "dd", "echo", "env", "false", "grep", "halt", "head", "id", "ifconfig", "ip", "kill", "killall", "ln",
	"ls", "mkdir", "mkfifo", "mknod", "mount", "nc", "poweroff", "ps", "pwd", "readlink", "reboot", "rm", "seq", "sh",
	"sleep", "stat", "stty", "sync", "tail", "test", "timeout", "top", "touch", "true", "tty", "umount", "usleep",
	"ulimit", "wc", "yes",
}

// inittab starts nothing but a line on the console.
const inittab = `::sysinit:/etc/rc
::ctrlaltdel:/bin/reboot
::respawn:/bin/sleep 1000000
`

// BusyboxRoot makes a root file system of Debian's busybox-static in a folder of
// the test, owned as ids say. It skips the test without a busybox that needs no
// libraries.
func BusyboxRoot(t testing.TB, ids *runtime.IDMap) string {
	t.Helper()
	const busybox = "/bin/busybox"
	file, err := elf.Open(busybox)
	if err != nil {
		t.Skipf("needs busybox-static: %v", err)
	}
	libraries, err := file.ImportedLibraries()
	if err != nil || len(libraries) > 0 {
		t.Skip("needs busybox-static: /bin/busybox is linked to libraries")
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	// Parents of the root must let the container's root through.
	for dir := root; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root", "run", "var", "mnt"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, busybox, filepath.Join(root, "bin/busybox"), 0o755)
	for _, applet := range applets {
		link(t, "busybox", filepath.Join(root, "bin", applet))
	}
	link(t, "../bin/busybox", filepath.Join(root, "sbin/init"))
	const rc = "#!/bin/sh\necho booted $(cat /proc/sys/kernel/hostname) > /dev/console\n"
	if err := os.WriteFile(filepath.Join(root, "etc/rc"), []byte(rc), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"etc/inittab": inittab,
		"etc/passwd":  "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/tmp:/bin/sh\n",
		"etc/group":   "root:x:0:\nalice:x:1000:\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), os.ModeSticky|0o777); err != nil {
		t.Fatal(err)
	}
	if ids != nil {
		own(t, root, int(ids.Host))
	}
	return root
}

func own(t testing.TB, root string, id int) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, id, id)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func link(t testing.TB, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t testing.TB, from, to string, mode os.FileMode) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
