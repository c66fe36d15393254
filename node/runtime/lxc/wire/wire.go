// Package wire is what the daemon and muster-shim agree on: descriptor numbers,
// requests, answers.
//
// It starts nothing and interprets nothing; the C half of the shim has the same
// numbers in shim.h.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Descriptors that the daemon passes to the shim besides the standard ones.
const (
	// Socket is one end of a SOCK_SEQPACKET pair: answers, with descriptors.
	Socket = 3
	// Input is a memfd that says what to do.
	Input = 4
	// Pidfd is the container's init.
	Pidfd = 5
	// MonitorFile is what Announce returns; only "start" gets it.
	MonitorFile = 3
	// Proc is the host's /proc; the shim opens it itself.
	Proc = 6
)

// Exit codes of the shim's subcommands.
const (
	Failed = 1
	// Busy means that somebody else is at it: the container runs already, or its
	// console is taken.
	Busy = 2
)

// Names of files in a run directory.
const (
	// Config is liblxc's configuration, Seccomp its system call policy.
	Config  = "config"
	Seccomp = "seccomp"
	// Init holds the arguments of init, if they are not the default.
	Init = "init"
	// Monitor is locked by the monitor as long as it lives, and for it from before
	// it starts.
	Monitor = "monitor"
	// State says which init runs, written by the shim.
	State = "state"
	// Goal says what a stop is for, written by the daemon.
	Goal = "goal"
	// Exit holds the code that the container ended with, written by the shim.
	Exit = "exit"
	// Log and ConsoleLog are for people.
	Log        = "lxc.log"
	ConsoleLog = "console.log"
)

// Goals that the daemon writes before it stops a container.
const (
	GoalRestart = "restart"
	GoalStop    = "stop"
	GoalKill    = "kill"
)

// Request builds the fields of a request for the C half.
type Request struct{ buffer bytes.Buffer }

// Add appends fields. The C half reads up to NUL, so a field with one in it is
// an error.
func (r *Request) Add(fields ...string) error {
	for _, field := range fields {
		if strings.ContainsRune(field, 0) {
			return fmt.Errorf("%q contains a NUL byte", field)
		}
		r.buffer.WriteString(field)
		r.buffer.WriteByte(0)
	}
	return nil
}

// AddList appends a list: its length and its fields.
func (r *Request) AddList(fields []string) error {
	if err := r.Add(strconv.Itoa(len(fields))); err != nil {
		return err
	}
	return r.Add(fields...)
}

// Bytes returns the request.
func (r *Request) Bytes() []byte { return r.buffer.Bytes() }

// File returns the request as a memfd.
func (r *Request) File() (*os.File, error) { return Memfd("request", r.buffer.Bytes()) }

// Memfd returns an anonymous file with the given content. The caller closes it.
func Memfd(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err := file.WriteAt(content, 0); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// StateFile is the content of a run directory's state file.
type StateFile struct {
	Boots   int
	Init    PID
	Monitor PID
}

// PID names a process for good: by its number and by when it started.
type PID struct {
	Number int
	// Start is in clock ticks since boot.
	Start uint64
}

// ParseState reads a state file.
func ParseState(text string) (StateFile, error) {
	var s StateFile
	_, err := fmt.Sscanf(text, "boots %d\ninit %d %d\nmonitor %d %d\n",
		&s.Boots, &s.Init.Number, &s.Init.Start, &s.Monitor.Number, &s.Monitor.Start)
	if err != nil {
		return StateFile{}, fmt.Errorf("read state %q: %w", text, err)
	}
	return s, nil
}

// Sealed returns an anonymous file whose content nobody can change any more, not
// even root. The caller closes it.
func Sealed(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		// Before Linux 6.3 every memfd could be executed and the flag was unknown.
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make a memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err := file.WriteAt(content, 0); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal a memfd: %w", err), file.Close())
	}
	return file, nil
}
