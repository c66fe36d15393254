package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"muster/state"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

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

// migrate brings the schema up to date, each step in a transaction of its own that
// checks again, so that two members which try at once do it once. It reports whether
// there was anything to do: what the tables hold may then differ from what their changes
// say.
func migrate(ctx context.Context, conn *sql.Conn, now time.Time) (changed bool, err error) {
	steps, err := migrations()
	if err != nil {
		return false, err
	}
	_, err = conn.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_steps (
		version    INTEGER  NOT NULL PRIMARY KEY,
		name       TEXT     NOT NULL,
		applied_at DATETIME NOT NULL
	)`)
	if err != nil {
		return false, err
	}
	newest := int64(len(steps))
	current, err := schemaVersion(ctx, conn)
	if err != nil {
		return false, err
	}
	if current > newest {
		return false, state.Errorf(state.ErrConflict, "the database has schema %d and this release knows %d: run a newer release", current, newest)
	}
	for _, step := range steps[current:] {
		if err := step.run(ctx, conn, now); err != nil {
			return false, fmt.Errorf("schema step %s: %w", step.name, err)
		}
	}
	return current < newest, nil
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
