package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// destroy deletes everything the member made, stops it and removes its
// directory. It shows what was left behind as a failure of the test.
func (m *Member) destroy() {
	if m.done == nil {
		// It never ran.
		if err := remove(m.Dir); err != nil {
			m.t.Errorf("remove the member's directory: %v", err)
		}
		return
	}
	m.recover()
	if m.daemon == nil {
		// It does not start any more, which is reported.
		if err := remove(m.Dir); err != nil {
			m.t.Errorf("remove the member's directory: %v", err)
		}
		return
	}
	if m.t.Failed() {
		m.showLog()
	}
	for _, holder := range m.holders {
		if holder.daemon == nil {
			holder.Up()
		}
		if err := holder.purge(); err != nil {
			m.t.Errorf("remove what the test made: %v", err)
		}
	}
	m.end()
	_ = m.log.Close()
	if m.options.Disk != 0 {
		if err := unix.Unmount(m.Dir, 0); err != nil {
			m.t.Errorf("unmount the member's disk: %v", err)
		}
	}
	for _, left := range Leftovers(m.Dir) {
		m.t.Errorf("left behind: %s", left)
	}
	if m.options.Disk != 0 {
		_ = os.Remove(m.logFile()) // it was shown if it matters
	}
	// What was left is reported, and does not stay.
	if err := remove(m.Dir); err != nil {
		m.t.Errorf("remove the member's directory: %v", err)
	}
}

// end shuts the daemon down. One that does not end shows what it waits for.
func (m *Member) end() {
	shutdown := m.Command("musterd", "shutdown")
	var out bytes.Buffer
	shutdown.Stdout, shutdown.Stderr = &out, &out
	err := shutdown.Start()
	if err == nil {
		stop := time.AfterFunc(60*time.Second, func() { _ = shutdown.Process.Kill() })
		err = shutdown.Wait()
		stop.Stop()
	}
	if err != nil {
		m.t.Errorf("musterd shutdown: %v\n%s", err, out.String())
	}
	select {
	case <-m.done: //nolint:errcheck // how it ended is told by shutdown
		return
	case <-time.After(10 * time.Second):
	}
	_ = m.daemon.Process.Signal(syscall.SIGQUIT)
	select {
	case <-m.done: //nolint:errcheck // it was told to, and is reported
	case <-time.After(5 * time.Second):
		_ = m.daemon.Process.Kill()
		<-m.done //nolint:errcheck // it was killed, and is reported
	}
	m.t.Errorf("the daemon did not end after its shutdown")
	m.showLog()
}

// showLog shows what the daemon said, when the test has failed: how it crashed, if it
// did, and its last words; all of it is put into the directory that MUSTER_LAB_LOGS
// names.
func (m *Member) showLog() {
	log := m.Log()
	for _, sign := range []string{"Assertion", "panic: ", "fatal error: ", "SIGABRT", "SIGSEGV"} {
		if before, _, found := strings.Cut(log, sign); found {
			start := strings.LastIndexByte(before, '\n') + 1
			m.t.Logf("the daemon crashed:\n%s", head(log[start:], 60))
			break
		}
	}
	m.t.Logf("the daemon's log:\n%s", tail(log, 25))
	if dir := os.Getenv("MUSTER_LAB_LOGS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(m.Dir)+".log"), []byte(log), 0o600); err != nil {
			m.t.Log(err)
		}
	}
}

// recover takes back the faults that the test left, so that the members can end in
// good order.
func (m *Member) recover() {
	if m.options.Network != nil {
		m.options.Network.Heal()
	}
	var starting sync.WaitGroup
	for _, peer := range m.peers {
		if !peer.destroyed && peer.daemon != nil && peer.Ended() {
			m.t.Errorf("a daemon ended by itself\n%s", tail(peer.Log(), 25))
		}
		switch {
		case peer.destroyed:
		case peer.daemon != nil:
			_ = peer.daemon.Process.Signal(syscall.SIGCONT) // one that has ended can't be paused
			if peer.options.Disk != 0 {
				_ = os.Remove(peer.ballast()) // which need not be there
			}
		default:
			starting.Go(func() {
				if err := peer.up(); err != nil {
					m.t.Error(err)
				}
			})
		}
	}
	starting.Wait()
	m.destroyed = true
}

// Leftovers names the mounts and processes that still belong to a member's
// directory.
func Leftovers(dir string) []string {
	var left []string
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, dir) {
				left = append(left, "mount "+strings.TrimSpace(line))
			}
		}
	}
	for _, process := range processes() {
		cmdline, err := os.ReadFile(filepath.Join(process, "cmdline"))
		if err == nil && strings.Contains(string(cmdline), dir) {
			left = append(left, "process "+describe(process))
		}
	}
	return left
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func head(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[:min(lines, len(all))], "\n")
}
