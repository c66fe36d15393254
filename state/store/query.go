package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster/state"
)

// Table is the answer to a query.
type Table struct {
	Columns []string
	// Rows hold int64, float64, string, bool, []byte, time.Time or nil.
	Rows [][]any
	// RowsAffected is of a write.
	RowsAffected int64
}

// query is what Query asks of the writer.
type query struct {
	statement string
	args      []any
	write     bool
}

// Query runs one SQL statement on this member's database, between commands, while
// it leads (ErrUnavailable otherwise). It must read (ErrInvalid otherwise) unless
// write is true; then it may insert, update and delete what the schema allows. The
// objects that a write changed get a new revision, and every View follows.
func (s *Store) Query(ctx context.Context, statement string, args []any, write bool) (*Table, error) {
	if err := checkStatement(statement, write); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a := s.do(ctx, &request{query: &query{statement: statement, args: args, write: write}})
	result, err := inWords(a)
	if err == nil && result.NotLeader {
		err = state.Errorf(state.ErrUnavailable, "not run: %w; %s", errNotLeading, s.whoLeads(ctx))
	}
	if err != nil {
		return nil, err
	}
	return a.table, nil
}

// whoLeads says whom to ask what only the leader answers.
func (s *Store) whoLeads(ctx context.Context) string {
	leader, _ := s.guide(ctx)
	if m, err := s.View().MemberByID(leader); err == nil && leader != s.cfg.Member.ID {
		return fmt.Sprintf("ask on member %q, which does", m.Name)
	}
	return "try again in a moment"
}

var (
	// Transactions are the writer's, attached files are not replicated, and
	// RETURNING makes libdqlite 1.11 lose the row and end the process.
	readWords  = []string{"SELECT", "WITH", "VALUES", "EXPLAIN", "PRAGMA"}
	writeWords = []string{"INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"}
	returning  = regexp.MustCompile(`(?i)\breturning\b`)
	writing    = regexp.MustCompile(`(?i)\b(insert|update|delete)\b`)
	firstWord  = regexp.MustCompile(`^[A-Za-z]+`)
	// A PRAGMA that names no value only reads.
	readPragma = regexp.MustCompile(`(?i)^pragma\s+(table_info|index_list|index_info|foreign_key_list|foreign_key_check|integrity_check|quick_check|page_count|page_size|freelist_count|user_version)\b`)
)

// checkStatement refuses what must not reach the database.
func checkStatement(statement string, write bool) error {
	bare, single := bareStatement(statement)
	if !single {
		return state.Errorf(state.ErrInvalid, "one statement at a time, please")
	}
	word := strings.ToUpper(firstWord.FindString(bare))
	switch {
	case word == "":
		return state.Errorf(state.ErrInvalid, "the statement is empty")
	case word == "PRAGMA" && !readPragma.MatchString(bare):
		return state.Errorf(state.ErrInvalid, "PRAGMA may only look at tables, indexes, foreign keys and pages here")
	case returning.MatchString(bare):
		return state.Errorf(state.ErrInvalid, "RETURNING does not work on this database: ask for the row afterwards")
	case slices.Contains(readWords, word) && !write:
		if hidden := writing.FindString(bare); hidden != "" {
			return state.Errorf(state.ErrInvalid, "%s would write: ask for that with --write", strings.ToUpper(hidden))
		}
		return nil
	case slices.Contains(writeWords, word):
		if !write {
			return state.Errorf(state.ErrInvalid, "%s would write: ask for that with --write", word)
		}
		return nil
	case write:
		return state.Errorf(state.ErrInvalid, "a write is %s, not %s", strings.Join(writeWords, ", "), word)
	}
	return state.Errorf(state.ErrInvalid, "a query is %s, not %s", strings.Join(readWords, ", "), word)
}

