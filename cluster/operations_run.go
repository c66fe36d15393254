package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"

	"muster/cluster/coord"
	"muster/state"
)

// Operations runs this member's background operations and answers for those of
// every member.
type Operations struct {
	cfg OperationsConfig
	log *slog.Logger

	// running counts run functions, so that Close can wait for them.
	running sync.WaitGroup

	mu     sync.Mutex
	live   map[string]*Operation // guarded by mu; those with something only the owner knows
	closed bool                  // guarded by mu
}

// NewOperations returns a runner of operations.
func NewOperations(cfg OperationsConfig) (*Operations, error) {
	if cfg.Coord == nil || cfg.Member == "" {
		return nil, state.Errorf(state.ErrInvalid, "operations need the coordination plane and the member's ID")
	}
	if cfg.Location == nil {
		cfg.Location = func(string) string { return "none" }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Operations{cfg: cfg, log: cfg.Log, live: map[string]*Operation{}}, nil
}

// Operation is a running operation in the hands of its run function.
type Operation struct {
	id     string
	owner  *Operations
	spec   OperationSpec
	opened time.Time
	cancel context.CancelFunc
	// sockets are fixed at the start; each guards itself.
	sockets map[string]*operationSocket
	// done is closed when the operation has ended and its sockets are closed.
	done chan struct{}

	mu        sync.Mutex
	metadata  map[string]any // guarded by mu
	cancelled bool           // guarded by mu
	ticked    time.Time      // guarded by mu; when listeners were last told of progress
}

// Start registers an operation and runs it. It returns once the operation is
// registered, Running; run goes on in a goroutine of its own. Run's context
// keeps ctx's values but ends only when the operation is cancelled or the
// daemon shuts down. What run returns decides the final status: nil is Success;
// an error is Failure with its text, or Cancelled when the operation was
// cancelled. A panic is Failure. A nil run is allowed for coord.ClassToken: such
// an operation is Running until Finish or Cancel.
func (o *Operations) Start(ctx context.Context, spec OperationSpec, run func(ctx context.Context, op *Operation) error) (OperationInfo, error) {
	if spec.Class == "" {
		spec.Class = coord.ClassTask
	}
	if spec.ConnectTimeout == 0 {
		spec.ConnectTimeout = 5 * time.Second
	}
	if run == nil && spec.Class != coord.ClassToken {
		return OperationInfo{}, state.Errorf(state.ErrInvalid, "an operation of class %s needs something to run", spec.Class)
	}
	registered, err := o.describe(spec)
	if err != nil {
		return OperationInfo{}, err
	}
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	op := &Operation{
		id: registered.ID, owner: o, spec: spec, opened: time.Now(), cancel: cancel, done: make(chan struct{}),
		metadata: maps.Clone(spec.Metadata), sockets: map[string]*operationSocket{},
	}
	if op.metadata == nil {
		op.metadata = map[string]any{}
	}
	op.openSockets()
	if run != nil {
		if err := o.admit(op); err != nil {
			cancel()
			return OperationInfo{}, err
		}
	}
	if _, err := o.cfg.Coord.Propose(ctx, coord.StartOperation{Operation: registered}); err != nil {
		cancel()
		if run != nil {
			o.forget(op)
			o.running.Done()
		}
		return OperationInfo{}, err
	}
	if run == nil {
		cancel()
		return o.View(registered), nil
	}
	info := o.view(registered, true)
	go o.run(runCtx, op, run)
	return info, nil
}

// describe is the operation as the log will know it.
func (o *Operations) describe(spec OperationSpec) (coord.Operation, error) {
	now := time.Now().UTC()
	registered := coord.Operation{
		ID: uuid.NewString(), Class: spec.Class, Description: spec.Description, Member: o.cfg.Member, Project: spec.Project,
		Resources: spec.Resources, Status: coord.Running, CreatedAt: now, UpdatedAt: now, MayCancel: spec.MayCancel,
	}
	var err error
	if len(spec.Metadata) > 0 {
		if registered.Metadata, err = json.Marshal(spec.Metadata); err != nil {
			return registered, fmt.Errorf("encode the operation's metadata: %w", err)
		}
	}
	if spec.Input != nil {
		if registered.Input, err = json.Marshal(spec.Input); err != nil {
			return registered, fmt.Errorf("encode the operation's input: %w", err)
		}
	}
	return registered, nil
}

func (o *Operations) admit(op *Operation) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return state.Errorf(state.ErrUnavailable, "the daemon is shutting down: try again when it is back")
	}
	o.live[op.id] = op
	o.running.Add(1)
	return nil
}

