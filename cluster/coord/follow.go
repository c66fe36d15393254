package coord

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sync"
	"time"

	"muster/state"
)

// Follower reaches the logs of other members, for members that have none.
type Follower interface {
	// Follow calls Node.Relay there and hands on what it sends.
	Follow(ctx context.Context, memberID string, since uint64, send func(Batch) error) error
}

// Batch is a piece of the log on its way to a member that follows it.
type Batch struct {
	// Snapshot, when not nil, is the whole content, in place of what the member has.
	Snapshot []byte
	// Entries come after the snapshot, or after what was sent before.
	Entries []LogEntry
	// Leader is the coordinator as the sender knows it, or "".
	Leader string
}

// LogEntry is an entry of the log as it was proposed. Indexes have gaps: raft has
// entries of its own.
type LogEntry struct {
	Index uint64
	Data  []byte
}

const (
	// recentEntries is how many entries stay at hand for followers that come back.
	recentEntries = 512
	// batchEntries is how many of them are sent at once.
	batchEntries = 256
	// beatEvery is how often a follower hears that there is nothing new.
	beatEvery = 500 * time.Millisecond
	// silent is how long a follower waits for a word, and for one that knows of a
	// coordinator, before it tries another member.
	silent = 2 * time.Second
	// settleAfter is how long a follower stays with a member that is not its first
	// choice, so that the load evens out after a failure.
	settleAfter = time.Minute
)

// Relay sends what another member needs to keep a replica like this one's: a snapshot
// first when since is zero or the entries after it are no longer at hand, then entries
// as they are applied. It returns when ctx is done or send fails, and when this member
// is no control member any more.
func (n *Node) Relay(ctx context.Context, since uint64, send func(Batch) error) error {
	for anew := since == 0; ; {
		s := n.seat.Load()
		if s == nil {
			return errWorker
		}
		if n.Applied() == 0 {
			return state.Errorf(state.ErrUnavailable, "this member has nothing of the coordination log yet")
		}
		entries, moved, err := n.entriesAfter(since)
		switch {
		case anew || errors.Is(err, state.ErrStale):
			anew = false
			var snapshot Batch
			if snapshot, since, err = n.snapshotBatch(); err != nil {
				return err
			}
			snapshot.Leader = s.leader()
			if err := send(snapshot); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		case len(entries) > 0:
			since = entries[len(entries)-1].Index
			if err := send(Batch{Entries: entries, Leader: s.leader()}); err != nil {
				return err
			}
			continue
		}
		beat := time.NewTimer(beatEvery)
		select {
		case <-moved:
		case <-beat.C:
			if err := send(Batch{Leader: s.leader()}); err != nil {
				return err
			}
		case <-n.background.Done():
			beat.Stop()
			return state.Errorf(state.ErrUnavailable, "the daemon is shutting down")
		case <-ctx.Done():
			beat.Stop()
			return ctx.Err()
		}
		beat.Stop()
	}
}

func (n *Node) snapshotBatch() (Batch, uint64, error) {
	n.mu.RLock()
	content := n.content.copy()
	n.mu.RUnlock()
	encoded, err := json.Marshal(content)
	return Batch{Snapshot: encoded}, content.Applied, err
}

// fed reports whether this member's own log keeps the replica up to date: somebody
// coordinates, and this member hears from it.
func (n *Node) fed() bool {
	s := n.seat.Load()
	return s != nil && s.leader() != ""
}

// errFed ends the following of a member that does not need it any more, errElsewhere
// that of another member than the first choice.
var (
	errFed       = errors.New("the member's own log takes over")
	errElsewhere = errors.New("another member is the better source")
)

// follow keeps the replica up to date while this member's own log does not: on a
// worker, and on a control member that the log has left out or not taken in yet. It
// returns when ctx is done.
func (n *Node) follow(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		pause.Reset(100 * time.Millisecond)
		for i, source := range n.sources() {
			if n.fed() || ctx.Err() != nil {
				break
			}
			err := n.followOne(ctx, source, i == 0)
			n.told.Store("")
			n.cfg.Log.DebugContext(ctx, "following the coordination log ended", "member_id", source, "error", err)
			if errors.Is(err, errElsewhere) {
				break
			}
			if broken, damaged := errors.AsType[*brokenLog](err); damaged {
				n.cfg.Log.ErrorContext(ctx, "the coordination log cannot be followed", "index", broken.index, "error", broken.err)
				pause.Reset(settleAfter)
				break
			}
		}
	}
}

// sources are the members to follow, best first. The order differs from member to
// member, so that they spread, and is always the same for one.
func (n *Node) sources() []string {
	if n.cfg.Sources == nil {
		return nil
	}
	rank := func(id string) uint32 {
		sum := fnv.New32a()
		_, _ = io.WriteString(sum, n.cfg.ID+id) // never fails
		return sum.Sum32()
	}
	return slices.SortedFunc(slices.Values(n.cfg.Sources()), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
}

// followOne takes the stream of one member until it breaks off, falls silent or is not
// needed any more.
func (n *Node) followOne(ctx context.Context, source string, first bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	watchdog := time.AfterFunc(silent, func() { cancel(state.Errorf(state.ErrUnavailable, "member %s is silent", source)) })
	var once sync.Once
	end := func() { once.Do(func() { watchdog.Stop(); cancel(nil) }) }
	defer end()
	began := time.Now()
	return n.cfg.Follow.Follow(ctx, source, n.Applied(), func(batch Batch) error {
		if n.fed() {
			return errFed
		}
		if batch.Leader != "" && ctx.Err() == nil {
			watchdog.Reset(silent)
		}
		n.told.Store(batch.Leader)
		if !first && time.Since(began) > settleAfter {
			return errElsewhere
		}
		return n.receive(batch)
	})
}

// receive applies what another member sent.
func (n *Node) receive(batch Batch) error {
	if batch.Snapshot != nil {
		restored, err := readContent(bytes.NewReader(batch.Snapshot))
		if err != nil {
			return err
		}
		n.restore(restored)
	}
	for _, entry := range batch.Entries {
		change, err := decodeEntry(entry.Data)
		if err != nil {
			return &brokenLog{entry.Index, err}
		}
		// What the entry was refused for, its proposer is told where it was committed.
		_, _ = n.take(entry.Index, entry.Data, change)
	}
	return nil
}

// readContent reads a snapshot.
func readContent(source io.Reader) (content, error) {
	var read content
	if err := json.NewDecoder(source).Decode(&read); err != nil {
		return content{}, fmt.Errorf("the snapshot of the coordination log is damaged: %w", err)
	}
	return read, read.settle()
}

// WaitFilled returns once the replica holds something: what the log held when another
// member sent it, or this member's own log.
func (n *Node) WaitFilled(ctx context.Context) error { return n.WaitApplied(ctx, 1) }
