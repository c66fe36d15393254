package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/state"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

// SchemaRange is what a release can work with, both ends included.
type SchemaRange struct {
	Oldest int64 `json:"oldest"`
	Newest int64 `json:"newest"`
}

// Check refuses a schema that is not in the range (ErrConflict), and says what to install.
func (r SchemaRange) Check(version int64) error {
	switch {
	case version > r.Newest:
		return state.Errorf(state.ErrConflict, "the database has schema %d and this release knows %d: run a newer release", version, r.Newest)
	case version < r.Oldest:
		return state.Errorf(state.ErrConflict, "the database has schema %d and this release needs %d: run the release in between on every member first", version, r.Oldest)
	}
	return nil
}

// StepPatience bounds a step of the schema of a cluster. Writes wait meanwhile.
const StepPatience = 30 * time.Second

// Consent is which members can work with a schema, by their IDs.
type Consent struct {
	Schema  int64
	Members []string
}

// schema is what a release knows of it. Its queries are made from the files of schema/, and
// work with that schema and with the steps after it, which only add. A step comes with one
// release as a further step, which no query names; with the next it moves to schema/, and
// is there on every member before that release's first one is (DESIGN, Schema).
type schema struct {
	steps []migration
	// queries is the schema that the queries need.
	queries int64
}

func (s *schema) known() SchemaRange {
	return SchemaRange{Oldest: s.queries, Newest: int64(len(s.steps))}
}

// withFurther is the schema with steps after those that the queries need.
func (s *schema) withFurther(steps ...migration) *schema {
	more := &schema{steps: slices.Clone(s.steps), queries: s.queries}
	for _, step := range steps {
		step.version = int64(len(more.steps) + 1)
		more.steps = append(more.steps, step)
	}
	return more
}

// releaseSchema is that of this release.
func releaseSchema() (*schema, error) {
	steps, err := migrations()
	own := &schema{steps: steps, queries: int64(len(steps))}
	return own.withFurther(furtherSteps()...), err
}

// migration is one numbered step of the schema.
type migration struct {
	version int64
	name    string
	sql     string
}

// migrations returns the steps in order. Their numbers have no gaps.
func migrations() ([]migration, error) {
	files, err := fs.Glob(schemaFiles, "schema/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	steps := make([]migration, len(files))
	for i, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(file, "schema/"), ".sql")
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil || version != int64(i+1) {
			return nil, fmt.Errorf("schema step %s: its number should be %d", file, i+1)
		}
		raw, err := fs.ReadFile(schemaFiles, file)
		if err != nil {
			return nil, err
		}
		steps[i] = migration{version: version, name: name, sql: string(raw)}
	}
	return steps, nil
}

// migrate takes the steps that every member of the cluster can live with, as far as the
// consent goes. What the tables hold may then differ from what their changes say. It
// returns the schema that the database has.
func (s *schema) migrate(ctx context.Context, conn *sql.Conn, now time.Time, consent Consent) (version int64, err error) {
	_, err = conn.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_steps (
		version    INTEGER  NOT NULL PRIMARY KEY,
		name       TEXT     NOT NULL,
		applied_at DATETIME NOT NULL
	)`)
	if err != nil {
		return 0, err
	}
	if version, err = schemaVersion(ctx, conn); err != nil {
		return 0, err
	}
	ask := &consent
	if version == 0 {
		ask = nil // nobody else has it yet
	}
	for version < s.known().Newest {
		step := s.steps[version]
		taken, err := step.run(ctx, conn, now, ask)
		if err != nil {
			return 0, fmt.Errorf("schema step %s: %w", step.name, err)
		}
		if !taken {
			break
		}
		version++
	}
	return version, s.known().Check(version)
}

// agreed reports whether every member can work with a schema: whoever is alone asks nobody.
func (c Consent) agreed(ctx context.Context, tx *sql.Tx, version int64) (bool, error) {
	rows, err := tx.QueryContext(ctx, `SELECT id FROM members`)
	if err != nil {
		return false, err
	}
	defer func() { _ = rows.Close() }()
	count, heard := 0, 0
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return false, err
		}
		count++
		if slices.Contains(c.Members, id) {
			heard++
		}
	}
	return count <= 1 || heard == count && version <= c.Schema, rows.Err()
}

func schemaVersion(ctx context.Context, conn *sql.Conn) (version int64, err error) {
	err = conn.QueryRowContext(ctx, `SELECT ifnull(max(version), 0) FROM schema_steps`).Scan(&version)
	return version, err
}

// run takes the step unless it was taken or not all consent, in a transaction that checks
// both: of two members which try at once one does it. It reports whether the database has
// the step.
func (m migration) run(ctx context.Context, conn *sql.Conn, now time.Time, ask *Consent) (taken bool, err error) {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback() }()
	if ask != nil {
		if agreed, err := ask.agreed(ctx, tx, m.version); !agreed || err != nil {
			return false, err
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO schema_steps (version, name, applied_at) VALUES (?, ?, ?)`, m.version, m.name, now); err != nil {
		if isCode(err, codePrimaryKey, codeUnique) {
			return true, nil
		}
		return false, err
	}
	if _, err := tx.ExecContext(ctx, m.sql); err != nil {
		return false, err
	}
	return true, tx.Commit()
}
