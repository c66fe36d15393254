package lxc

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/runtime/lxc/wire"
)

// clockTicks is the unit of start times in /proc (USER_HZ, the same on every
// architecture that Go runs on).
const clockTicks = 100

// process is a process held by its pidfd: it can't turn into another.
type process struct {
	pid  int
	file *os.File
}

// openProcess opens a process; os.ErrProcessDone when it has gone or the number
// means another by now. start zero accepts any.
func openProcess(pid wire.PID) (*process, error) {
	if pid.Number <= 0 {
		return nil, os.ErrProcessDone
	}
	// Not blocking, so that Go's poller waits for its end, not a thread.
	fd, err := unix.PidfdOpen(pid.Number, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid.Number, err)
	}
	p := &process{pid: pid.Number, file: os.NewFile(uintptr(fd), "pidfd")}
	if pid.Start != 0 {
		start, err := startTime(pid.Number)
		if err != nil || start != pid.Start {
			_ = p.close()
			return nil, os.ErrProcessDone
		}
	}
	if p.ended() {
		_ = p.close()
		return nil, os.ErrProcessDone
	}
	return p, nil
}

func (p *process) close() error { return p.file.Close() }

func (p *process) fd() int {
	fd := -1
	if conn, err := p.file.SyscallConn(); err == nil {
		_ = conn.Control(func(f uintptr) { fd = int(f) })
	}
	return fd
}

// signal sends a signal; that the process has ended is no error.
func (p *process) signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(p.fd(), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// ended says whether the process has ended.
func (p *process) ended() bool {
	poll := []unix.PollFd{{Fd: int32(p.fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}

// wait returns nil when the process has ended, or the context's error. Not for
// two callers at once.
func (p *process) wait(ctx context.Context) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) })
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
	if !stop() {
		// The deadline is or will be set; the next wait must not see it.
		_ = p.file.SetReadDeadline(time.Time{})
	}
	if p.ended() {
		return nil
	}
	return cmp.Or(ctx.Err(), err)
}

// waitFor waits at most d and says whether the process has ended.
func (p *process) waitFor(ctx context.Context, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return p.wait(ctx) == nil
}

// startTime returns when a process started, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in brackets that may hold anything; starttime is
	// the 22nd (proc(5)).
	at := bytes.LastIndexByte(stat, ')')
	fields := bytes.Fields(stat[at+1:])
	if at < 0 || len(fields) < 20 {
		return 0, fmt.Errorf("read /proc/%d/stat: %q", pid, stat)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// since turns a start time into a time of day.
func since(ticks uint64, now time.Time) time.Time {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Time{}
	}
	up := time.Duration(t.Nano())
	return now.Add(time.Duration(ticks)*time.Second/clockTicks - up).Round(time.Second / clockTicks)
}
