package cluster

import (
	"context"
	"maps"
	"sync"
	"time"
)

const (
	// tickEvery spaces the progress events of one operation.
	tickEvery = 500 * time.Millisecond
	// tickDelay keeps what ends at once from having progress at all.
	tickDelay = 100 * time.Millisecond
)

// Operation is a running operation in the hands of its run function. Its methods
// may be called from any goroutine.
type Operation struct {
	ops     *Operations
	spec    OperationSpec
	id      string
	started time.Time
	cancel  context.CancelCauseFunc
	sockets map[string]*operationSocket
	// done is closed when the operation's end is recorded.
	done chan struct{}

	mu sync.Mutex
	// metadata is the operation's as it is now. Guarded by mu.
	metadata map[string]any
	updated  time.Time   // guarded by mu; zero until metadata changes
	ticked   time.Time   // guarded by mu; the newest progress event
	tick     *time.Timer // guarded by mu; the progress event to come
	ended    bool        // guarded by mu
}

// ID returns the operation's UUID.
func (op *Operation) ID() string { return op.id }

// UpdateMetadata lays values over the operation's metadata; a nil value removes
// its key. Clients that read the operation see it at once; listeners to events
// get it at most twice a second. The last values become part of the finished
// operation. Values must be what JSON can say and not change afterwards.
func (op *Operation) UpdateMetadata(values map[string]any) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if op.ended {
		return
	}
	next := maps.Clone(op.metadata)
	if next == nil {
		next = map[string]any{}
	}
	for key, value := range values {
		if value == nil {
			delete(next, key)
		} else {
			next[key] = value
		}
	}
	// Readers hold the old map.
	op.metadata, op.updated = next, time.Now().UTC()
	if op.tick == nil {
		op.tick = time.AfterFunc(max(tickDelay, tickEvery-time.Since(op.ticked)), op.sendProgress)
	}
}

// sendProgress sends a progress event. It holds mu while it does, so that
// nothing of it comes after the end.
func (op *Operation) sendProgress() {
	registered, known := op.ops.cfg.Coord.Operation(op.id)
	op.mu.Lock()
	defer op.mu.Unlock()
	op.tick = nil
	if op.ended || !known || registered.Status.Final() {
		return
	}
	op.ticked = time.Now()
	info := op.ops.showBare(registered)
	op.overlayLocked(&info)
	op.ops.cfg.Events.operation(info)
}

// overlay shows the operation as it is now, not as it was registered.
func (op *Operation) overlay(info *OperationInfo, secrets bool) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.overlayLocked(info)
	if secrets && len(op.sockets) > 0 {
		info.Metadata = maps.Clone(info.Metadata)
		info.Metadata["fds"] = op.secrets()
	}
}

// overlayLocked needs mu.
func (op *Operation) overlayLocked(info *OperationInfo) {
	if op.metadata != nil {
		info.Metadata = op.metadata
	}
	if op.updated.After(info.UpdatedAt) {
		info.UpdatedAt = op.updated
	}
}
