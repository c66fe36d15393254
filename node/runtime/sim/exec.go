package sim

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"muster/node/runtime"
	"muster/state"
)

// command is a program of the simulator.
type command struct {
	pid  int
	spec runtime.ExecSpec
	env  []string
	// runtime and container are where it runs.
	runtime   *Runtime
	container *container
	terminal  *terminal
	streams   [3]*os.File
	killed    chan struct{}
	done      chan struct{}
	ended     sync.Once
	// code is set before killed is closed.
	code int
}

var _ runtime.Process = (*command)(nil)

// Exec implements runtime.Runtime. It knows the programs that tests need; any
// other is not found.
func (r *Runtime) Exec(ctx context.Context, id string, spec runtime.ExecSpec) (runtime.Process, error) {
	p := &command{spec: spec, env: spec.Environ(), runtime: r, killed: make(chan struct{}), done: make(chan struct{})}
	check := func(c *container) error {
		if err := spec.Validate(c.spec.IDMap); err != nil {
			return err
		}
		if c.info.Status == state.StatusFrozen {
			return state.Errorf(state.ErrConflict, "container %s is frozen", id)
		}
		return nil
	}
	if err := r.with(id, check); err != nil {
		return nil, err
	}
	if err := take(ctx, r.latency.Exec); err != nil {
		return nil, err
	}
	if spec.Interactive {
		p.terminal = newTerminal(spec.Width, spec.Height)
	} else if err := p.dup(); err != nil {
		return nil, err
	}
	err := r.with(id, func(c *container) error {
		if err := check(c); err != nil {
			return err
		}
		p.pid, p.container = r.pid(), c
		c.commands[p] = true
		return nil
	})
	if err != nil {
		p.closeStreams()
		return nil, err
	}
	go p.run()
	return p, nil
}

// dup takes copies of the streams, which the caller closes when it likes.
func (p *command) dup() error {
	for i, file := range []*os.File{p.spec.Stdin, p.spec.Stdout, p.spec.Stderr} {
		if file == nil {
			continue
		}
		conn, err := file.SyscallConn()
		if err != nil {
			return err
		}
		var fd int
		cerr := conn.Control(func(f uintptr) { fd, err = syscall.Dup(int(f)) })
		if cerr != nil || err != nil {
			p.closeStreams()
			return fmt.Errorf("take the stream %d of the command: %w, %w", i, cerr, err)
		}
		syscall.CloseOnExec(fd)
		p.streams[i] = os.NewFile(uintptr(fd), file.Name())
	}
	return nil
}

func (p *command) closeStreams() {
	for _, file := range p.streams {
		if file != nil {
			_ = file.Close()
		}
	}
}

// run executes the program and reports its code, unless it is killed first.
func (p *command) run() {
	defer close(p.done)
	result := make(chan int, 1)
	go func() { result <- p.execute(p.spec.Command) }()
	select {
	case code := <-result:
		p.finish(code)
	case <-p.killed:
	}
	p.closeStreams()
	if p.terminal != nil {
		p.terminal.end()
	}
	p.runtime.mu.Lock()
	delete(p.container.commands, p)
	p.runtime.mu.Unlock()
}

// finish ends the command with a code, if it has not ended.
func (p *command) finish(code int) {
	p.ended.Do(func() {
		p.code = code
		close(p.killed)
	})
}

func (p *command) in() io.Reader {
	if p.terminal != nil {
		return p.terminal.in
	}
	if p.streams[0] == nil {
		return strings.NewReader("")
	}
	return p.streams[0]
}

// say writes to standard output (1) or error (2).
func (p *command) say(stream int, text string) {
	if p.terminal != nil {
		p.terminal.out.put(strings.ReplaceAll(text, "\n", "\r\n"))
		return
	}
	if file := p.streams[stream]; file != nil {
		_, _ = io.WriteString(file, text)
	}
}

// exits are the programs that do nothing else.
var exits = map[string]int{"true": 0, "false": 1, "/bin/true": 0, "/bin/false": 1, "/etc/passwd": 126, "/etc": 126}

// execute runs a program, as a shell would, and returns its exit code.
func (p *command) execute(argv []string) int {
	if cwd := p.spec.Cwd; cwd != "" && strings.HasPrefix(cwd, "/no/") {
		p.say(2, cwd+": No such file or directory\n")
		return 126
	}
	name, args := path.Base(argv[0]), argv[1:]
	if code, ok := exits[argv[0]]; ok {
		return code
	}
	switch name {
	case "sh":
		if len(args) == 2 && args[0] == "-c" {
			return p.script(args[1])
		}
		_, _ = io.Copy(io.Discard, p.in())
		return 0
	case "echo":
		p.say(1, strings.Join(args, " ")+"\n")
		return 0
	case "env":
		p.say(1, strings.Join(p.env, "\n")+"\n")
		return 0
	case "id":
		p.say(1, strconv.FormatUint(uint64(p.spec.UID), 10)+"\n")
		return 0
	case "pwd":
		p.say(1, p.spec.Cwd+"\n")
		return 0
	case "cat":
		return p.cat()
	case "sleep":
		return p.sleep(args)
	case "poweroff", "reboot":
		p.halt(name)
		return 0
	}
	p.say(2, argv[0]+": No such file or directory\n")
	return 127
}

