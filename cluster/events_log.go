package cluster

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// LogHandler returns a handler that passes records to next and, while somebody
// listens to logging events, to them as well, whatever next's level: so a user
// sees debug messages by listening, without a restart. It never blocks on a
// listener.
func (e *Events) LogHandler(next slog.Handler) slog.Handler { return &logHandler{hub: e, next: next} }

type logHandler struct {
	hub  *Events
	next slog.Handler
	// group is the prefix of keys, context what With has added.
	group   string
	context []field
}

type field struct{ key, value string }

// logMetadata is the metadata of a logging event; clients expect strings only.
type logMetadata struct {
	Message string            `json:"message"`
	Level   string            `json:"level"`
	Context map[string]string `json:"context"`
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.hub.hearsLogs.Load() > 0 || h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, record slog.Record) error {
	if h.hub.hearsLogs.Load() > 0 {
		h.send(record)
	}
	if !h.next.Enabled(ctx, record.Level) {
		return nil
	}
	return h.next.Handle(ctx, record)
}

func (h *logHandler) send(record slog.Record) {
	fields := slices.Clone(h.context)
	record.Attrs(func(attr slog.Attr) bool {
		fields = flatten(fields, h.group, attr)
		return true
	})
	shown := make(map[string]string, len(fields))
	for _, f := range fields {
		shown[f.key] = f.value
	}
	at := record.Time
	if at.IsZero() {
		at = time.Now()
	}
	h.hub.send(&Event{
		Type: EventLogging, Timestamp: at, Location: h.hub.cfg.Location(),
		metadata: logMetadata{record.Message, levelName(record.Level), shown},
	})
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.next = h.next.WithAttrs(attrs)
	with.context = slices.Clone(h.context)
	for _, attr := range attrs {
		with.context = flatten(with.context, h.group, attr)
	}
	return &with
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.next = h.next.WithGroup(name)
	with.group = h.group + name + "."
	return &with
}

// flatten adds an attribute as strings, groups by dotted keys. Values are
// resolved now: they may change later.
func flatten(fields []field, prefix string, attr slog.Attr) []field {
	value := attr.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if attr.Key != "" {
			prefix += attr.Key + "."
		}
		for _, member := range value.Group() {
			fields = flatten(fields, prefix, member)
		}
		return fields
	}
	if attr.Key == "" {
		return fields
	}
	return append(fields, field{prefix + attr.Key, value.String()})
}

// levelName is the word that `lxc monitor` knows a level by.
func levelName(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "error"
	case level >= slog.LevelWarn:
		return "warning"
	case level >= slog.LevelInfo:
		return "info"
	}
	return "debug"
}
