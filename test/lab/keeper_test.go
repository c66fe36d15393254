package lab

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// killedRun is set in the environment of a test run that is to be killed.
const killedRun = "MUSTER_LAB_KILLED_RUN"

// The daemons of a test run that is killed end with it.
func TestDaemonsEndWithAKilledRun(t *testing.T) {
	NeedsRoot(t)
	if os.Getenv(killedRun) != "" {
		m := Start(t, Options{NoInit: true})
		fmt.Printf("\nrunning %d %s\n", m.PID(), m.Dir)
		select {} // until it is killed
	}
	run := exec.Command(os.Args[0], "-test.run=^TestDaemonsEndWithAKilledRun$")
	run.Env = append(os.Environ(), killedRun+"=1")
	run.Stderr = os.Stderr
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	daemon, dir := 0, ""
	lines := bufio.NewScanner(out)
	for daemon == 0 && lines.Scan() {
		if strings.HasPrefix(lines.Text(), "running ") {
			if _, err := fmt.Sscanf(lines.Text(), "running %d %s", &daemon, &dir); err != nil {
				t.Error(err)
			}
		}
	}
	_ = run.Process.Kill()
	_ = run.Wait() // it was killed
	if daemon == 0 {
		t.Fatal("the run that was to be killed started no daemon")
	}
	defer func() {
		if err := remove(dir); err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(30 * time.Second); !gone(daemon); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the daemon %d runs on 30 s after its run was killed", daemon)
		}
	}
}

// gone reports whether a process has ended. One that nobody has waited for yet has too: PID 1
// need not do that at once for those whose parent was killed.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return true
	}
	// The state follows the name, in which there may be anything.
	_, state, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

func TestAZombieIsGone(t *testing.T) {
	ended := exec.Command("cat")
	in, err := ended.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ended.Start(); err != nil {
		t.Fatal(err)
	}
	if gone(ended.Process.Pid) {
		t.Error("a process that runs is gone")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	// It ends, and stays until it is waited for.
	if err := unix.Waitid(unix.P_PID, ended.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if !gone(ended.Process.Pid) {
		t.Error("a process that has ended is not gone before it is waited for")
	}
	if err := ended.Wait(); err != nil {
		t.Error(err)
	}
	if !gone(ended.Process.Pid) {
		t.Error("a process that was waited for is not gone")
	}
}