// script runs commands between semicolons; there is no more to this shell.
func (p *command) script(text string) int {
	code := 0
	for line := range strings.SplitSeq(text, ";") {
		line, toError := strings.CutSuffix(strings.TrimSpace(line), " >&2")
		line, toConsole := strings.CutSuffix(line, " > /dev/console")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case toError:
			p.say(2, strings.Join(words[1:], " ")+"\n")
			code = 0
		case toConsole:
			p.runtime.mu.Lock()
			p.runtime.write(p.container, strings.Join(words[1:], " "))
			p.runtime.mu.Unlock()
			code = 0
		case words[0] == "exit" && len(words) == 2:
			code, _ = strconv.Atoi(words[1])
			return code
		case words[0] == "kill" && len(words) == 3 && words[2] == "$$":
			signal, _ := strconv.Atoi(strings.TrimPrefix(words[1], "-"))
			return 128 + signal
		case line == "stty size" && p.terminal != nil:
			p.say(1, p.terminal.size()+"\n")
		default:
			code = p.execute(words)
		}
	}
	return code
}

func (p *command) cat() int {
	buffer := make([]byte, 4096)
	for {
		n, err := p.in().Read(buffer)
		p.say(1, string(buffer[:n]))
		if err != nil {
			return 0
		}
	}
}

func (p *command) sleep(args []string) int {
	seconds, err := strconv.ParseFloat(strings.Join(args, ""), 64)
	if err != nil {
		return 1
	}
	timer := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.killed:
	}
	return 0
}

// halt ends the container from within, or boots it again.
func (p *command) halt(how string) {
	p.runtime.mu.Lock()
	defer p.runtime.mu.Unlock()
	if how == "reboot" {
		p.runtime.again(p.container)
		return
	}
	p.runtime.gone(p.container, runtime.ExitShutdown)
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

// EndInput implements runtime.Process.
func (p *command) EndInput(ctx context.Context) error {
	if p.terminal == nil {
		return nil
	}
	for {
		if p.terminal.in.starved() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Signal implements runtime.Process. No program of the simulator handles any.
func (p *command) Signal(signal syscall.Signal) error {
	if signal < 0 || signal > 64 {
		return state.Errorf(state.ErrInvalid, "signal %d does not exist", signal)
	}
	switch signal {
	case 0, syscall.SIGWINCH, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGCONT:
	default:
		p.finish(128 + int(signal))
		p.stopReading()
	}
	return nil
}

// stopReading wakes a program that waits for input.
func (p *command) stopReading() {
	if p.terminal != nil {
		p.terminal.in.close()
	} else if p.streams[0] != nil {
		_ = p.streams[0].SetReadDeadline(time.Unix(1, 0))
	}
}

// Hangup implements runtime.Process.
func (p *command) Hangup() error { return p.Signal(syscall.SIGHUP) }

// Wait implements runtime.Process.
func (p *command) Wait(ctx context.Context) (int, error) {
	select {
	case <-ctx.Done():
		return -1, ctx.Err()
	case <-p.done:
		return p.code, nil
	}
}

// Done implements runtime.Process.
func (p *command) Done() <-chan struct{} { return p.done }

// Close implements runtime.Process.
func (p *command) Close() error {
	p.finish(128 + 1)
	p.stopReading()
	<-p.done
	return nil
}

// terminal echoes what is typed and passes it on, line by line or not: there is
// no editing.
type terminal struct {
	in, out *stream
	mu      sync.Mutex
	// width and height are guarded by mu.
	width, height int
}

func newTerminal(width, height int) *terminal {
	return &terminal{in: newStream(), out: newStream(), width: width, height: height}
}

func (t *terminal) size() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("%d %d", t.height, t.width)
}

func (t *terminal) end() {
	t.in.close()
	t.out.close()
}

// Read implements io.Reader.
func (t *terminal) Read(p []byte) (int, error) { return t.out.Read(p) }

// endOfInput is Control-D.
const endOfInput = "\x04"

// Write implements io.Writer.
func (t *terminal) Write(p []byte) (int, error) {
	text, _, ends := strings.Cut(string(p), endOfInput)
	t.out.put(strings.ReplaceAll(text, "\n", "\r\n"))
	t.in.put(text)
	if ends {
		t.in.close()
	}
	return len(p), nil
}

// Resize implements runtime.Terminal.
func (t *terminal) Resize(width, height int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.width, t.height = width, height
	return nil
}

// Close implements io.Closer.
func (t *terminal) Close() error {
	t.end()
	return nil
}