func (o *Operations) forget(op *Operation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.live, op.id)
}

func (o *Operations) find(id string) *Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.live[id]
}

// run carries the operation to its end.
func (o *Operations) run(ctx context.Context, op *Operation, run func(ctx context.Context, op *Operation) error) {
	defer o.running.Done()
	defer close(op.done)
	defer op.cancel()
	err := o.guarded(ctx, op, run)
	status, text := coord.Success, ""
	if err != nil {
		status, text = coord.Failure, err.Error()
		op.mu.Lock()
		if op.cancelled {
			status = coord.Cancelled
		}
		op.mu.Unlock()
		o.log.Info("operation failed", "operation", op.id, "description", op.spec.Description, "error", err)
	}
	o.settle(ctx, op, status, text)
	o.forget(op)
	op.hangUp()
}

// guarded turns a panic into a failure.
func (o *Operations) guarded(ctx context.Context, op *Operation, run func(ctx context.Context, op *Operation) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			o.log.Error("operation panicked", "operation", op.id, "description", op.spec.Description, "panic", p, "stack", string(debug.Stack()))
			err = errors.New("the daemon hit a fault of its own; its log has the details")
		}
	}()
	return run(ctx, op)
}

// settle records the end. It is tried for a while: a waiting client must learn of
// it.
func (o *Operations) settle(ctx context.Context, op *Operation, status coord.StatusCode, text string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	op.mu.Lock()
	metadata, err := json.Marshal(op.metadata)
	op.mu.Unlock()
	if err != nil {
		o.log.Error("encode what an operation found", "operation", op.id, "error", err)
		metadata = nil
	}
	_, err = o.cfg.Coord.Propose(ctx, coord.FinishOperation{ID: op.id, Status: status, Err: text, Metadata: metadata, At: time.Now().UTC()})
	if err != nil {
		o.log.Error("record the end of an operation", "operation", op.id, "error", err)
	}
}

// ID returns the operation's UUID.
func (op *Operation) ID() string { return op.id }

// tickEvery is how often listeners hear of progress at most.
const tickEvery = 500 * time.Millisecond

// UpdateMetadata lays values over the operation's metadata. Clients that read
// the operation see it at once; listeners to events get it at most twice a
// second. The last values become part of the finished operation.
func (op *Operation) UpdateMetadata(values map[string]any) {
	op.mu.Lock()
	maps.Copy(op.metadata, values)
	tell := time.Since(op.ticked) >= tickEvery
	if tell {
		op.ticked = time.Now()
	}
	op.mu.Unlock()
	if !tell || op.owner.cfg.Events == nil {
		return
	}
	if registered, ok := op.owner.cfg.Coord.Operation(op.id); ok && !registered.Status.Final() {
		op.owner.cfg.Events.operation(op.owner.View(registered))
	}
}

// View turns an operation of the log into what clients see, with what only its
// owner knows, but without the secrets of its websockets.
func (o *Operations) View(registered coord.Operation) OperationInfo { return o.view(registered, false) }

