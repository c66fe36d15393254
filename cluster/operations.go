package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// OperationInfo is a background operation as clients see it (LXD REST API,
// "Background operation"); the JSON names are the API's.
type OperationInfo struct {
	ID          string              `json:"id"`
	Class       string              `json:"class"`
	Description string              `json:"description"`
	CreatedAt   time.Time           `json:"created_at"`
	UpdatedAt   time.Time           `json:"updated_at"`
	Status      string              `json:"status"`
	StatusCode  int                 `json:"status_code"`
	Resources   map[string][]string `json:"resources"`
	Metadata    map[string]any      `json:"metadata"`
	MayCancel   bool                `json:"may_cancel"`
	Err         string              `json:"err"`
	// Location is the name of the member that carries the operation out.
	Location string `json:"location"`

	// Project and Member are for the caller's own use; the API does not show
	// them here.
	Project string `json:"-"`
	Member  string `json:"-"`
	// Requestor is who began it, or nil.
	Requestor *state.Requestor `json:"-"`
}

// Final reports whether the operation has ended.
func (o OperationInfo) Final() bool { return coord.StatusCode(o.StatusCode).Final() }

// OperationSpec describes an operation to start.
type OperationSpec struct {
	// Class is coord.ClassTask when empty.
	Class       coord.Class
	Description string
	// Project is empty for an operation of the whole server.
	Project string
	// Resources are the URLs of what the operation works on, by their kind.
	Resources map[string][]string
	// MayCancel lets clients cancel; the run function's context then ends.
	MayCancel bool
	// Metadata is what clients see from the beginning. It is written to the
	// log, so it survives a restart and must hold no websocket secret.
	Metadata map[string]any
	// Input is what repeating the operation would need; it is kept as JSON.
	Input any
	// Sockets names the websockets that clients are to connect (for exec "0",
	// "1", "2"), OptionalSockets those that may come late or never
	// ("control"). For coord.ClassWebsocket only.
	Sockets         []string
	OptionalSockets []string
	// Tied says that the work must not go on once nobody can follow it: when the cluster has
	// ended the operation, since its member was offline, and when the daemon is to end.
	// Work with websockets always is.
	Tied bool
	// ConnectTimeout is how long Operation.Sockets waits; zero means 5 s.
	ConnectTimeout time.Duration
}

func (s *OperationSpec) check(run func(context.Context, *Operation) error) error {
	s.Class = cmp.Or(s.Class, coord.ClassTask)
	s.Tied = s.Tied || s.Class == coord.ClassWebsocket
	s.ConnectTimeout = cmp.Or(s.ConnectTimeout, 5*time.Second)
	sockets := slices.Concat(s.Sockets, s.OptionalSockets)
	switch {
	case s.Class != coord.ClassTask && s.Class != coord.ClassWebsocket && s.Class != coord.ClassToken:
		return state.Errorf(state.ErrInvalid, "unknown class of operation %q: use task, websocket or token", s.Class)
	case run == nil && s.Class != coord.ClassToken:
		return state.Errorf(state.ErrInvalid, "an operation of class %s does something", s.Class)
	case (len(sockets) > 0) != (s.Class == coord.ClassWebsocket):
		return state.Errorf(state.ErrInvalid, "sockets and the class websocket go together")
	case len(slices.Compact(slices.Sorted(slices.Values(sockets)))) != len(sockets):
		return state.Errorf(state.ErrInvalid, "a socket is named twice among %q", sockets)
	}
	return nil
}

// registry is what the runner needs of the coordination plane.
type registry interface {
	Propose(ctx context.Context, entry coord.Entry) (uint64, error)
	Operations() []coord.Operation
	Operation(id string) (coord.Operation, bool)
	WaitOperation(ctx context.Context, id string) (coord.Operation, error)
}

