package lab

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// keep starts a keeper of a daemon: a process that waits for the end of this one, however it
// ends, and then kills the daemon with its process group. Without it the daemon of a test run
// that is killed would run on. The caller calls stop when the daemon has ended.
func keep(daemon int) (stop func(), err error) {
	// Only this process holds the end that is written to: it is closed by the kernel.
	watched, held, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	// Not kill -9: dash does not take -- after that.
	keeper := exec.Command("sh", "-c", `read -r _; kill -s KILL -- "-$1"`, "keeper", strconv.Itoa(daemon))
	keeper.Stdin = watched
	// What ends the tests' process group must not end the keeper too.
	keeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = keeper.Start()
	_ = watched.Close()
	if err != nil {
		_ = held.Close()
		return nil, err
	}
	return func() {
		_ = keeper.Process.Kill() // first, so that it kills nobody who has the number by now
		_ = keeper.Wait()
		_ = held.Close()
	}, nil
}
