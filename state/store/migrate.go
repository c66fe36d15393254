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

// oldestSchema is the oldest schema that this release's commands work with. Whoever adds a
// step leaves it where it is: a cluster is upgraded one member at a time, and the step is
// taken when every member runs a release that knows it. It moves one release later.
const oldestSchema = 3

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

// Consent is which members can work with a schema, by their IDs.
type Consent struct {
	Schema  int64
	Members []string
}

// schema is what a release knows of it.
type schema struct {
	steps  []migration
	oldest int64
}

func (s *schema) known() SchemaRange {
	return SchemaRange{Oldest: s.oldest, Newest: int64(len(s.steps))}
}

// releaseSchema is that of this release.
func releaseSchema() (*schema, error) {
	steps, err := migrations()
	return &schema{steps: append(steps, furtherSteps()...), oldest: oldestSchema}, err
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
// consent goes, each in a transaction of its own that checks again, so that two members
// which try at once do it once. What the tables hold may then differ from what their
// changes say. It returns the schema that the database has.
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
	target := s.known().Newest
	if version > 0 && version < target {
		if target, err = agreed(ctx, conn, target, consent); err != nil {
			return 0, err
		}
	}
	for version < target {
		step := s.steps[version]
		if err := step.run(ctx, conn, now); err != nil {
			return 0, fmt.Errorf("schema step %s: %w", step.name, err)
		}
		version++
	}
	return version, s.known().Check(version)
}

// agreed is the newest schema that every member can work with, or zero when one was not
// heard of. Who is alone asks nobody.
func agreed(ctx context.Context, conn *sql.Conn, newest int64, consent Consent) (int64, error) {
	rows, err := conn.QueryContext(ctx, `SELECT id FROM members`)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	count, heard := 0, 0
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return 0, err
		}
		count++
		if slices.Contains(consent.Members, id) {
			heard++
		}
	}
	switch err := rows.Err(); {
	case err != nil:
		return 0, err
	case count <= 1:
		return newest, nil
	case heard < count:
		return 0, nil
	}
	return min(newest, consent.Schema), nil
}

func schemaVersion(ctx context.Context, conn *sql.Conn) (version int64, err error) {
	err = conn.QueryRowContext(ctx, `SELECT ifnull(max(version), 0) FROM schema_steps`).Scan(&version)
	return version, err
}

// run takes the step unless it was taken.
func (m migration) run(ctx context.Context, conn *sql.Conn, now time.Time) error {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, `INSERT INTO schema_steps (version, name, applied_at) VALUES (?, ?, ?)`, m.version, m.name, now); err != nil {
		if isCode(err, codePrimaryKey, codeUnique) {
			return nil
		}
		return err
	}
	if _, err := tx.ExecContext(ctx, m.sql); err != nil {
		return err
	}
	return tx.Commit()
}