// OperationsConfig is what NewOperations needs.
type OperationsConfig struct {
	// Coord is the coordination plane; a *coord.Node is one. Required.
	Coord registry
	// Member is this member's ID. Required.
	Member string
	// Location turns a member's ID into the name clients know; nil means
	// "none", which is what a server outside a cluster says.
	Location func(memberID string) string
	// Entitled reports whether who began an operation may still have what it lets others
	// in to; nil means always.
	Entitled func(requestor *state.Requestor, project string) bool
	// Events receives progress; nil drops it.
	Events *Events
	Log    *slog.Logger
}

// Operations runs this member's background operations and answers for those of
// every member. Its methods may be called from any goroutine.
type Operations struct {
	cfg OperationsConfig

	mu sync.Mutex
	// running are this member's operations that have a run function.
	// Guarded by mu.
	running map[string]*Operation
	closed  bool // guarded by mu
	// abandon is closed when Close has waited long enough.
	abandon     chan struct{}
	abandonOnce sync.Once
	// work counts the operations, and what lingers after them.
	work sync.WaitGroup
}

// NewOperations returns a runner of operations.
func NewOperations(cfg OperationsConfig) (*Operations, error) {
	if cfg.Coord == nil || cfg.Member == "" {
		return nil, state.Errorf(state.ErrInvalid, "operations need the coordination plane and this member's ID")
	}
	if cfg.Location == nil {
		cfg.Location = func(string) string { return "none" }
	}
	if cfg.Entitled == nil {
		cfg.Entitled = func(*state.Requestor, string) bool { return true }
	}
	if cfg.Events == nil {
		cfg.Events = NewEvents(EventsConfig{})
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Operations{cfg: cfg, running: map[string]*Operation{}, abandon: make(chan struct{})}, nil
}

var (
	errStopping  = state.Errorf(state.ErrUnavailable, "the daemon is shutting down")
	errRevoked   = state.Errorf(state.ErrForbidden, "the client that began this is not trusted any more")
	errCancelled = state.Errorf(state.ErrConflict, "the operation was cancelled")
)

// Start registers an operation and runs it. It returns once the operation is
// registered, Running; run goes on in a goroutine of its own. Run's context
// keeps ctx's values but ends only when the operation is cancelled or the
// daemon shuts down. What run returns decides the final status: nil is Success;
// an error is Failure with its text, or Cancelled when the operation was
// cancelled. A panic is Failure. A nil run is allowed for coord.ClassToken: such
// an operation is Running until Finish or Cancel, also across restarts.
func (o *Operations) Start(ctx context.Context, spec OperationSpec, run func(ctx context.Context, op *Operation) error) (OperationInfo, error) {
	if err := spec.check(run); err != nil {
		return OperationInfo{}, err
	}
	entry, err := o.entry(ctx, spec)
	if err != nil {
		return OperationInfo{}, err
	}
	if run == nil {
		if _, err := o.cfg.Coord.Propose(ctx, entry); err != nil {
			return OperationInfo{}, fmt.Errorf("register the operation %q: %w", spec.Description, err)
		}
		return o.Get(entry.Operation.ID)
	}
	// The operation outlives the request that asked for it.
	background, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	op := &Operation{
		ops: o, spec: spec, id: entry.Operation.ID, cancel: cancel, started: entry.Operation.CreatedAt,
		metadata: maps.Clone(spec.Metadata), done: make(chan struct{}), sockets: newSockets(spec),
	}
	if !o.enter(op) {
		cancel(errStopping)
		return OperationInfo{}, errStopping
	}
	// In the books first: whoever hears of it by an event finds it.
	if _, err := o.cfg.Coord.Propose(ctx, entry); err != nil {
		cancel(err)
		o.withdraw(ctx, op, err)
		return OperationInfo{}, fmt.Errorf("register the operation %q: %w", spec.Description, err)
	}
	info, err := o.Get(op.id)
	go func() { // owned by work, see enter
		defer o.work.Done()
		defer cancel(nil)
		op.execute(background, run)
	}()
	return info, err
}

func (o *Operations) entry(ctx context.Context, spec OperationSpec) (coord.StartOperation, error) {
	now := time.Now().UTC()
	op := coord.Operation{
		ID: uuid.NewString(), Class: spec.Class, Description: spec.Description, Member: o.cfg.Member, Project: spec.Project,
		Resources: spec.Resources, MayCancel: spec.MayCancel, CreatedAt: now, UpdatedAt: now,
		Requestor: store.RequestorOf(ctx),
	}
	var err error
	if op.Metadata, err = encodeMetadata(spec.Metadata); err != nil {
		return coord.StartOperation{}, fmt.Errorf("metadata of the operation %q: %w", spec.Description, err)
	}
	if spec.Input != nil {
		if op.Input, err = json.Marshal(spec.Input); err != nil {
			return coord.StartOperation{}, fmt.Errorf("input of the operation %q: %w", spec.Description, err)
		}
	}
	return coord.StartOperation{Operation: op}, nil
}

func encodeMetadata(metadata map[string]any) (json.RawMessage, error) {
	if len(metadata) == 0 {
		return nil, nil
	}
	return json.Marshal(metadata)
}

// enter takes an operation into the books and counts it as work. It reports
// false when the runner is closed.
func (o *Operations) enter(op *Operation) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.running[op.id] = op
	o.work.Add(1)
	return true
}

