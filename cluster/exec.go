package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"muster/cluster/coord"
	"muster/node/runtime"
	"muster/state"
)

// ExecSpec is a command to run in an instance.
type ExecSpec struct {
	Command  []string
	Env      map[string]string
	UID, GID uint32
	Cwd      string

	Interactive   bool
	Width, Height int
	// WaitForSockets lets clients connect the streams; otherwise the command has
	// no input, and its output is thrown away or recorded.
	WaitForSockets bool
	RecordOutput   bool
}

// running returns an instance that runs, for the node.
func (c *Cluster) running(ctx context.Context, project, name string) (*held, error) {
	inst, err := c.Instance(ctx, project, name)
	if err != nil {
		return nil, err
	}
	switch {
	case inst.Busy != "":
		return nil, errBusy(inst)
	case inst.Status == state.StatusFrozen:
		return nil, state.Errorf(state.ErrConflict, "instance %q is frozen: unfreeze it first", name)
	case inst.Status != state.StatusRunning:
		return nil, state.Errorf(state.ErrInvalid, "instance %q is not running: start it first", name)
	}
	expanded, err := nodeInstance(c.store.View(), inst)
	return &held{Instance: inst, node: expanded}, err
}

// Exec runs a command in a running instance, as an operation that ends when the
// command does and keeps its exit status in "return".
func (c *Cluster) Exec(ctx context.Context, project, name string, spec ExecSpec) (OperationInfo, error) {
	if len(spec.Command) == 0 || spec.Command[0] == "" {
		return OperationInfo{}, state.Errorf(state.ErrInvalid, "command: give the program and its arguments as a list")
	}
	if spec.RecordOutput && (spec.WaitForSockets || spec.Interactive) {
		return OperationInfo{}, state.Errorf(state.ErrInvalid, "record-output goes with neither wait-for-websocket nor interactive")
	}
	if spec.Interactive && !spec.WaitForSockets {
		return OperationInfo{}, state.Errorf(state.ErrInvalid, "interactive needs wait-for-websocket: nobody would be at the terminal")
	}
	inst, err := c.running(ctx, project, name)
	if err != nil {
		return OperationInfo{}, err
	}
	operation := OperationSpec{
		Description: "Executing command", Project: project, Resources: instanceResources(project, name),
		Metadata: map[string]any{"command": spec.Command, "interactive": spec.Interactive},
		Tied:     true,
	}
	run := c.execAlone
	if spec.WaitForSockets {
		operation.Class = coord.ClassWebsocket
		operation.OptionalSockets = []string{"control"}
		if spec.Interactive {
			operation.Sockets = []string{"0"}
			run = c.execTerminal
		} else {
			operation.Sockets = []string{"0", "1", "2"}
			run = c.execStreams
		}
	}
	return c.ops.Start(ctx, operation, func(ctx context.Context, op *Operation) error {
		return run(ctx, op, inst, spec)
	})
}

func (s ExecSpec) process() runtime.ExecSpec {
	return runtime.ExecSpec{
		Command: s.Command, Env: s.Env, Cwd: s.Cwd, UID: s.UID, GID: s.GID,
		Interactive: s.Interactive, Width: s.Width, Height: s.Height,
	}
}

// ended waits for the command and notes its exit status.
func ended(ctx context.Context, op *Operation, process runtime.Process) error {
	code, err := process.Wait(ctx)
	if err != nil {
		return err
	}
	op.UpdateMetadata(map[string]any{"return": code})
	return nil
}

// execTerminal runs a command on a terminal of its own.
func (c *Cluster) execTerminal(ctx context.Context, op *Operation, inst *held, spec ExecSpec) error {
	sockets, err := op.Sockets(ctx)
	if err != nil {
		return err
	}
	process, err := c.node.Exec(ctx, inst.node, spec.process())
	if err != nil {
		return err
	}
	defer process.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pumps := newPumps()
	pumps.start(func() { c.control(ctx, op, process) })
	pumps.start(func() {
		toTerminal(process.Terminal(), sockets["0"], sync.OnceFunc(func() {
			// A command that wants more input than there is gets a hangup; one that only has
			// more to say, or to do, goes on.
			pumps.start(func() {
				if process.EndInput(ctx) == nil {
					_ = process.Hangup()
				}
			})
		}))
		// Nobody sits at the terminal any more: what runs on it gets a hangup.
		_ = process.Hangup()
	})
	if toSocket(sockets["0"], process.Terminal()) != nil {
		// What runs there must not block on a reader that has gone.
		_, _ = io.Copy(io.Discard, process.Terminal())
	}
	err = ended(ctx, op, process)
	cancel()
	// Closing the sockets, which the runner does, ends the other pumps.
	op.closeSockets()
	pumps.wait()
	return err
}

