package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	dqlite "github.com/canonical/go-dqlite/driver"

	"muster/state"
)

// patience is how long a command may wait for a leader that can commit it. With the second
// that a request has waited before for what is the newest (Fresh), it fails within five.
const patience = 4 * time.Second

// groupMost is how many commands share a transaction at most: the look-up of their
// outcomes takes as many parameters, of which the database takes 255.
const groupMost = 128

// writer runs commands against the local node while it leads, one transaction for
// all that are waiting. It is the only writer: two would block each other.
type writer struct {
	node  *node
	dir   *directory
	hub   *hub
	log   *slog.Logger
	queue chan *request
	// leading says that there is a session, and pulse is that session's; stuck says that a
	// commit took patience and did not end.
	leading, stuck atomic.Bool
	pulse          atomic.Pointer[pulse]
	// broken takes why this member must not go on, once.
	broken chan error
	// gone is closed when the writer has answered its last request.
	gone chan struct{}

	schema *schema
	// session is the writer goroutine's own, as is consent, the last that was heard.
	session *session
	consent Consent
}

// request is something for the writer to do.
type request struct {
	envelope Envelope
	command  Command
	// query is done instead of a command when it is not nil, then consent; settle
	// instead of any: an entry is committed, behind all that came before. Without any of
	// them the writer finds out whether it leads, and its View what the tables hold.
	query   *query
	consent *Consent
	settle  bool
	// taken is set by the writer when it begins, or by the asker who gives up
	// first: then nothing was done.
	taken atomic.Bool
	done  chan answer
}

type answer struct {
	result Result
	table  *Table
	err    error
}

func (r *request) answer(result Result, err error) { r.done <- answer{result: result, err: err} }

// errNotLeading means that this member does not lead, so that nothing was done.
var errNotLeading = errors.New("this member does not lead the database")

// errUnknown means that a commit was tried and nobody can tell how it ended.
var errUnknown = errors.New("the leader fell silent")

// errClosed means that the store was closed before anything was done.
var errClosed = state.Errorf(state.ErrUnavailable, "the store is closed")

// do hands a request to the writer and waits for its answer.
func (w *writer) do(ctx context.Context, r *request) answer {
	r.done = make(chan answer, 1)
	select {
	case w.queue <- r:
	case <-ctx.Done():
		return answer{err: errNotLeading}
	case <-w.gone:
		return answer{err: errClosed}
	}
	var otherwise error
	select {
	case a := <-r.done:
		return a
	case <-ctx.Done():
		otherwise = errNotLeading
	case <-w.gone:
		otherwise = errClosed
	}
	if r.taken.CompareAndSwap(false, true) {
		return answer{err: otherwise}
	}
	select {
	case a := <-r.done:
		return a
	default:
		return answer{err: errUnknown}
	}
}

// run is the writer goroutine. It returns when ctx is done; what then waits is
// answered by do.
func (w *writer) run(ctx context.Context) {
	defer close(w.gone)
	defer w.drop()
	for {
		select {
		case r := <-w.queue:
			w.serve(ctx, w.drain(r))
		case <-ctx.Done():
			return
		}
	}
}

// groupBytes is how long the commands of a group are before the last of them, at most: with
// one of MaxCommand they still fit into one transaction.
const groupBytes = 1 << 19

// drain returns first and what else is waiting.
func (w *writer) drain(first *request) []*request {
	group, size := []*request{first}, len(first.envelope.Command)
	for len(group) < groupMost && size < groupBytes {
		select {
		case r := <-w.queue:
			group = append(group, r)
			size += len(r.envelope.Command)
		default:
			return group
		}
	}
	return group
}

// serve does what was asked: the commands in one transaction, then the rest.
func (w *writer) serve(ctx context.Context, asked []*request) {
	var commands, others []*request
	for _, r := range asked {
		switch {
		case !r.taken.CompareAndSwap(false, true):
		case r.command != nil:
			commands = append(commands, r)
		default:
			others = append(others, r)
		}
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if len(commands) == 0 && w.session != nil && w.session.pulse.beats(ctx) != nil {
		w.drop() // commands find out by themselves
	}
	if err := w.lead(ctx); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			w.giveUp(ctx)
		}
		for _, r := range append(commands, others...) {
			r.answer(Result{}, err)
		}
		return
	}
	if len(commands) > 0 {
		w.commands(ctx, commands)
	}
	for _, r := range others {
		// A session may have been lost since; then these are not led here either.
		var a answer
		switch err := w.lead(ctx); {
		case err != nil:
			a.err = err
		case r.consent != nil:
			a.err = w.moveSchema(whole, *r.consent)
		case r.query != nil:
			a.table, a.result.Revision, a.err = w.query(ctx, r.query)
		case r.settle:
			a.err = w.settleAll(ctx)
		}
		r.done <- a
	}
}

// lead makes sure that there is a session: that this member leads, and that its
// View has caught up with the tables.
func (w *writer) lead(ctx context.Context) error {
	if w.session != nil {
		return nil
	}
	leader, err := w.node.leader(ctx)
	if err != nil || leader != w.node.address {
		return errNotLeading
	}
	session, err := openSession(ctx, w.node, w.schema, w.consent)
	if err != nil {
		if isLost(err) || isBusy(err) {
			return errNotLeading
		}
		if errors.Is(err, state.ErrConflict) {
			// This release can't lead this database: another's is to.
			breakOff(w.broken, err)
			if alone, asked := w.node.alone(ctx); !alone && asked == nil {
				return errNotLeading
			}
		}
		return fmt.Errorf("open the database: %w", err)
	}
	if err := w.catchUp(ctx, session); err != nil {
		session.close()
		if isLost(err) {
			return errNotLeading
		}
		return err
	}
	w.session = session
	w.pulse.Store(session.pulse)
	w.leading.Store(true)
	w.log.InfoContext(ctx, "leading the database", "revision", session.revision)
	return nil
}