func (o *Operations) leave(op *Operation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.running, op.id)
}

// withdraw forgets an operation whose registration failed. When nobody knows
// whether it took place, its end is recorded, should it have.
func (o *Operations) withdraw(ctx context.Context, op *Operation, err error) {
	defer o.work.Done()
	o.leave(op)
	close(op.done)
	if coord.NotApplied(err) {
		return
	}
	end := coord.FinishOperation{ID: op.id, Status: coord.Failure, Err: err.Error(), At: time.Now().UTC()}
	if _, err := o.cfg.Coord.Propose(context.WithoutCancel(ctx), end); err != nil && !errors.Is(err, state.ErrNotFound) {
		o.cfg.Log.Warn("could not withdraw an operation", "operation", op.id, "error", err)
	}
}

// execute runs the operation to its end and records it.
func (op *Operation) execute(ctx context.Context, run func(context.Context, *Operation) error) {
	o := op.ops
	// A run function that hangs on a websocket would not see the context end.
	unblock := context.AfterFunc(ctx, op.abandonSockets)
	follow, followed := op.followRecord(ctx)
	err := op.call(ctx, run)
	follow()
	followed.Wait()
	unblock()
	op.closeSockets()
	end := op.end(ctx, err)
	o.record(ctx, end)
	o.leave(op)
	close(op.done)
}

// followRecord ends the run function of a tied operation when the cluster has ended the
// operation. The caller calls stop and waits for what is left.
func (op *Operation) followRecord(ctx context.Context) (stop func(), left *sync.WaitGroup) {
	left = &sync.WaitGroup{}
	if !op.spec.Tied {
		return func() {}, left
	}
	ctx, cancel := context.WithCancel(ctx)
	left.Go(func() {
		if end, err := op.ops.cfg.Coord.WaitOperation(ctx, op.id); err == nil && ctx.Err() == nil {
			op.cancel(state.Errorf(state.ErrUnavailable, "the operation has ended without it: %s", end.Err))
		}
	})
	return cancel, left
}

// call runs the function; a panic becomes an error.
func (op *Operation) call(ctx context.Context, run func(context.Context, *Operation) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			op.ops.cfg.Log.Error("an operation panicked", "operation", op.id, "description", op.spec.Description, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	return run(ctx, op)
}

// end is the entry that records how the operation ended. From here on there is
// no progress any more.
func (op *Operation) end(ctx context.Context, err error) coord.FinishOperation {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.ended = true
	if op.tick != nil {
		op.tick.Stop()
	}
	end := coord.FinishOperation{ID: op.id, Status: coord.Success, At: time.Now().UTC()}
	if err != nil {
		end.Status, end.Err = coord.Failure, err.Error()
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, errCancelled):
			end.Status, end.Err = coord.Cancelled, errCancelled.Error()
		case errors.Is(err, context.Canceled) && cause != nil:
			end.Err = cause.Error()
		}
		if end.Err == "" {
			end.Err = "unknown error" // clients take an empty text for success
		}
	}
	metadata, encodeErr := encodeMetadata(op.metadata)
	if encodeErr != nil {
		op.ops.cfg.Log.Error("the metadata of an operation cannot be kept", "operation", op.id, "error", encodeErr)
	}
	end.Metadata = metadata
	return end
}

