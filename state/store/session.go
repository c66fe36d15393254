package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"muster/state"
	"muster/state/store/sqlgen"
)

// session is the writer's connection to the local node while it leads, with the
// counters that only the one writer moves.
type session struct {
	db    *sql.DB
	conn  *sql.Conn
	stmts *statements
	q     *sqlgen.Queries

	// pulse was made before anything was read: while it beats, nobody else has written.
	pulse *pulse
	// schema is that of the database.
	schema int64

	revision state.Revision
	term     uint64
	outcome  int64
	// firstChange is the oldest position in the table of changes; firstOutcome is
	// the like.
	firstChange, firstOutcome int64
}

// openSession connects to the local node, which must lead, and brings the schema
// up to date, as far as all members agree.
func openSession(ctx context.Context, n *node, sc *schema, consent Consent) (_ *session, err error) {
	s := &session{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.pulse, err = newPulse(ctx, n); err != nil {
		return nil, err
	}
	if s.db, err = n.database(ctx); err != nil {
		return nil, err
	}
	if s.conn, err = s.db.Conn(ctx); err != nil {
		return nil, err
	}
	if s.schema, err = sc.migrate(ctx, s.conn, time.Now().UTC(), consent); err != nil {
		return nil, err
	}
	s.stmts = &statements{conn: s.conn, prepared: map[string]*sql.Stmt{}}
	s.q = sqlgen.New(s.stmts)

	last, err := s.q.LastPosition(ctx)
	if err != nil {
		return nil, err
	}
	s.revision = state.Revision(last >> 16)
	if s.firstChange, err = s.q.FirstPosition(ctx); err != nil {
		return nil, err
	}
	if s.outcome, err = s.q.LastOutcome(ctx); err != nil {
		return nil, err
	}
	s.firstOutcome = max(0, s.outcome-outcomeWindow)
	term, err := s.q.Term(ctx)
	s.term = uint64(term)
	return s, err
}

// close lets go of the connection; the node rolls back what it had open.
func (s *session) close() {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	if s.db != nil {
		_ = s.db.Close()
	}
	if s.pulse != nil {
		s.pulse.close()
	}
}

// outcomeWindow is how many outcomes of commands are remembered. A command is
// retried within seconds, so this is far more than enough.
const outcomeWindow = 16384

// trimEvery is how far the tables of changes and outcomes may grow past their
// windows before they are cut: cutting costs a statement.
const trimEvery = 256

// outcome is what became of a command. kind is empty for success.
type outcome struct {
	id       string
	revision state.Revision
	kind     string
	message  string
}

// errOutdated means that somebody else wrote since the session's counters were read.
// The node closes its connections when it loses the leadership, so this should never
// happen; but the counters must not be wrong, and looking costs nothing.
var errOutdated = errors.New("somebody else wrote in between")

// lookup returns the outcomes that are remembered of the IDs. It is the first thing
// to do in a transaction, since it finds out whether the counters are right.
func (s *session) lookup(ctx context.Context, ids []string) (map[string]outcome, error) {
	// One prepared statement for each power of two is enough of them.
	for len(ids) < 1<<bits.Len(uint(len(ids)-1)) {
		ids = append(ids, ids[0])
	}
	rows, err := s.q.LookUp(ctx, ids)
	if err != nil {
		return nil, err
	}
	known := make(map[string]outcome, len(ids))
	for _, row := range rows {
		if row.Newest != s.outcome {
			return nil, errOutdated
		}
		if row.ID != nil {
			known[*row.ID] = outcome{*row.ID, state.Revision(*row.Revision), *row.Kind, *row.Message}
		}
	}
	return known, nil
}

// Rows go in by several at once; sqlc has no words for that. The database takes
// 255 parameters at most.
const (
	changesAtOnce  = 64
	outcomesAtOnce = 32
)

// saveChanges appends to the table of changes and trims it.
func (s *session) saveChanges(ctx context.Context, saved []savedChange) error {
	err := insertMany(ctx, s.stmts, "changes (position, body)", 2, changesAtOnce, len(saved), func(i int, args []any) []any {
		return append(args, saved[i].position, saved[i].body)
	})
	if err != nil {
		return err
	}
	if s.firstChange == 0 && len(saved) > 0 {
		s.firstChange = saved[0].position
	}
	// Positions have gaps, so this counts revisions: the window may hold more.
	if keep := position(s.revision, 0) - window<<16; s.firstChange < keep-trimEvery<<16 {
		if err := s.q.TrimChanges(ctx, keep); err != nil {
			return err
		}
		s.firstChange = keep
	}
	return nil
}

// savedChange is a row of the table of changes.
type savedChange struct {
	position int64
	body     string
}

// saveOutcomes remembers what became of commands.
func (s *session) saveOutcomes(ctx context.Context, outcomes []outcome) error {
	err := insertMany(ctx, s.stmts, "command_outcomes (seq, id, revision, kind, message)", 5, outcomesAtOnce, len(outcomes), func(i int, args []any) []any {
		s.outcome++
		o := outcomes[i]
		return append(args, s.outcome, o.id, int64(o.revision), o.kind, o.message)
	})
	if err != nil {
		return err
	}
	if keep := s.outcome - outcomeWindow; s.firstOutcome < keep-trimEvery {
		if err := s.q.TrimOutcomes(ctx, keep); err != nil {
			return err
		}
		s.firstOutcome = keep
	}
	return nil
}

// insertMany inserts count rows, at most most at once, in statements whose sizes
// are powers of two, so that few need preparing. row appends the values of a row.
func insertMany(ctx context.Context, stmts *statements, into string, columns, most, count int, row func(i int, args []any) []any) error {
	for from := 0; from < count; {
		size := min(most, 1<<(bits.Len(uint(count-from))-1))
		args := make([]any, 0, size*columns)
		for i := from; i < from+size; i++ {
			args = row(i, args)
		}
		one := "(" + strings.TrimSuffix(strings.Repeat("?,", columns), ",") + ")"
		query := "INSERT INTO " + into + " VALUES " + strings.TrimSuffix(strings.Repeat(one+",", size), ",")
		if _, err := stmts.ExecContext(ctx, query, args...); err != nil {
			return err
		}
		from += size
	}
	return nil
}

// statements is a connection that prepares each statement once. It is the
// sqlgen.DBTX of the writer.
type statements struct {
	conn     *sql.Conn
	prepared map[string]*sql.Stmt
	// written counts the statements that succeeded in changing something.
	written int
}

func (s *statements) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt, ok := s.prepared[query]; ok {
		return stmt, nil
	}
	stmt, err := s.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s.prepared[query] = stmt
	return stmt, nil
}

