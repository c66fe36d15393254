package store

import "context"

// Table is the answer to a query.
type Table struct {
	Columns []string
	// Rows hold int64, float64, string, bool, []byte, time.Time or nil.
	Rows [][]any
	// RowsAffected is of a write.
	RowsAffected int64
}

// Query runs one SQL statement on the leader's connection, between commands. It
// must read (ErrInvalid otherwise) unless write is true: then it may do anything
// the schema allows, and the View of every member is made anew from the tables.
func (s *Store) Query(ctx context.Context, statement string, args []any, write bool) (*Table, error) {
	return s.query(ctx, statement, args, write)
}