// record proposes the end of an operation until it is in the log. Without a
// coordinator that lasts as long as it lasts: clients wait for nothing else.
func (o *Operations) record(ctx context.Context, end coord.FinishOperation) {
	ctx = context.WithoutCancel(ctx) // an operation that was cancelled ends as well
	for {
		_, err := o.cfg.Coord.Propose(ctx, end)
		switch {
		case err == nil:
			return
		case errors.Is(err, state.ErrConflict), errors.Is(err, state.ErrNotFound):
			// The cluster has given this member up and ended the operation.
			o.cfg.Log.Info("an operation had been ended by the cluster", "operation", end.ID, "error", err)
			return
		}
		o.cfg.Log.Debug("could not record the end of an operation", "operation", end.ID, "error", err)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-o.abandon:
			return
		}
	}
}

// View turns an operation of the registry into what clients see, with its
// progress when it runs here and without the secrets of its websockets.
func (o *Operations) View(op coord.Operation) OperationInfo { return o.show(op, false) }

func (o *Operations) show(op coord.Operation, secrets bool) OperationInfo {
	info := o.showBare(op)
	if !op.Status.Final() {
		if live := o.find(op.ID); live != nil {
			live.overlay(&info, secrets)
		}
	}
	return info
}

// showBare shows what the registry knows.
func (o *Operations) showBare(op coord.Operation) OperationInfo {
	info := OperationInfo{
		ID: op.ID, Class: string(op.Class), Description: op.Description, CreatedAt: op.CreatedAt, UpdatedAt: op.UpdatedAt,
		Status: op.Status.String(), StatusCode: int(op.Status), Resources: op.Resources, Metadata: map[string]any{},
		MayCancel: op.MayCancel, Err: op.Err, Location: o.cfg.Location(op.Member), Project: op.Project, Member: op.Member,
		Requestor: op.Requestor,
	}
	if info.Resources == nil {
		info.Resources = map[string][]string{}
	}
	if len(op.Metadata) > 0 {
		if err := json.Unmarshal(op.Metadata, &info.Metadata); err != nil || info.Metadata == nil {
			info.Metadata = map[string]any{}
		}
	}
	return info
}

func (o *Operations) find(id string) *Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.running[id]
}

// Get returns an operation of any member. An unknown one is ErrNotFound.
func (o *Operations) Get(id string) (OperationInfo, error) {
	op, known := o.cfg.Coord.Operation(id)
	if !known {
		return OperationInfo{}, state.Errorf(state.ErrNotFound, "operation %q not found", id)
	}
	return o.show(op, true), nil
}

// List returns the operations of a project with those of the whole server, in
// the order they were started; all of them with allProjects.
func (o *Operations) List(project string, allProjects bool) []OperationInfo {
	all := o.cfg.Coord.Operations()
	infos := make([]OperationInfo, 0, len(all))
	for _, op := range all {
		if allProjects || op.Project == "" || op.Project == cmp.Or(project, state.DefaultProject) {
			infos = append(infos, o.show(op, true))
		}
	}
	return infos
}