// ExecContext implements sqlgen.DBTX.
func (s *statements) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	stmt, err := s.stmt(ctx, query) //nolint:sqlclosecheck // it lives as long as the connection
	if err != nil {
		return nil, err
	}
	result, err := stmt.ExecContext(ctx, args...)
	if err == nil {
		s.written++
	}
	return result, err
}

// PrepareContext implements sqlgen.DBTX.
func (s *statements) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	return s.stmt(ctx, query)
}

// QueryContext implements sqlgen.DBTX.
func (s *statements) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	stmt, err := s.stmt(ctx, query) //nolint:sqlclosecheck // it lives as long as the connection
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

// QueryRowContext implements sqlgen.DBTX.
func (s *statements) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	stmt, err := s.stmt(ctx, query) //nolint:sqlclosecheck // it lives as long as the connection
	if err != nil {
		// A row cannot be made from an error, but the same query without
		// preparation answers with it.
		return s.conn.QueryRowContext(ctx, query, args...)
	}
	return stmt.QueryRowContext(ctx, args...)
}

// do runs statements that take no parameters and need no preparation, several in
// one round trip.
func (s *session) do(ctx context.Context, sql string) error {
	_, err := s.conn.ExecContext(ctx, sql)
	return err
}

// outcomeOf writes an error, or none, down as an outcome.
func outcomeOf(id string, revision state.Revision, err error) outcome {
	o := outcome{id: id, revision: revision}
	if err != nil {
		o.kind, o.message = internalKind, err.Error()
		if kind := state.Kind(err); kind != nil {
			o.kind = kind.Error()
		}
	}
	return o
}

// internalKind is the outcome of a command that failed in no way a caller may act
// on.
const internalKind = "internal"

// answer is what the outcome says to the one who asked.
func (o outcome) answer() answer {
	if o.kind == "" {
		return answer{result: Result{Revision: o.revision}}
	}
	for _, kind := range state.Kinds {
		if kind.Error() == o.kind {
			return answer{err: state.Errorf(kind, "%s", o.message)}
		}
	}
	return answer{err: errors.New(o.message)}
}

// load reads all objects from the tables.
func (s *session) load(ctx context.Context) ([]object, error) {
	var objects []object
	for _, kind := range kinds {
		nouns, err := loaders[kind](ctx, s.q)
		if err != nil {
			return nil, fmt.Errorf("read every %s: %w", kind, err)
		}
		for _, noun := range nouns {
			objects = append(objects, object{kind, noun})
		}
	}
	return objects, nil
}