// moveSchema takes the steps that the members consent to. The session ends with that:
// the next one begins with what the tables hold then.
func (w *writer) moveSchema(ctx context.Context, consent Consent) error {
	ctx, cancel := context.WithTimeout(ctx, StepPatience)
	defer cancel()
	w.consent = consent
	before := w.session.schema
	if before >= min(consent.Schema, w.schema.known().Newest) {
		return nil
	}
	w.drop()
	if err := w.lead(ctx); err != nil {
		// A step that fails was undone. The cluster is to go on as it was.
		w.consent = Consent{}
		if ctx.Err() != nil {
			return state.Errorf(state.ErrUnavailable, "the step takes longer than %v", StepPatience)
		}
		return err
	}
	if w.session.schema != before {
		w.log.InfoContext(ctx, "the database has a new schema: every member can read it", "before", before, "schema", w.session.schema)
	}
	return nil
}

// catchUp brings the View to what the tables hold: by the changes it missed, or
// from scratch.
func (w *writer) catchUp(ctx context.Context, s *session) error {
	if err := w.dir.checkMark(s.revision); err != nil {
		return err
	}
	view := w.hub.view.Load()
	seen, same := view.revision, view.schema == s.schema
	if seen == s.revision && same {
		return nil
	}
	// Revisions are whole in the table of changes, but for the trimmed ones.
	after := position(seen+1, 0) - 1
	follows := seen > 0 && same && s.firstChange <= after+1
	if !follows {
		after = 0
	}
	rows, err := s.q.ListChangesAfter(ctx, after)
	if err != nil {
		return err
	}
	if follows {
		var changes []Change
		if changes, err = decodeHistory(rows); err == nil {
			err = w.hub.publish(changes)
		}
	} else {
		var objects []object
		if objects, err = s.load(ctx); err == nil {
			err = w.hub.reset(s.revision, s.schema, objects, rows)
		}
	}
	if err != nil {
		return err
	}
	return w.dir.raiseMark(s.revision)
}

// drop gives up the session: what was not committed is undone.
func (w *writer) drop() {
	w.leading.Store(false)
	w.pulse.Store(nil)
	if w.session != nil {
		w.session.close()
		w.session = nil
	}
}

// commands runs commands in one transaction and answers them.
func (w *writer) commands(ctx context.Context, asked []*request) {
	g, err := w.group(ctx, asked, false)
	if errors.Is(err, errLeftovers) {
		g, err = w.group(ctx, asked, true)
	}
	if err == nil {
		err = w.settle(ctx, g)
	} else {
		err = w.undone(ctx, err)
	}
	for i, r := range asked {
		if err != nil {
			r.done <- answer{err: err}
		} else {
			r.done <- g.answers[i]
		}
	}
}

// group runs commands up to the commit.
func (w *writer) group(ctx context.Context, asked []*request, careful bool) (*group, error) {
	g := &group{
		session: w.session, careful: careful, now: time.Now().UTC(),
		revision: w.session.revision, term: w.session.term, answers: make([]answer, len(asked)),
	}
	err := g.run(ctx, asked)
	if errors.Is(err, errLeftovers) {
		err = cmp.Or(g.session.do(ctx, "ROLLBACK"), err)
	}
	return g, err
}

// settle commits a group and makes its changes visible.
func (w *writer) settle(ctx context.Context, g *group) error {
	if err := g.session.do(ctx, "COMMIT"); err != nil {
		w.log.WarnContext(ctx, "commit", "error", err, "commands", len(g.answers))
		w.drop()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			w.giveUp(ctx)
		}
		return errUnknown
	}
	g.session.revision, g.session.term = g.revision, g.term
	return w.show(ctx, g.changes)
}

// show makes committed changes visible here. When that fails the session is given
// up, so that the next one makes the View anew.
func (w *writer) show(ctx context.Context, changes []Change) error {
	err := w.hub.publish(changes)
	if err == nil {
		err = w.dir.raiseMark(w.session.revision)
	}
	if err != nil {
		w.log.ErrorContext(ctx, "show a change", "error", err)
		w.drop()
	}
	return err
}

// undone is what to answer when a transaction ended before its commit.
func (w *writer) undone(ctx context.Context, err error) error {
	w.drop()
	if isLost(err) || isBusy(err) {
		return errNotLeading
	}
	return err
}

// giveUp has the node closed and opened again, unless it is the only one that votes:
// another member may be able to commit.
func (w *writer) giveUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	alone, err := w.node.alone(ctx)
	leader, asked := w.node.leader(ctx)
	if err == nil && asked == nil && !alone && leader == w.node.address {
		w.stuck.Store(true)
	}
}

// breakOff says why the member must not go on.
func breakOff(broken chan<- error, why error) {
	select {
	case broken <- why:
	default: // it was said
	}
}

// settleAll returns once an entry is committed that comes after all that this member has
// in its log: only a leader can commit.
func (w *writer) settleAll(ctx context.Context) error {
	if err := w.session.q.RaiseBarrier(ctx); err != nil {
		return w.undone(ctx, err)
	}
	return nil
}

// isLost reports whether err means that the connection or the leadership is gone,
// so that a transaction that was open was undone.
func isLost(err error) bool {
	return err != nil && !isRefusal(err) && (isAny(err, lostErrors) || isTimeout(err))
}

var lostErrors = []error{errOutdated, driver.ErrBadConn, dqlite.ErrNoAvailableLeader, sql.ErrConnDone, sql.ErrTxDone, context.DeadlineExceeded, context.Canceled}

func isAny(err error, targets []error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