// Wait waits until the operation has ended, for timeout at most (negative:
// without limit), and returns it as it then is; a timeout is no error.
func (o *Operations) Wait(ctx context.Context, id string, timeout time.Duration) (OperationInfo, error) {
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if timeout >= 0 {
		waiting, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	op, err := o.cfg.Coord.WaitOperation(waiting, id)
	switch {
	case err == nil || waiting.Err() != nil && ctx.Err() == nil && op.ID != "":
		return o.show(op, true), nil
	case ctx.Err() != nil:
		return OperationInfo{}, state.Errorf(state.ErrUnavailable, "gave up waiting for operation %s: %w", id, ctx.Err())
	}
	return OperationInfo{}, err
}

// Cancel asks an operation to end; it ends as Cancelled soon after. An
// operation that has ended is ErrConflict, one that may not be cancelled is
// ErrInvalid.
func (o *Operations) Cancel(ctx context.Context, id string) error {
	op, known := o.cfg.Coord.Operation(id)
	switch {
	case !known:
		return state.Errorf(state.ErrNotFound, "operation %q not found", id)
	case op.Status.Final():
		return state.Errorf(state.ErrConflict, "operation %s has ended already: %s", id, op.Status)
	case !op.MayCancel:
		return state.Errorf(state.ErrInvalid, "operation %s (%s) cannot be cancelled: wait for its end", id, op.Description)
	}
	if live := o.find(id); live != nil {
		live.cancel(errCancelled)
		return nil
	}
	if op.Class != coord.ClassToken {
		return state.Errorf(state.ErrUnavailable, "operation %s runs on another member: cancel it there", id)
	}
	return o.finish(ctx, coord.FinishOperation{ID: id, Status: coord.Cancelled, Err: errCancelled.Error(), At: time.Now().UTC()})
}

// registered are the operations of every member as the log has them.
func (o *Operations) registered() []coord.Operation { return o.cfg.Coord.Operations() }

// revoke ends an operation whose client is not trusted any more: one with websockets if it
// runs here, a token wherever it was made.
func (o *Operations) revoke(ctx context.Context, op coord.Operation) error {
	if live := o.find(op.ID); live != nil {
		live.cancel(errRevoked)
		return nil
	}
	if op.Class != coord.ClassToken {
		return nil // its own member ends it
	}
	return o.finish(ctx, coord.FinishOperation{ID: op.ID, Status: coord.Cancelled, Err: errRevoked.Error(), At: time.Now().UTC()})
}

// Finish ends a token operation as used up.
func (o *Operations) Finish(ctx context.Context, id string) error {
	op, known := o.cfg.Coord.Operation(id)
	if known && op.Class != coord.ClassToken {
		return state.Errorf(state.ErrInvalid, "operation %s is no token: it ends when its work does", id)
	}
	if live := o.find(id); live != nil {
		return state.Errorf(state.ErrInvalid, "operation %s ends when its work does", id)
	}
	return o.finish(ctx, coord.FinishOperation{ID: id, Status: coord.Success, At: time.Now().UTC()})
}

func (o *Operations) finish(ctx context.Context, end coord.FinishOperation) error {
	_, err := o.cfg.Coord.Propose(ctx, end)
	return err
}

// Running returns how many operations run on this member now, tokens not
// counted.
func (o *Operations) Running() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.running)
}

// closeGrace is how long Close waits for operations after it has cancelled them.
const closeGrace = 5 * time.Second

// Close refuses new operations and cancels the tied ones, such as those with
// websockets, whose clients lose their connections anyway. Tasks may end until ctx does; what is
// left then is cancelled, and fails with "the daemon is shutting down". It
// returns ErrUnavailable when even so something did not end, and may be called
// twice.
func (o *Operations) Close(ctx context.Context) error {
	o.mu.Lock()
	o.closed = true
	for _, op := range o.running {
		if op.spec.Tied {
			op.cancel(errStopping)
		}
	}
	o.mu.Unlock()
	ended := make(chan struct{})
	go func() { // ends when the work does
		o.work.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	o.mu.Lock()
	left := slices.Collect(maps.Values(o.running))
	o.mu.Unlock()
	for _, op := range left {
		op.cancel(errStopping)
	}
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	select {
	case <-ended:
		return nil
	case <-grace.C:
	}
	o.abandonOnce.Do(func() { close(o.abandon) })
	select {
	case <-ended:
		return nil
	case <-time.After(100 * time.Millisecond):
	}
	return state.Errorf(state.ErrUnavailable, "%d operations did not end", o.Running())
}
