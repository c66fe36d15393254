package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/runtime/lxc/wire"
	"muster/state"
)

// Exec implements runtime.Runtime.
func (r *Runtime) Exec(ctx context.Context, id string, spec runtime.ExecSpec) (runtime.Process, error) {
	c, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	defer c.close()
	its, err := r.readSpec(id)
	if err != nil {
		return nil, err
	}
	if err := spec.Validate(its.IDMap); err != nil {
		return nil, err
	}
	// Otherwise the command would hang in the middle of entering.
	if frozen, err := r.group(id).Frozen(); err == nil && frozen {
		return nil, state.Errorf(state.ErrConflict, "container %s is frozen", id)
	}
	path, err := r.shimFor(its)
	if err != nil {
		return nil, err
	}
	input, err := requestFile(func(request *wire.Request) error { return addCommand(request, spec, its.IDMap) })
	if err != nil {
		return nil, err
	}
	defer func() { _ = input.Close() }()
	var stdio [3]*os.File
	if !spec.Interactive {
		stdio = [3]*os.File{spec.Stdin, spec.Stdout, spec.Stderr}
	}
	h, release, err := startHelper(ctx, path, []string{"exec", r.dir, id}, stdio, input)
	if err != nil {
		return nil, err
	}
	defer release()
	p, err := awaitCommand(h, spec.Interactive)
	if err != nil {
		h.giveUp()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, r.explainExec(id, c, err)
	}
	return p, nil
}

// explainExec says why a command could not be started: most often because the
// container ended meanwhile, or may have no more processes, which liblxc does not tell.
func (r *Runtime) explainExec(id string, c *container, err error) error {
	if c.init.ended() {
		return state.Errorf(state.ErrConflict, "container %s stopped before the command could start", id)
	}
	// Entering takes a process besides the command for a moment.
	if limit, full := r.group(id).FullOfProcesses(2); full {
		return state.Errorf(state.ErrConflict, "the container has as many processes as it may have: limits.processes is %d, and a command needs 2 more to start; raise it, or end some of them", limit)
	}
	return state.Errorf(state.ErrConflict, "run a command in container %s: %w", id, err)
}

func addCommand(request *wire.Request, spec runtime.ExecSpec, ids *runtime.IDMap) error {
	hostUID := spec.UID
	if ids != nil {
		hostUID += ids.Host
	}
	interactive := "0"
	if spec.Interactive {
		interactive = "1"
	}
	number := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	return errors.Join(
		request.Add(number(spec.UID), number(spec.GID), number(hostUID), spec.Cwd, interactive,
			strconv.Itoa(spec.Width), strconv.Itoa(spec.Height)),
		request.AddList(spec.Command),
		request.AddList(spec.Environ()))
}

// command is a process that the shim started in a container.
type command struct {
	pid      int
	pidfd    *os.File
	terminal *terminal
	helper   *exec.Cmd
	answers  answers
	done     chan struct{}
	closing  sync.Once
	// ended says that the command is known to have ended: answers is closed then.
	ended atomic.Bool

	// code and err are set before done is closed.
	code int
	err  error
}

var _ runtime.Process = (*command)(nil)

// awaitCommand waits until the shim has started the command, and follows it from
// then on.
func awaitCommand(h *helper, interactive bool) (*command, error) {
	files := 1
	if interactive {
		files = 2
	}
	rest, passed, err := h.answers.expect("running", files)
	if err != nil {
		return nil, err
	}
	p := &command{pidfd: passed[0], helper: h.cmd, answers: h.answers, done: make(chan struct{})}
	if p.pid, err = strconv.Atoi(rest); err != nil {
		return nil, err
	}
	if interactive {
		if p.terminal, err = newTerminal(passed[1], nil); err != nil {
			return nil, errors.Join(err, p.pidfd.Close(), passed[1].Close())
		}
	}
	go p.follow()
	return p, nil
}

// follow waits for the command's end. Close waits for follow.
func (p *command) follow() {
	defer close(p.done)
	rest, _, err := p.answers.expect("ended", 0)
	if err == nil {
		var status int
		if status, err = strconv.Atoi(rest); err == nil {
			p.code = exitCode(syscall.WaitStatus(status))
		}
	}
	if err != nil {
		p.err = state.Errorf(state.ErrUnavailable, "the command was lost: %w", err)
	}
	if p.terminal != nil {
		p.terminal.end()
	}
	p.ended.Store(true)
	_ = p.answers.file.Close()
	_ = p.helper.Wait()
}

// exitCode is a wait status as a shell shows it.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// PID implements runtime.Process.
func (p *command) PID() int { return p.pid }

// Terminal implements runtime.Process.
func (p *command) Terminal() runtime.Terminal {
	if p.terminal == nil {
		return nil
	}
	return p.terminal
}

// Signal implements runtime.Process.
func (p *command) Signal(signal syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	err := unix.PidfdSendSignal(int(p.pidfd.Fd()), signal, nil, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF) {
		return nil
	}
	if errors.Is(err, unix.EINVAL) {
		return state.Errorf(state.ErrInvalid, "signal %d does not exist", signal)
	}
	return err
}

// Hangup implements runtime.Process. The shim does it: it knows that the process is not
// another one by now.
func (p *command) Hangup() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	conn, err := p.answers.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = unix.Shutdown(int(fd), unix.SHUT_WR) })
	// A descriptor that is closed meanwhile is one of internal/poll's errors, which has
	// no name here.
	if p.ended.Load() || errors.Is(failed, unix.ENOTCONN) {
		return nil
	}
	return errors.Join(err, failed)
}

// Wait implements runtime.Process.
func (p *command) Wait(ctx context.Context) (int, error) {
	select {
	case <-ctx.Done():
		return -1, ctx.Err()
	case <-p.done:
		return p.code, p.err
	}
}

// Done implements runtime.Process.
func (p *command) Done() <-chan struct{} { return p.done }

// closeGrace is how long a killed command may take to end before the wait for it
// is given up: it may be stuck in the kernel.
const closeGrace = 5 * time.Second

// Close implements runtime.Process.
func (p *command) Close() (err error) {
	p.closing.Do(func() {
		err = p.Hangup()
		select {
		case <-p.done:
		case <-time.After(closeGrace):
			err = errors.Join(err, fmt.Errorf("process %d does not die", p.pid), p.Signal(syscall.SIGKILL), p.helper.Process.Kill())
			<-p.done
		}
		err = errors.Join(err, p.pidfd.Close())
		if p.terminal != nil {
			err = errors.Join(err, p.terminal.Close())
		}
	})
	return err
}
