package lab

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Row is a member of a cluster as a member shows it.
type Row struct {
	Name   string   `json:"server_name"`
	Status string   `json:"status"`
	Roles  []string `json:"roles"`
	// Message says whether the member is still becoming what its roles are.
	Message string `json:"message"`
}

// Votes reports whether the row shows a voter of the database.
func (r Row) Votes() bool { return slices.Contains(r.Roles, "database") }

// StandsBy reports whether the row shows a member with the database and no vote.
func (r Row) StandsBy() bool { return slices.Contains(r.Roles, "database-standby") }

// Works reports whether the row shows a worker.
func (r Row) Works() bool { return !r.Votes() && !r.StandsBy() }

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

// Settled waits until the member shows count members that are online, each of them what
// its roles say and no longer becoming it, and returns them. Others may be offline.
func (m *Member) Settled(ctx context.Context, count int) ([]Row, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var rows []Row
	var err error
	for {
		if rows, err = m.Rows(ctx); err == nil {
			online := slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return r.Status != "Online" })
			ready := !slices.ContainsFunc(online, func(r Row) bool { return r.Message != "Fully operational" })
			if len(online) == count && ready {
				return online, nil
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("the cluster does not settle with %d members online: %+v (%w)", count, rows, err)
		}
	}
}
