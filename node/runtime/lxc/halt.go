package lxc

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// busybox is the program name of an init that sleeps for seconds when it halts.
const busybox = "busybox"

// haltSignals ask an init to halt, by its program: systemd(1), "SIGNALS"; busybox
// init handles SIGUSR2. Others follow the convention of a power failure.
var haltSignals = map[string]string{"systemd": "SIGRTMIN+3", busybox: "SIGUSR2"}

// haltSignal is what asks this container's init to halt.
func (r *Runtime) haltSignal(c *container) unix.Signal {
	name := "SIGPWR"
	if known, ok := haltSignals[initProgram(c.init.pid)]; ok {
		name = known
	}
	if spec, err := r.readSpec(c.id); err == nil && spec.Signals.Halt != "" {
		name = spec.Signals.Halt
	}
	if signal, ok := signalNumber(name); ok {
		return signal
	}
	return unix.SIGPWR
}

// realtimeMin is SIGRTMIN as programs see it: glibc and musl keep the kernel's
// first ones (32 …) to themselves (signal(7)).
const realtimeMin = 34

// signalNumber reads "SIGPWR", "SIGRTMIN+3".
func signalNumber(name string) (unix.Signal, bool) {
	if offset, ok := strings.CutPrefix(name, "SIGRTMIN"); ok {
		n, err := strconv.Atoi("0" + strings.TrimPrefix(offset, "+"))
		return unix.Signal(realtimeMin + n), err == nil && n <= 30
	}
	signal := unix.SignalNum(name)
	return signal, signal != 0
}

// waitHalted asks init to halt and waits until it has. An init that has only just
// been started does not listen yet, and the kernel then drops the signal; it is
// asked again once it does.
func (r *Runtime) waitHalted(ctx context.Context, c *container) error {
	signal := r.haltSignal(c)
	for {
		listening := listens(c.init.pid, signal)
		if err := c.init.signal(signal); err != nil {
			return err
		}
		if listening {
			break
		}
		for pause := time.Millisecond; !listens(c.init.pid, signal); pause = min(2*pause, 100*time.Millisecond) {
			if c.init.waitFor(ctx, pause) {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	if initProgram(c.init.pid) != busybox {
		return c.init.wait(ctx)
	}
	return r.waitBusybox(ctx, c)
}

// waitBusybox waits until busybox init, asked to halt, has ended. It sleeps twice
// for a second on its way, once it has ended all other processes; that wait is
// for nothing here, so it is cut short.
func (r *Runtime) waitBusybox(ctx context.Context, c *container) error {
	for idle := 0; !c.init.waitFor(ctx, 5*time.Millisecond); {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !r.onlyInitSleeps(c) {
			idle = 0
			continue
		}
		if idle++; idle >= 3 {
			if err := c.init.signal(unix.SIGKILL); err != nil {
				return err
			}
			return c.init.wait(ctx)
		}
	}
	return nil
}

// onlyInitSleeps says whether nothing is left of a container but an init that has
// taken the signal to halt and sleeps for a time: busybox init does that only
// after its shutdown actions, which are processes of their own.
func (r *Runtime) onlyInitSleeps(c *container) bool {
	pids, err := r.group(c.id).Processes()
	if err != nil || !slices.Equal(pids, []int{c.init.pid}) || signalsPending(c.init.pid) {
		return false
	}
	return slices.Contains(sleeps, systemCall(c.init.pid))
}

// signalsPending says whether a process has been sent signals that it has not
// taken, apart from those of its children.
func signalsPending(pid int) bool {
	masks, err := signalMasks(pid)
	return err != nil || (masks["SigPnd"]|masks["ShdPnd"])&^bit(unix.SIGCHLD) != 0
}

// listens says whether a process handles a signal, blocks it to read it from a
// descriptor, or waits for signals right now. The kernel drops all others to the
// init of a PID namespace (pid_namespaces(7)).
func listens(pid int, signal unix.Signal) bool {
	masks, err := signalMasks(pid)
	if err != nil {
		return false
	}
	// While it waits, what it waits for is not shown as blocked.
	return (masks["SigCgt"]|masks["SigBlk"])&bit(signal) != 0 || slices.Contains(sigwaits, systemCall(pid))
}

// sigwaits and sleeps are the system calls of waiting for signals and for time.
var (
	sigwaits = []int{unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_RT_SIGSUSPEND}
	sleeps   = []int{unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP}
)

// systemCall returns the number of the system call that a process is in, or -1
// when it runs.
func systemCall(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
	if err != nil {
		return -1
	}
	word, _, _ := strings.Cut(string(text), " ")
	number, err := strconv.Atoi(word)
	if err != nil {
		return -1
	}
	return number
}

func bit(signal unix.Signal) uint64 { return 1 << (uint(signal) - 1) }

// signalMasks reads the masks that begin with Sig or Shd from a process's status
// (proc(5)).
func signalMasks(pid int) (map[string]uint64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	masks := map[string]uint64{}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if !strings.HasPrefix(name, "Sig") && !strings.HasPrefix(name, "Shd") {
			continue
		}
		// SigQ is not a mask; what does not parse is left out.
		if mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err == nil {
			masks[name] = mask
		}
	}
	return masks, nil
}
