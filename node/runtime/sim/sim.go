// Package sim is a runtime without containers: it keeps books, takes as long as
// liblxc does, and runs a few programs of its own. It lets hundreds of members
// live in one process and tests run without root.
//
// It never touches the machine, and nothing but a caller's own code constructs
// it: no flag, setting or environment variable selects it.
package sim

import (
	"context"
	"io"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"

	"muster/node/runtime"
	"muster/state"
)

// Latency is how long things take.
type Latency struct{ Start, Stop, Shutdown, Exec time.Duration }

// Measured are the latencies of the lxc runtime on a machine of two cores, with
// a busybox container (see DESIGN.md there).
var Measured = Latency{Start: 20 * time.Millisecond, Stop: 6 * time.Millisecond, Shutdown: 40 * time.Millisecond, Exec: 5 * time.Millisecond}

// Config is what New needs.
type Config struct {
	// Latency is Measured if nil. Instant is for tests of something else.
	Latency *Latency
	// Memory is the machine's, in bytes; zero is 16 GiB.
	Memory int64
}

// Instant takes no time.
var Instant = Latency{}

// Runtime implements runtime.Runtime in memory.
type Runtime struct {
	latency Latency
	memory  int64
	events  chan struct{}

	// mu guards what follows. It is never held while anything sleeps.
	mu         sync.Mutex
	containers map[string]*container
	logs       map[string]*strings.Builder
	roots      map[string]sftp.Handlers
	busy       map[string]chan struct{}
	queue      []runtime.Event
	nextPID    int
}

var _ runtime.Runtime = (*Runtime)(nil)

// New returns a runtime without containers.
func New(cfg Config) *Runtime {
	latency := Measured
	if cfg.Latency != nil {
		latency = *cfg.Latency
	}
	memory := cfg.Memory
	if memory == 0 {
		memory = 16 << 30
	}
	return &Runtime{
		latency: latency, memory: memory, events: make(chan struct{}, 1), nextPID: 1000,
		containers: map[string]*container{}, logs: map[string]*strings.Builder{},
		roots: map[string]sftp.Handlers{}, busy: map[string]chan struct{}{},
	}
}

// container is one that runs.
type container struct {
	spec     runtime.Spec
	info     runtime.Info
	commands map[*command]bool
	console  *console
	proxies  []runtime.Proxy
}

// Driver implements runtime.Runtime.
func (r *Runtime) Driver() runtime.Driver { return runtime.Driver{Name: "sim", Version: "1"} }

// Close implements runtime.Runtime.
func (r *Runtime) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		c.end()
	}
	return nil
}

// LogFile implements runtime.Runtime. There are no files.
func (r *Runtime) LogFile(id, name string) string { return "/dev/null/" + id + "/" + name }

// hold makes the caller the only one who changes a container, and returns what
// lets the next one in.
func (r *Runtime) hold(id string) (release func()) {
	for {
		r.mu.Lock()
		others, held := r.busy[id]
		if !held {
			mine := make(chan struct{})
			r.busy[id] = mine
			r.mu.Unlock()
			return func() {
				r.mu.Lock()
				delete(r.busy, id)
				r.mu.Unlock()
				close(mine)
			}
		}
		r.mu.Unlock()
		<-others
	}
}

