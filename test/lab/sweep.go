package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// prefix begins the name of every member's directory; the number of the process whose
// member it is follows, so that the next lab knows what nobody will clean up any more.
const prefix = "muster-lab-"

// makeDir makes a directory for a member of this process.
func makeDir() (string, error) {
	return os.MkdirTemp("", fmt.Sprintf("%s%d-", prefix, os.Getpid()))
}

var sweeping sync.Once

// sweep removes, once in a process, what labs left that did not come to their end:
// killed, or out of time. Their namespaces go with their processes.
func sweep(t T) {
	t.Helper()
	sweeping.Do(func() {
		dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*-*")) // the pattern is right
		for _, dir := range dirs {
			number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
			owner, err := strconv.Atoi(number)
			if err != nil || !errors.Is(syscall.Kill(owner, 0), syscall.ESRCH) {
				continue
			}
			t.Logf("%s is what a lab left that has died: removing it", dir)
			if err := remove(dir); err != nil {
				t.Logf("remove %s: %v", dir, err)
			}
		}
	})
}

// remove ends what runs in a member's directory, and removes it.
func remove(dir string) error {
	// Whoever is killed may have just started another.
	for range 50 {
		killed := false
		for _, process := range processes() {
			if belongs(process, dir) {
				number, _ := strconv.Atoi(filepath.Base(process)) // the pattern says that it is one
				killed = syscall.Kill(number, syscall.SIGKILL) == nil || killed
			}
		}
		if !killed {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	var failed []error
	// What was mounted last stands last, and may be on what was mounted first.
	for _, point := range slices.Backward(mountsUnder(dir)) {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			failed = append(failed, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	if len(failed) > 0 {
		return errors.Join(failed...) // and leave alone what is mounted there
	}
	return os.RemoveAll(dir)
}

// belongs reports whether a process is one of a member's: the daemon by its
// environment, helpers by their arguments, and containers by what is mounted in them.
func belongs(process, dir string) bool {
	for _, name := range []string{"cmdline", "environ"} {
		if data, err := os.ReadFile(filepath.Join(process, name)); err == nil && strings.Contains(string(data), dir) {
			return true
		}
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	theirs, err := os.Readlink(filepath.Join(process, "ns/mnt"))
	if err != nil || theirs == own {
		return false
	}
	mounts, err := os.ReadFile(filepath.Join(process, "mountinfo"))
	// A container's root shows its directory; a service of the machine that only has
	// mounts of its own sees ours where they are.
	return err == nil && strings.Contains(firstLine(string(mounts)), dir)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// mountsUnder are the mount points at and below dir, in the order of their making.
func mountsUnder(dir string) []string {
	var points []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && (fields[4] == dir || strings.HasPrefix(fields[4], dir+"/")) {
			points = append(points, fields[4])
		}
	}
	return points
}
