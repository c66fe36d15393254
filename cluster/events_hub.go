package cluster

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster/cluster/coord"
	"muster/state"
)

// Events passes events to whoever listens.
type Events struct {
	cfg EventsConfig
	// logging counts the listeners to logging events, so that a log call costs
	// nothing while there are none.
	logging atomic.Int32

	mu        sync.Mutex
	listeners map[*Listener]struct{} // guarded by mu
	closed    bool                   // guarded by mu
}

// NewEvents returns a hub without listeners.
func NewEvents(cfg EventsConfig) *Events {
	if cfg.Location == nil {
		cfg.Location = func() string { return "none" }
	}
	if cfg.MaxBehind == 0 {
		cfg.MaxBehind = 16384
	}
	return &Events{cfg: cfg, listeners: map[*Listener]struct{}{}}
}

// send encodes an event, if somebody wants it, and hands it to them.
func (e *Events) send(kind string, at time.Time, location, project string, metadata any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var event *Event
	for listener := range e.listeners {
		if !listener.wants(kind, project) {
			continue
		}
		if event == nil {
			encoded, err := json.Marshal(struct {
				Type      string    `json:"type"`
				Timestamp time.Time `json:"timestamp"`
				Metadata  any       `json:"metadata"`
				Location  string    `json:"location,omitempty"`
				Project   string    `json:"project,omitempty"`
			}{kind, at, metadata, location, project})
			if err != nil {
				return // only a log record can hold what has no JSON
			}
			event = &Event{Type: kind, Timestamp: at, Location: location, Project: project, encoded: encoded}
		}
		listener.push(event, e.cfg.MaxBehind)
	}
}

// Follow makes operation events from the changes of a replica, until the result
// is called. View turns an operation into what clients see.
func (e *Events) Follow(replica *coord.Replica, view func(coord.Operation) OperationInfo) (stop func()) {
	return replica.SubscribeOperations(func(op coord.Operation) { e.operation(view(op)) })
}

// operation sends an operation as it is now.
func (e *Events) operation(info OperationInfo) {
	e.send(EventOperation, info.UpdatedAt, info.Location, info.Project, info)
}

// Lifecycle sends a lifecycle event. It never blocks.
func (e *Events) Lifecycle(at time.Time, project string, event Lifecycle) {
	e.send(EventLifecycle, at, e.cfg.Location(), project, event)
}

// LogHandler returns a handler that passes records to next and, while somebody
// listens to logging events, to them as well, whatever next's level. It never
// blocks on a listener.
func (e *Events) LogHandler(next slog.Handler) slog.Handler {
	return &logHandler{events: e, next: next}
}

type logHandler struct {
	events *Events
	next   slog.Handler
	attrs  []slog.Attr
	group  string
}

func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.events.logging.Load() > 0 || h.next.Enabled(ctx, level)
}

func (h *logHandler) Handle(ctx context.Context, record slog.Record) error {
	if h.events.logging.Load() > 0 {
		context := map[string]string{}
		for _, attr := range h.attrs {
			context[attr.Key] = attr.Value.Resolve().String()
		}
		record.Attrs(func(attr slog.Attr) bool {
			context[h.group+attr.Key] = attr.Value.Resolve().String()
			return true
		})
		h.events.send(EventLogging, record.Time, h.events.cfg.Location(), "", map[string]any{
			"message": record.Message, "level": levelName(record.Level), "context": context,
		})
	}
	if h.next.Enabled(ctx, record.Level) {
		return h.next.Handle(ctx, record)
	}
	return nil
}

// levelName is a level in the words that clients know.
func levelName(level slog.Level) string {
	switch {
	case level < slog.LevelInfo:
		return "debug"
	case level < slog.LevelWarn:
		return "info"
	case level < slog.LevelError:
		return "warning"
	}
	return "error"
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	named := make([]slog.Attr, 0, len(attrs))
	for _, attr := range attrs {
		named = append(named, slog.Attr{Key: h.group + attr.Key, Value: attr.Value})
	}
	return &logHandler{h.events, h.next.WithAttrs(attrs), slices.Concat(h.attrs, named), h.group}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.events, h.next.WithGroup(name), h.attrs, h.group + name + "."}
}

// Listener receives events.
type Listener struct {
	events   *Events
	interest Interest
	// more has room for one word that the queue is not empty, or that it is over.
	more chan struct{}

	mu    sync.Mutex
	queue []*Event // guarded by mu
	over  error    // guarded by mu; why there will be no more
}

// Subscribe returns a listener that gets every event of interest from now on.
// An unknown type is ErrInvalid.
func (e *Events) Subscribe(interest Interest) (*Listener, error) {
	all := []string{EventOperation, EventLifecycle, EventLogging}
	if len(interest.Types) == 0 {
		interest.Types = all
	}
	for _, kind := range interest.Types {
		if !slices.Contains(all, kind) {
			return nil, state.Errorf(state.ErrInvalid, "event type %q: want operation, lifecycle or logging", kind)
		}
	}
	listener := &Listener{events: e, interest: interest, more: make(chan struct{}, 1)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, state.Errorf(state.ErrUnavailable, "the daemon is shutting down")
	}
	e.listeners[listener] = struct{}{}
	if slices.Contains(interest.Types, EventLogging) {
		e.logging.Add(1)
	}
	return listener, nil
}

func (l *Listener) wants(kind, project string) bool {
	switch {
	case !slices.Contains(l.interest.Types, kind):
		return false
	case l.interest.Allowed != nil && !l.interest.Allowed(project):
		return false
	case kind == EventLogging || project == "" || l.interest.AllProjects:
		return true
	}
	wanted := l.interest.Project
	if wanted == "" {
		wanted = state.DefaultProject
	}
	return project == wanted
}

// push adds an event to the queue. A listener that is too far behind gets no more:
// it is better cut off than left with a gap.
func (l *Listener) push(event *Event, most int) {
	l.mu.Lock()
	if l.over == nil {
		if len(l.queue) >= most {
			l.queue, l.over = nil, state.Errorf(state.ErrUnavailable, "the listener fell %d events behind", most)
		} else {
			l.queue = append(l.queue, event)
		}
	}
	l.mu.Unlock()
	l.wake()
}

func (l *Listener) wake() {
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// Next waits for the next event. It fails when ctx ends, when the listener or
// the hub was closed, and with ErrUnavailable when the listener fell too far
// behind: events are lost only together with the listener.
func (l *Listener) Next(ctx context.Context) (*Event, error) {
	for {
		l.mu.Lock()
		if len(l.queue) > 0 {
			event := l.queue[0]
			l.queue[0] = nil
			l.queue = l.queue[1:]
			l.mu.Unlock()
			return event, nil
		}
		over := l.over
		l.mu.Unlock()
		if over != nil {
			return nil, over
		}
		select {
		case <-l.more:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Close ends the listener. It may be called twice.
func (l *Listener) Close() {
	l.events.mu.Lock()
	_, open := l.events.listeners[l]
	delete(l.events.listeners, l)
	l.events.mu.Unlock()
	if open && slices.Contains(l.interest.Types, EventLogging) {
		l.events.logging.Add(-1)
	}
	l.end()
}

func (l *Listener) end() {
	l.mu.Lock()
	if l.over == nil {
		l.over = state.Errorf(state.ErrUnavailable, "there are no more events: the daemon is shutting down")
	}
	l.mu.Unlock()
	l.wake()
}

// Close ends every listener; events sent later go nowhere.
func (e *Events) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for listener := range e.listeners {
		listener.end()
	}
}
