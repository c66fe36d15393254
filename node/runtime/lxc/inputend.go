package lxc

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inputPoll is how often EndInput looks whether the command waits for input. The kernel
// tells nobody about a reader that blocks on a terminal.
const inputPoll = 100 * time.Millisecond

// EndInput implements runtime.Process.
func (p *command) EndInput(ctx context.Context) error {
	if p.terminal == nil {
		return nil
	}
	// A line that was not ended is read by nobody before this says that it is all.
	if canonical, err := p.terminal.canonical(); err == nil && canonical && p.terminal.unfinished.Load() {
		_, _ = p.terminal.Write([]byte{eofKey}) // who does not take it now is hung up later
	}
	ticker := time.NewTicker(inputPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return nil
		case <-ticker.C:
			if p.starved() {
				return nil
			}
		}
	}
}

// eofKey is what ends a line without a line's end, or the input (Control-D).
const eofKey = 0x04

// starved reports whether a program on the terminal waits for input, and there is none.
func (p *command) starved() bool {
	canonical, err := p.terminal.canonical()
	if err != nil {
		return false
	}
	if !canonical {
		// A program that reads keys one by one most often waits in poll(2), for much
		// else besides; it does not know what an end of input is.
		left, err := p.terminal.unread()
		return err == nil && left == 0
	}
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return false
	}
	for _, stat := range processes {
		if p.reads(filepath.Dir(stat)) {
			return true
		}
	}
	return false
}

// reads reports whether a process of the command's session is blocked until its
// terminal has something to read. A process that is gone or can't be looked at does not.
func (p *command) reads(process string) bool {
	data, err := os.ReadFile(filepath.Join(process, "stat"))
	if err != nil {
		return false
	}
	// The name, in brackets, may contain anything (proc_pid_stat(5)). Behind it are state,
	// parent, process group, session and terminal.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 5 || fields[0] != "S" || fields[3] != strconv.Itoa(p.pid) {
		return false
	}
	data, err = os.ReadFile(filepath.Join(process, "syscall"))
	if err != nil {
		return false
	}
	for _, fd := range awaited(process, strings.Fields(string(data))) {
		var file unix.Stat_t
		if err := unix.Stat(filepath.Join(process, "fd", strconv.Itoa(fd)), &file); err != nil || file.Mode&unix.S_IFMT != unix.S_IFCHR {
			continue
		}
		// Either the terminal by its number, or /dev/tty.
		if strconv.FormatUint(uint64(terminalNumber(file.Rdev)), 10) == fields[4] || file.Rdev == unix.Mkdev(5, 0) {
			return true
		}
	}
	return false
}

// awaited are the files from which a process that is blocked in a call waits to read. The
// call is given as proc_pid_syscall(5) shows it: its number and arguments.
func awaited(process string, call []string) []int {
	if len(call) < 3 {
		return nil
	}
	first, err := strconv.ParseUint(strings.TrimPrefix(call[1], "0x"), 16, 64)
	if err != nil {
		return nil
	}
	switch call[0] {
	case strconv.Itoa(unix.SYS_READ):
		return []int{int(first)}
	case strconv.Itoa(pollCall), strconv.Itoa(unix.SYS_PPOLL):
		count, err := strconv.ParseUint(strings.TrimPrefix(call[2], "0x"), 16, 64)
		if err != nil {
			return nil
		}
		return polled(process, int64(first), min(count, maxPolled))
	}
	return nil
}

// maxPolled is how many of the files that a process polls are looked at.
const maxPolled = 64

// polled are the files that a process polls to read from, as its memory says.
func polled(process string, at int64, count uint64) []int {
	memory, err := os.Open(filepath.Join(process, "mem"))
	if err != nil {
		return nil
	}
	defer memory.Close()
	asked := make([]unix.PollFd, count)
	if err := binary.Read(io.NewSectionReader(memory, at, int64(count)*int64(unsafe.Sizeof(unix.PollFd{}))), binary.NativeEndian, asked); err != nil {
		return nil
	}
	var files []int
	for _, one := range asked {
		if one.Fd >= 0 && one.Events&unix.POLLIN != 0 {
			files = append(files, int(one.Fd))
		}
	}
	return files
}

// terminalNumber is a device as proc_pid_stat(5) shows terminals: the kernel's old coding.
func terminalNumber(device uint64) uint32 {
	major, minor := unix.Major(device), unix.Minor(device)
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// canonical reports whether the terminal gives its programs whole lines.
func (t *terminal) canonical() (is bool, err error) {
	err = t.control(func(fd int) error {
		mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			is = mode.Lflag&unix.ICANON != 0
		}
		return err
	})
	return is, err
}

// unread is how many bytes wait for a program on the terminal.
func (t *terminal) unread() (left int, err error) {
	err = t.control(func(fd int) error {
		// The flag keeps the terminal from becoming the daemon's own.
		inner, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			return errno
		}
		left, err = unix.IoctlGetInt(int(inner), unix.TIOCINQ)
		return errors.Join(err, unix.Close(int(inner)))
	})
	return left, err
}

func (t *terminal) control(do func(fd int) error) error {
	conn, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}