func (o *Operations) view(registered coord.Operation, secrets bool) OperationInfo {
	info := OperationInfo{
		ID: registered.ID, Class: string(registered.Class), Description: registered.Description,
		CreatedAt: registered.CreatedAt, UpdatedAt: registered.UpdatedAt,
		Status: registered.Status.String(), StatusCode: int(registered.Status),
		Resources: registered.Resources, Metadata: map[string]any{}, MayCancel: registered.MayCancel && !registered.Status.Final(),
		Err: registered.Err, Location: o.cfg.Location(registered.Member), Project: registered.Project, Member: registered.Member,
	}
	if len(registered.Metadata) > 0 {
		if err := json.Unmarshal(registered.Metadata, &info.Metadata); err != nil {
			o.log.Error("read an operation's metadata", "operation", registered.ID, "error", err)
		}
	}
	op := o.find(registered.ID)
	if op == nil || registered.Status.Final() {
		return info
	}
	op.mu.Lock()
	maps.Copy(info.Metadata, op.metadata)
	op.mu.Unlock()
	if secrets && len(op.sockets) > 0 {
		fds := map[string]any{}
		for name, socket := range op.sockets {
			fds[name] = socket.secret
		}
		info.Metadata["fds"] = fds
	}
	return info
}

// Get returns an operation of any member. An unknown one is ErrNotFound.
func (o *Operations) Get(id string) (OperationInfo, error) {
	registered, ok := o.cfg.Coord.Operation(id)
	if !ok {
		return OperationInfo{}, state.Errorf(state.ErrNotFound, "operation %q not found", id)
	}
	return o.view(registered, true), nil
}

// List returns the operations of a project with those of the whole server, in
// the order they were started; all of them with allProjects.
func (o *Operations) List(project string, allProjects bool) []OperationInfo {
	list := []OperationInfo{}
	for _, registered := range o.cfg.Coord.Operations() {
		if allProjects || registered.Project == "" || registered.Project == project {
			list = append(list, o.View(registered))
		}
	}
	return list
}

// Wait waits until the operation has ended, for timeout at most (negative:
// without limit), and returns it as it then is; a timeout is no error.
func (o *Operations) Wait(ctx context.Context, id string, timeout time.Duration) (OperationInfo, error) {
	waiting := ctx
	if timeout >= 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	registered, err := o.cfg.Coord.WaitOperation(waiting, id)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return OperationInfo{}, err
	}
	if ctx.Err() != nil {
		return OperationInfo{}, ctx.Err()
	}
	return o.view(registered, true), nil
}

// Cancel asks an operation to end; it ends as Cancelled soon after. An
// operation that has ended is ErrConflict, one that may not be cancelled is
// ErrInvalid.
func (o *Operations) Cancel(ctx context.Context, id string) error {
	registered, ok := o.cfg.Coord.Operation(id)
	switch {
	case !ok:
		return state.Errorf(state.ErrNotFound, "operation %q not found", id)
	case registered.Status.Final():
		return state.Errorf(state.ErrConflict, "operation %q has ended already", id)
	case !registered.MayCancel:
		return state.Errorf(state.ErrInvalid, "operation %q (%s) can't be cancelled: wait until it has ended", id, registered.Description)
	}
	op := o.find(id)
	if op == nil {
		return o.conclude(ctx, id, coord.Cancelled)
	}
	op.mu.Lock()
	op.cancelled = true
	op.mu.Unlock()
	op.cancel()
	return nil
}

// Finish ends a token operation as used up.
func (o *Operations) Finish(ctx context.Context, id string) error {
	return o.conclude(ctx, id, coord.Success)
}

func (o *Operations) conclude(ctx context.Context, id string, status coord.StatusCode) error {
	_, err := o.cfg.Coord.Propose(ctx, coord.FinishOperation{ID: id, Status: status, At: time.Now().UTC()})
	return err
}

// Running returns how many operations run on this member now, tokens not
// counted.
func (o *Operations) Running() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.live)
}

// Close refuses new operations, lets running ones end until ctx does, then
// cancels what is left and waits for it. It may be called twice.
func (o *Operations) Close(ctx context.Context) error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		o.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	o.mu.Lock()
	for _, op := range o.live {
		op.cancel()
	}
	o.mu.Unlock()
	<-ended
	return ctx.Err()
}
