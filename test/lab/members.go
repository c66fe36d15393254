package lab

import (
	"context"
	"slices"
)

// Row is a member of a cluster as a member shows it.
type Row struct {
	Name   string   `json:"server_name"`
	Status string   `json:"status"`
	Roles  []string `json:"roles"`
}

// Leads reports whether the row shows the database's leader.
func (r Row) Leads() bool { return slices.Contains(r.Roles, "database-leader") }

// Coordinates reports whether the row shows the coordinator.
func (r Row) Coordinates() bool { return slices.Contains(r.Roles, "coordinator") }

// Rows are the members of the cluster as this member shows them, ordered by name.
func (m *Member) Rows(ctx context.Context) ([]Row, error) {
	var rows []Row
	err := m.Get(ctx, "/1.0/cluster/members?recursion=1", &rows)
	return rows, err
}
