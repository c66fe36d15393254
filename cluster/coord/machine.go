package coord

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"muster/state"
)

// machine applies the log of raft to a replica.
type machine struct {
	replica *Replica
	log     *slog.Logger
	// broken is set when an entry could not be read. From then on the
	// replica stands still: following only part of the log would make it
	// differ from the others in silence.
	broken atomic.Pointer[brokenLog]
	// failed is closed when broken is first set.
	failed chan struct{}
	once   sync.Once
}

type brokenLog struct {
	index uint64
	err   error
}

func (b *brokenLog) Error() string {
	return fmt.Sprintf("the coordination log cannot be followed past entry %d: %v", b.index, b.err)
}

// outcome is what an entry's proposer gets from raft.
type outcome struct {
	index   uint64
	refusal error
}

// Apply implements raft.FSM. Its result is an outcome.
func (m *machine) Apply(entry *raft.Log) any {
	if broken := m.broken.Load(); broken != nil {
		return outcome{entry.Index, broken}
	}
	change, err := decodeEntry(entry.Data)
	if err != nil {
		broken := &brokenLog{entry.Index, err}
		m.broken.Store(broken)
		m.once.Do(func() { close(m.failed) })
		m.log.Error("the coordination log cannot be followed", "index", entry.Index, "error", err)
		return outcome{entry.Index, broken}
	}
	taken, refusal := m.replica.take(entry.Index, entry.Data, change)
	if !taken {
		// It came by another member's log before; whoever waits for what became of
		// it here is not told wrongly.
		refusal = errTaken
	}
	return outcome{entry.Index, refusal}
}

var errTaken = state.Errorf(state.ErrUnavailable, "the coordination log changed hands: it is unknown whether the change was refused")

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if broken := m.broken.Load(); broken != nil {
		return nil, broken
	}
	m.replica.mu.RLock()
	defer m.replica.mu.RUnlock()
	return &snapshot{m.replica.content.copy()}, nil
}

// Restore implements raft.FSM.
func (m *machine) Restore(source io.ReadCloser) error {
	defer source.Close()
	restored, err := readContent(source)
	if err != nil {
		return err
	}
	m.broken.Store(nil)
	m.replica.restore(restored)
	return nil
}

type snapshot struct{ content content }

// Persist implements raft.FSMSnapshot.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s.content); err != nil {
		_ = sink.Cancel() // the first error says why
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() {}