// take sleeps for d or until the context ends.
func take(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// find returns a running container. The caller holds mu.
func (r *Runtime) find(id string) (*container, error) {
	if err := runtime.ValidateID(id); err != nil {
		return nil, err
	}
	c, ok := r.containers[id]
	if !ok {
		return nil, state.Errorf(state.ErrNotFound, "container %s does not run", id)
	}
	return c, nil
}

// with calls f with a running container, under mu.
func (r *Runtime) with(id string, f func(*container) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.find(id)
	if err != nil {
		return err
	}
	return f(c)
}

// pid returns a number that nobody had. The caller holds mu.
func (r *Runtime) pid() int {
	r.nextPID++
	return r.nextPID
}

// Check implements runtime.Runtime.
func (r *Runtime) Check(_ context.Context, spec runtime.Spec) error { return spec.Validate() }

// CPUs implements runtime.Runtime: those of this machine, numbered from zero.
func (r *Runtime) CPUs() ([]int, error) {
	cpus := make([]int, goruntime.NumCPU())
	for i := range cpus {
		cpus[i] = i
	}
	return cpus, nil
}

// Try implements runtime.Runtime.
func (r *Runtime) Try(ctx context.Context, spec runtime.Spec) error { return r.Check(ctx, spec) }

// Start implements runtime.Runtime.
func (r *Runtime) Start(ctx context.Context, spec runtime.Spec) (runtime.Info, error) {
	if err := spec.Validate(); err != nil {
		return runtime.Info{}, err
	}
	defer r.hold(spec.ID)()
	conflict := func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.containers[spec.ID] != nil {
			return state.Errorf(state.ErrConflict, "container %s runs already", spec.ID)
		}
		return nil
	}
	if err := conflict(); err != nil {
		return runtime.Info{}, err
	}
	if err := take(ctx, r.latency.Start); err != nil {
		return runtime.Info{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &container{
		spec: spec, commands: map[*command]bool{}, proxies: slices.Clone(spec.Proxies),
		info: runtime.Info{
			ID: spec.ID, Status: state.StatusRunning, MonitorPID: r.pid(), InitPID: r.pid(),
			Boots: 1, StartedAt: time.Now(),
		},
	}
	r.containers[spec.ID] = c
	r.write(c, "booted "+spec.Hostname)
	return c.info, nil
}

// write writes a line to the console. The caller holds mu.
func (r *Runtime) write(c *container, line string) {
	log := r.logs[c.info.ID]
	if log == nil {
		log = &strings.Builder{}
		r.logs[c.info.ID] = log
	}
	log.WriteString(line + "\r\n")
	if c.console != nil {
		c.console.out.put(line + "\r\n")
	}
}

// end ends everything in the container. The caller holds mu.
func (c *container) end() {
	for command := range c.commands {
		command.finish(128 + 9)
	}
	if c.console != nil {
		c.console.out.close()
	}
}

// gone ends a container and tells. The caller holds mu.
func (r *Runtime) gone(c *container, reason runtime.ExitReason) {
	if r.containers[c.info.ID] != c {
		return
	}
	delete(r.containers, c.info.ID)
	c.end()
	r.tell(runtime.Event{ID: c.info.ID, Kind: runtime.EventExited, Reason: reason})
}

// again boots a container once more and tells. The caller holds mu.
func (r *Runtime) again(c *container) {
	for command := range c.commands {
		command.finish(128 + 9)
	}
	c.info.InitPID = r.pid()
	c.info.Boots++
	c.info.Status = state.StatusRunning
	c.info.StartedAt = time.Now()
	r.write(c, "booted "+c.spec.Hostname)
	r.tell(runtime.Event{ID: c.info.ID, Kind: runtime.EventRebooted, Info: c.info})
}

// tell queues an event. The caller holds mu.
func (r *Runtime) tell(event runtime.Event) {
	r.queue = append(r.queue, event)
	select {
	case r.events <- struct{}{}:
	default:
	}
}

// Run implements runtime.Runtime.
func (r *Runtime) Run(ctx context.Context, handle func(runtime.Event)) error {
	for {
		r.mu.Lock()
		events := r.queue
		r.queue = nil
		r.mu.Unlock()
		for _, event := range events {
			handle(event)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.events:
		}
	}
}

// Stop implements runtime.Runtime.
func (r *Runtime) Stop(ctx context.Context, id string, how runtime.Stop) error {
	reason, latency := runtime.ExitShutdown, r.latency.Shutdown
	if how.Force {
		reason, latency = runtime.ExitStopped, r.latency.Stop
	}
	defer r.hold(id)()
	if err := r.with(id, func(*container) error { return nil }); err != nil {
		return err
	}
	if err := r.waits(ctx, id, how, latency); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[id]; c != nil {
		r.gone(c, reason)
	}
	return nil
}

// waits takes as long as init does to halt.
func (r *Runtime) waits(ctx context.Context, id string, how runtime.Stop, latency time.Duration) error {
	if !how.Force && how.Timeout > 0 && how.Timeout < latency {
		if err := take(ctx, how.Timeout); err != nil {
			return err
		}
		return state.Errorf(state.ErrUnavailable, "container %s did not shut down within %s; it still runs, force would stop it", id, how.Timeout)
	}
	return take(ctx, latency)
}

// Restart implements runtime.Runtime.
func (r *Runtime) Restart(ctx context.Context, id string, how runtime.Stop) (runtime.Info, error) {
	defer r.hold(id)()
	if err := r.with(id, func(*container) error { return nil }); err != nil {
		return runtime.Info{}, err
	}
	latency := r.latency.Shutdown
	if how.Force {
		latency = r.latency.Stop
	}
	if err := r.waits(ctx, id, how, latency); err != nil {
		return runtime.Info{}, err
	}
	if err := take(ctx, r.latency.Start); err != nil {
		return runtime.Info{}, err
	}
	var info runtime.Info
	err := r.with(id, func(c *container) error {
		r.again(c)
		info = c.info
		return nil
	})
	return info, err
}

// Freeze implements runtime.Runtime.
func (r *Runtime) Freeze(_ context.Context, id string) error {
	return r.setStatus(id, state.StatusFrozen)
}

// Unfreeze implements runtime.Runtime.
func (r *Runtime) Unfreeze(_ context.Context, id string) error {
	return r.setStatus(id, state.StatusRunning)
}

func (r *Runtime) setStatus(id string, status state.Status) error {
	defer r.hold(id)()
	return r.with(id, func(c *container) error {
		c.info.Status = status
		return nil
	})
}

// Info implements runtime.Runtime.
func (r *Runtime) Info(_ context.Context, id string) (runtime.Info, error) {
	var info runtime.Info
	err := r.with(id, func(c *container) error {
		info = c.info
		return nil
	})
	return info, err
}

// List implements runtime.Runtime.
func (r *Runtime) List(context.Context) ([]runtime.Info, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []runtime.Info
	for _, c := range r.containers {
		list = append(list, c.info)
	}
	slices.SortFunc(list, func(a, b runtime.Info) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// Cleanup implements runtime.Runtime.
func (r *Runtime) Cleanup(_ context.Context, id string) error {
	if err := runtime.ValidateID(id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.containers[id] != nil {
		return state.Errorf(state.ErrConflict, "container %s runs", id)
	}
	return nil
}

// Remove implements runtime.Runtime.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if err := r.Cleanup(ctx, id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.logs, id)
	return nil
}

// Rename implements runtime.Runtime.
func (r *Runtime) Rename(ctx context.Context, id, newID string) error {
	if err := runtime.ValidateID(newID); err != nil {
		return err
	}
	if err := r.Cleanup(ctx, id); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	log, ok := r.logs[id]
	if !ok {
		return nil
	}
	if r.logs[newID] != nil {
		return state.Errorf(state.ErrExists, "container %s has a run directory already", newID)
	}
	r.logs[newID] = log
	delete(r.logs, id)
	return nil
}

// ConsoleLog implements runtime.Runtime.
func (r *Runtime) ConsoleLog(_ context.Context, id string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	log, ok := r.logs[id]
	if !ok {
		return nil, state.Errorf(state.ErrNotFound, "container %s has no console log: it has never run here", id)
	}
	return []byte(log.String()), nil
}

// ClearConsoleLog implements runtime.Runtime.
func (r *Runtime) ClearConsoleLog(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.logs[id] == nil {
		return state.Errorf(state.ErrNotFound, "container %s has no console log: it has never run here", id)
	}
	r.logs[id] = &strings.Builder{}
	return nil
}

// Console implements runtime.Runtime.
func (r *Runtime) Console(_ context.Context, id string) (runtime.Terminal, error) {
	var terminal runtime.Terminal
	err := r.with(id, func(c *container) error {
		if c.console != nil {
			return state.Errorf(state.ErrConflict, "the console of container %s is in use", id)
		}
		c.console = &console{out: newStream(), release: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			c.console = nil
		}}
		terminal = c.console
		return nil
	})
	return terminal, err
}

// Files implements runtime.Runtime. Each root file system is kept in memory, by
// its path; what is at that path on the machine is not looked at.
func (r *Runtime) Files(ctx context.Context, id string) (io.ReadWriteCloser, error) {
	root := ""
	err := r.with(id, func(c *container) error {
		root = c.spec.Rootfs
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r.RootFiles(ctx, root, nil)
}
