package lab

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
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
	for deadline := time.Now().Add(30 * time.Second); syscall.Kill(daemon, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the daemon %d runs on 30 s after its run was killed", daemon)
		}
	}
}
