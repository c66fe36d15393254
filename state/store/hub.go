package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"muster/state"
	"muster/state/store/sqlgen"
)

// window is how many changes stay at hand for those that ask for what happened
// since a revision: in the table of changes, and in memory for subscriptions.
const window = 2048

// hub holds the View and the recent changes. Everything that becomes visible on
// this member goes through publish or reset, wherever it comes from.
type hub struct {
	view   atomic.Pointer[View]
	head   atomic.Pointer[link]
	closed chan struct{}

	// mu guards what follows, and is held by those who change view and head.
	mu sync.Mutex
	db *memdb.MemDB
	// oldest is the link before the first that is at hand; kept counts the changes
	// after it.
	oldest *link
	kept   int
}

// link is a piece of the chain of changes. Readers walk the chain at their own
// pace and hold nobody up.
type link struct {
	// last is the revision reached with this link.
	last    state.Revision
	changes []Change
	// next is set before ready is closed. When the link is no longer at hand, next
	// becomes lost, so that a reader who stopped here does not keep the chain.
	next  atomic.Pointer[link]
	ready chan struct{}

	// history holds changes that nobody has asked for yet.
	history []sqlgen.Change
	decode  sync.Once
	err     error
}

// lost is where the chain breaks off.
var lost = &link{}

func newLink(last state.Revision) *link { return &link{last: last, ready: make(chan struct{})} }

func newHub() (*hub, error) {
	h := &hub{closed: make(chan struct{})}
	h.oldest = newLink(0)
	h.head.Store(h.oldest)
	var err error
	if h.db, err = memdb.NewMemDB(layout); err != nil {
		return nil, err
	}
	h.view.Store(&View{txn: h.db.Txn(false)})
	return h, nil
}

// close ends all subscriptions.
func (h *hub) close() { close(h.closed) }

// publish makes changes visible, those of one or more whole revisions. Revisions
// that are visible already are left out, since a member that becomes leader may
// learn of a change twice; a gap is an error.
func (h *hub) publish(changes []Change) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	shown := h.view.Load().revision
	changes = slices.DeleteFunc(changes, func(c Change) bool { return c.Revision <= shown })
	if len(changes) == 0 {
		return nil
	}
	if changes[0].Revision != shown+1 {
		return fmt.Errorf("revision %d does not follow on revision %d", changes[0].Revision, shown)
	}
	txn := h.db.Txn(true)
	defer txn.Abort()
	for i := range changes {
		if err := h.apply(txn, &changes[i]); err != nil {
			return err
		}
	}
	txn.Commit()
	next := newLink(changes[len(changes)-1].Revision)
	next.changes = changes
	h.view.Store(&View{txn: h.db.Txn(false), revision: next.last, schema: h.view.Load().schema})
	h.append(next, len(changes))
	return nil
}

// apply makes one change to the tables, and fills in what was there before.
func (h *hub) apply(txn *memdb.Txn, c *Change) error {
	table := string(c.Kind)
	known := func(object any) (any, error) { return txn.First(table, byID, identify(c.Kind, object)) }
	if c.Before != nil { // a deletion or a rename
		before, err := known(c.Before)
		if err != nil {
			return err
		}
		if before != nil {
			c.Before = before
			if err := txn.Delete(table, before); err != nil {
				return err
			}
		}
	} else {
		before, err := known(c.After)
		if err != nil {
			return err
		}
		c.Before = before
	}
	if c.After == nil {
		return nil
	}
	return txn.Insert(table, c.After)
}

// append adds a link to the chain, and lets go of the oldest when more than the
// window is at hand. The caller holds mu.
func (h *hub) append(next *link, changes int) {
	head := h.head.Load()
	h.head.Store(next)
	head.next.Store(next)
	close(head.ready)
	h.kept += changes
	for h.kept > window && h.oldest != head {
		first := h.oldest.next.Load()
		h.oldest.next.Store(lost)
		h.oldest = first
		h.kept -= max(len(first.changes), len(first.history))
	}
}

// object is a noun with its kind.
type object struct {
	kind Kind
	noun any
}

// reset makes the View anew: all objects as of a revision, by a schema, and the changes
// before it that are still at hand. Subscriptions are told that they lost their place.
func (h *hub) reset(revision state.Revision, schema int64, objects []object, history []sqlgen.Change) error {
	db, err := memdb.NewMemDB(layout)
	if err != nil {
		return err
	}
	txn := db.Txn(true)
	defer txn.Abort()
	for _, o := range objects {
		metaOf(o.noun).Memo = &state.Memo{}
		if err := txn.Insert(string(o.kind), o.noun); err != nil {
			return err
		}
	}
	txn.Commit()
	h.mu.Lock()
	defer h.mu.Unlock()
	if shown := h.view.Load(); revision < shown.revision || schema < shown.schema {
		return fmt.Errorf("a snapshot of revision %d and schema %d is older than what is shown, revision %d and schema %d", revision, schema, shown.revision, shown.schema)
	}
	h.db = db
	h.view.Store(&View{txn: db.Txn(false), revision: revision, schema: schema})

	head := h.head.Load()
	h.kept = len(history)
	if len(history) == 0 {
		h.oldest = newLink(revision)
		h.head.Store(h.oldest)
	} else {
		h.oldest = newLink(state.Revision(history[0].Position>>16) - 1)
		past := newLink(revision)
		past.history = history
		h.oldest.next.Store(past)
		close(h.oldest.ready)
		h.head.Store(past)
	}
	head.next.Store(lost)
	close(head.ready)
	return nil
}

// moved returns what is closed when the View moves on, and is closed already when it shows
// more than the revision.
func (h *hub) moved(revision state.Revision) <-chan struct{} {
	head := h.head.Load() // before the View, or its end could be missed
	if h.view.Load().revision > revision {
		return over
	}
	return head.ready
}

// over is closed.
var over = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// wait returns when the View shows the revision.
func (h *hub) wait(ctx context.Context, revision state.Revision) error {
	for h.view.Load().revision < revision {
		select {
		case <-h.moved(revision - 1):
		case <-ctx.Done():
			return state.Errorf(state.ErrUnavailable, "revision %d was made and has not arrived here in time", revision)
		case <-h.closed:
			return errClosed
		}
	}
	return nil
}

// content returns the link's changes.
func (l *link) content() ([]Change, error) {
	l.decode.Do(func() {
		if l.history != nil {
			l.changes, l.err = decodeHistory(l.history)
		}
	})
	return l.changes, l.err
}
