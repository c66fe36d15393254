package rest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if err := mountApart(); err != nil {
		fmt.Fprintln(os.Stderr, "mount namespace of the tests:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// mountApart begins the process anew in a mount namespace of its own, if it may mount at
// all: no clean-up runs in a test that is killed or reaches its timeout, and its mounts
// then go with the process.
func mountApart() error {
	const apart = "MUSTER_REST_TEST_APART"
	if os.Geteuid() != 0 || os.Getenv(apart) != "" {
		return nil
	}
	runtime.LockOSThread() // the thread that moves is the one that goes on
	err := unix.Unshare(unix.CLONE_NEWNS)
	if errors.Is(err, unix.EPERM) {
		runtime.UnlockOSThread()
		return nil // what mounts will say so
	}
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), apart+"=1"))
}