// execStreams runs a command with three streams.
func (c *Cluster) execStreams(ctx context.Context, op *Operation, inst *held, spec ExecSpec) error {
	sockets, err := op.Sockets(ctx)
	if err != nil {
		return err
	}
	pipes, err := newPipes()
	if err != nil {
		return err
	}
	defer pipes.close()
	command := spec.process()
	command.Stdin, command.Stdout, command.Stderr = pipes.in.r, pipes.out.w, pipes.err.w
	process, err := c.node.Exec(ctx, inst.node, command)
	if err != nil {
		return err
	}
	defer process.Close()
	pipes.handedOver()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	inputs, outputs := newPumps(), newPumps()
	inputs.start(func() { c.control(ctx, op, process) })
	inputs.start(func() {
		// Clients that have no control socket are gone when none of the streams is left.
		if op.deserted(ctx) == nil {
			_ = process.Hangup()
		}
	})
	inputs.start(func() {
		_ = toWriter(pipes.in.w, sockets["0"])
		_ = pipes.in.w.Close()
	})
	for fd, stream := range map[string]pipe{"1": pipes.out, "2": pipes.err} {
		outputs.start(func() {
			output := stream.drained(process)
			if toSocket(sockets[fd], output) != nil {
				output.discard()
			}
		})
	}
	err = ended(ctx, op, process)
	outputs.wait()
	cancel()
	op.closeSockets()
	inputs.wait()
	return err
}

// execAlone runs a command without anybody watching.
func (c *Cluster) execAlone(ctx context.Context, op *Operation, inst *held, spec ExecSpec) error {
	command := spec.process()
	if !spec.RecordOutput {
		process, err := c.node.Exec(ctx, inst.node, command)
		if err != nil {
			return err
		}
		defer process.Close()
		return ended(ctx, op, process)
	}
	pipes, err := newPipes()
	if err != nil {
		return err
	}
	defer pipes.close()
	output := map[string]string{}
	files := map[string]io.WriteCloser{}
	for fd, stream := range map[string]string{"1": "stdout", "2": "stderr"} {
		name := fmt.Sprintf("exec_%s.%s", op.ID(), stream)
		file, err := c.node.CreateLog(inst.node, name)
		if err != nil {
			return err
		}
		defer file.Close()
		files[fd] = file
		output[fd] = resource(inst.Project, "instances", inst.Name, "logs", name)
	}
	command.Stdout, command.Stderr = pipes.out.w, pipes.err.w
	process, err := c.node.Exec(ctx, inst.node, command)
	if err != nil {
		return err
	}
	defer process.Close()
	pipes.handedOver()
	outputs := newPumps()
	outputs.start(func() { _, _ = io.Copy(files["1"], pipes.out.drained(process)) })
	outputs.start(func() { _, _ = io.Copy(files["2"], pipes.err.drained(process)) })
	err = ended(ctx, op, process)
	outputs.wait()
	op.UpdateMetadata(map[string]any{"output": output})
	return err
}

// pipe is one stream of a command.
type pipe struct{ r, w *os.File }

// pipes are the streams of a command.
type pipes struct{ in, out, err pipe }

func newPipes() (*pipes, error) {
	p := &pipes{}
	for _, stream := range []*pipe{&p.in, &p.out, &p.err} {
		var err error
		if stream.r, stream.w, err = os.Pipe(); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

// handedOver closes our copies of the ends that the command has now, so that the
// other ends see when it closes them.
func (p *pipes) handedOver() {
	_ = p.in.r.Close()
	_ = p.out.w.Close()
	_ = p.err.w.Close()
}

func (p *pipes) close() {
	for _, stream := range []pipe{p.in, p.out, p.err} {
		if stream.r != nil {
			_ = stream.r.Close()
			_ = stream.w.Close()
		}
	}
}

// drainGrace is how long nothing may come from an output after the command has ended
// while a descendant holds it open. All that the command itself wrote is in the pipe by
// then.
const drainGrace = 50 * time.Millisecond

// drained reads the stream until its end, or until the command has ended and
// nothing more comes.
func (p pipe) drained(process runtime.Process) *drain {
	stop, done := make(chan struct{}), process.Done()
	go func() {
		select {
		case <-done:
			_ = p.r.SetReadDeadline(time.Now().Add(drainGrace))
		case <-stop:
		}
	}()
	return &drain{file: p.r, done: done, stop: stop}
}

type drain struct {
	file *os.File
	done <-chan struct{}
	stop chan struct{}
}

func (d *drain) Read(buffer []byte) (int, error) {
	if d.ended() {
		_ = d.file.SetReadDeadline(time.Now().Add(drainGrace))
	}
	count, err := d.file.Read(buffer)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// A deadline that has passed, because whoever reads was kept from it, is reported
		// without a look at the pipe.
		count, err = d.rest(buffer)
	}
	if count > 0 {
		return count, nil
	}
	d.over()
	return count, err
}

// over ends the watching for the command's end.
func (d *drain) over() {
	if d.stop != nil {
		close(d.stop)
		d.stop = nil
	}
}

// rest reads what is in the pipe without waiting.
func (d *drain) rest(buffer []byte) (int, error) {
	raw, err := d.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	count := 0
	if failed := raw.Control(func(fd uintptr) { count, err = unix.Read(int(fd), buffer) }); failed != nil {
		return 0, failed
	}
	if count <= 0 && (err == nil || errors.Is(err, unix.EAGAIN)) {
		return 0, io.EOF
	}
	return max(count, 0), err
}

// ended reports whether the command has.
func (d *drain) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// discard reads for a client that has gone: the command must not block, and what its
// descendants write after it is nobody's.
func (d *drain) discard() {
	buffer := make([]byte, 32<<10)
	for !d.ended() {
		if _, err := d.Read(buffer); err != nil {
			return
		}
	}
	d.over()
}
