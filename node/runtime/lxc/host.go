package lxc

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lxcfsDir is where lxcfs shows its files.
const lxcfsDir = "/var/lib/lxcfs"

// fuseMagic is the file system type of FUSE (statfs(2)).
const fuseMagic = 0x65735546

// HasLXCFS reports whether lxcfs runs. Containers that start without it see the
// machine's memory, processors and uptime in /proc instead of their own.
func HasLXCFS() bool {
	var fs unix.Statfs_t
	return unix.Statfs(lxcfsDir, &fs) == nil && fs.Type == fuseMagic
}

// lxcfsFiles returns the files under /proc and /sys that a running lxcfs offers
// a view of, relative to the root.
func lxcfsFiles() []string {
	if !HasLXCFS() {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(lxcfsDir, "proc"))
	if err != nil {
		return nil
	}
	var files []string
	for _, entry := range entries {
		// pressure is a directory in newer releases, and others' business.
		if !entry.IsDir() {
			files = append(files, "proc/"+entry.Name())
		}
	}
	if _, err := os.Stat(filepath.Join(lxcfsDir, "sys/devices/system/cpu")); err == nil {
		files = append(files, "sys/devices/system/cpu")
	}
	return files
}

// hasAppArmor says whether the kernel enforces AppArmor and liblxc can make a
// profile for it.
func hasAppArmor() bool {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || strings.TrimSpace(string(enabled)) != "Y" {
		return false
	}
	_, err = os.Stat("/sbin/apparmor_parser")
	return err == nil
}