// bareStatement returns the statement without comments, with its texts and quoted
// names emptied, and whether it is only one.
func bareStatement(statement string) (bare string, single bool) {
	var b strings.Builder
	rest := statement
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "--"):
			_, rest, _ = strings.Cut(rest, "\n")
			b.WriteByte(' ')
		case strings.HasPrefix(rest, "/*"):
			_, rest, _ = strings.Cut(rest[2:], "*/")
			b.WriteByte(' ')
		case strings.IndexByte("'\"`[", rest[0]) >= 0:
			closing := map[byte]string{'\'': "'", '"': `"`, '`': "`", '[': "]"}[rest[0]]
			_, rest, _ = strings.Cut(rest[1:], closing)
			b.WriteString("''")
		default:
			b.WriteByte(rest[0])
			rest = rest[1:]
		}
	}
	bare = strings.TrimSpace(b.String())
	bare = strings.TrimSpace(strings.TrimSuffix(bare, ";"))
	return bare, !strings.Contains(bare, ";")
}

// query runs a query on the session.
func (w *writer) query(ctx context.Context, q *query) (*Table, state.Revision, error) {
	if q.write {
		table, err := w.writeQuery(ctx, q)
		return table, w.shown(), err
	}
	// A second lock on the door: the words were checked already.
	if err := w.session.do(ctx, "PRAGMA query_only = 1"); err != nil {
		return nil, 0, w.undone(ctx, err)
	}
	table, err := w.readQuery(ctx, q)
	if reset := w.session.do(ctx, "PRAGMA query_only = 0"); reset != nil {
		w.drop()
	}
	if isLost(err) {
		err = w.undone(ctx, err)
	}
	return table, w.shown(), err
}

func (w *writer) shown() state.Revision { return w.hub.view.Load().revision }

func (w *writer) readQuery(ctx context.Context, q *query) (*Table, error) {
	rows, err := w.session.conn.QueryContext(ctx, q.statement, q.args...)
	if err != nil {
		return nil, inStatement(err)
	}
	defer func() { _ = rows.Close() }()
	table := &Table{Rows: [][]any{}}
	if table.Columns, err = rows.Columns(); err != nil {
		return nil, err
	}
	for rows.Next() {
		row := make([]any, len(table.Columns))
		into := make([]any, len(row))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		table.Rows = append(table.Rows, row)
	}
	return table, inStatement(rows.Err())
}

// inStatement tells the caller that the statement is wrong, when it is.
func inStatement(err error) error {
	if err != nil && isRefusal(err) {
		return state.Errorf(state.ErrInvalid, "%w", err)
	}
	return err
}

// writeQuery runs a write and turns what it did into changes, found by comparing
// the tables with the View.
func (w *writer) writeQuery(ctx context.Context, q *query) (*Table, error) {
	s := w.session
	if err := s.do(ctx, "BEGIN IMMEDIATE"); err != nil {
		return nil, w.undone(ctx, err)
	}
	table, changes, err := w.writeInside(ctx, q)
	if err != nil {
		if isLost(err) || s.do(ctx, "ROLLBACK") != nil {
			return nil, w.undone(ctx, err)
		}
		return nil, err
	}
	if err := s.do(ctx, "COMMIT"); err != nil {
		w.drop()
		return nil, errUnknown
	}
	if len(changes) > 0 {
		s.revision++
	}
	return table, w.show(ctx, changes)
}

func (w *writer) writeInside(ctx context.Context, q *query) (*Table, []Change, error) {
	s := w.session
	id := uuid.NewString()
	if _, err := s.lookup(ctx, []string{id}); err != nil {
		return nil, nil, err
	}
	result, err := s.conn.ExecContext(ctx, q.statement, q.args...)
	if err != nil {
		return nil, nil, inStatement(err)
	}
	affected, err := result.RowsAffected()
	if err != nil {
		return nil, nil, err
	}
	t := &tx{q: s.q, now: time.Now().UTC(), revision: s.revision + 1, schema: s.schema}
	objects, err := s.load(ctx)
	if err != nil {
		if isLost(err) {
			return nil, nil, err
		}
		return nil, nil, state.Errorf(state.ErrInvalid, "the tables make no sense after it: %w", err)
	}
	if err := w.compare(ctx, t, objects); err != nil {
		return nil, nil, err
	}
	saved, changes, err := t.finish()
	if err != nil {
		return nil, nil, err
	}
	if err := s.saveChanges(ctx, saved); err != nil {
		return nil, nil, err
	}
	// Every transaction leaves an outcome: that is how another session notices it.
	if err := s.saveOutcomes(ctx, []outcome{{id: id, revision: t.revision}}); err != nil {
		return nil, nil, err
	}
	return &Table{Columns: []string{}, Rows: [][]any{}, RowsAffected: affected}, changes, nil
}

// compare records the differences between the View and the objects in the tables,
// and gives those that differ the new revision.
func (w *writer) compare(ctx context.Context, t *tx, objects []object) error {
	view := w.hub.view.Load()
	present := map[Kind]map[string]bool{}
	for _, kind := range kinds {
		present[kind] = map[string]bool{}
	}
	for _, o := range objects {
		k := identify(o.kind, o.noun)
		present[o.kind][string(k)] = true
		known, err := view.txn.First(string(o.kind), byID, k)
		if err != nil {
			return err
		}
		same, err := equal(known, o.noun)
		if err != nil {
			return err
		}
		if same {
			continue
		}
		if err := w.touch(ctx, t, o); err != nil {
			return err
		}
		t.record(o.kind, o.noun, silent, "")
	}
	for _, kind := range kinds {
		iterator, err := view.txn.Get(string(kind), byID)
		if err != nil {
			return err
		}
		for known := iterator.Next(); known != nil; known = iterator.Next() {
			if !present[kind][string(identify(kind, known))] {
				t.recordDelete(kind, known, silent, "")
			}
		}
	}
	return nil
}

// equal reports whether two versions of an object are the same to all who can see.
func equal(a, b any) (bool, error) {
	if a == nil {
		return false, nil
	}
	one, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	other, err := json.Marshal(b)
	return bytes.Equal(one, other), err
}

// touch gives an object's row the revision of t.
func (w *writer) touch(ctx context.Context, t *tx, o object) error {
	var where string
	var is []any
	switch n := o.noun.(type) {
	case *state.Project:
		where, is = "projects WHERE name = ?", []any{n.Name}
	case *state.Member:
		where, is = "members WHERE name = ?", []any{n.Name}
	case *state.Setting:
		where, is = "member_settings WHERE key = ? AND member = ?", []any{n.Key, n.Member}
		if n.Member == "" {
			where, is = "cluster_settings WHERE key = ?", []any{n.Key}
		}
	case *state.Group:
		where, is = "member_groups WHERE name = ?", []any{n.Name}
	case *state.Certificate:
		where, is = "certificates WHERE fingerprint = ?", []any{n.Fingerprint}
	case *state.Token:
		where, is = "tokens WHERE id = ?", []any{n.ID}
	case *state.Profile:
		where, is = "profiles WHERE project = ? AND name = ?", []any{n.Project, n.Name}
	case *state.Instance:
		where, is = "instances WHERE id = ?", []any{n.ID}
	case *state.Snapshot:
		where, is = "snapshots WHERE id = ?", []any{n.ID}
	case *state.Image:
		where, is = "images WHERE project = ? AND fingerprint = ?", []any{n.Project, n.Fingerprint}
	case *state.ImageAlias:
		where, is = "image_aliases WHERE project = ? AND name = ?", []any{n.Project, n.Name}
	case *state.Network:
		where, is = "networks WHERE project = ? AND name = ?", []any{n.Project, n.Name}
	case *state.Pool:
		where, is = "pools WHERE name = ?", []any{n.Name}
	case *state.Volume:
		where, is = "volumes WHERE pool = ? AND project = ? AND type = ? AND name = ? AND ifnull(location, '') = ?", []any{n.Pool, n.Project, string(n.Type), n.Name, n.Location}
	case *state.Intent:
		where, is = "intents WHERE id = ?", []any{n.ID}
	}
	table, condition, _ := strings.Cut(where, " ")
	_, err := w.session.conn.ExecContext(ctx, "UPDATE "+table+" SET revision = ? "+condition, append([]any{t.rev()}, is...)...)
	return err
}
