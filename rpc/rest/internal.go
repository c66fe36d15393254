package rest

import (
	"context"
	"net/http"

	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// Daemon is what the daemon's own subcommands ask of it.
type Daemon interface {
	// Ready reports whether the member has come to order and serves, and the instances that
	// start with it have been started.
	Ready() bool
	// Shutdown ends the daemon soon after it returns; with stopInstances every
	// instance is stopped first, before it returns.
	Shutdown(ctx context.Context, stopInstances bool) error
	// Join has another's cluster admit this server. When it fails nothing has changed;
	// otherwise the caller calls BeginAnew.
	Join(ctx context.Context, join JoinSpec) error
	// BeginAnew ends this server's life alone: it begins anew as a member of the cluster
	// that has admitted it. answer is called once, when the join has ended. It is nil when
	// whoever asked can't be told then: this life ends a moment later.
	BeginAnew(answer func(JoinEnd))
	// JoinTerms asks the cluster that a Join would lead to for the keys that may differ
	// on this server, and whether the cluster and this machine could do with the pools
	// and networks as join has them. Nothing is changed, and a join token stays good.
	JoinTerms(ctx context.Context, join JoinSpec) ([]api.ClusterMemberConfigKey, error)
	// Leave makes this server, which was removed from its cluster, one of its own again
	// soon after it returns.
	Leave(ctx context.Context) error
	// Database says who votes, as this member's logs have it.
	Database(ctx context.Context) (InternalDatabase, error)
	// Query runs SQL against the state plane; write allows changes.
	Query(ctx context.Context, statement string, write bool) (*store.Table, error)
}

// internal serves what musterd's subcommands need. It is no part of the API and
// answers the local socket only.
type internal struct{ daemon Daemon }

func (x internal) routes() []route {
	return []route{
		{
			pattern: "GET /internal/ready", access: admin, handle: x.ready,
			summary: "Wait for musterd waitready",
		},
		{
			pattern: "POST /internal/shutdown", access: admin, handle: x.shutdown, streams: true,
			summary: "End the daemon", body: InternalShutdown{},
		},
		{
			pattern: "POST /internal/leave", access: admin, handle: x.leave,
			summary: "Tell a member that it was removed",
		},
		{
			pattern: "GET /internal/database", access: admin, handle: x.database,
			summary: "Say who votes, as this member's logs have it", returns: InternalDatabase{},
		},
		{
			pattern: "POST /internal/sql", access: admin, handle: x.sql,
			summary: "Run SQL against the state plane", body: InternalSQL{}, returns: InternalTable{},
		},
	}
}

// InternalShutdown is the body of POST /internal/shutdown.
type InternalShutdown struct {
	// KeepInstances leaves instances running.
	KeepInstances bool `json:"keep_instances"`
}

// InternalDatabase is the answer to GET /internal/database.
type InternalDatabase struct {
	// Self is this member's ID, Revision how far it has the database.
	Self     string `json:"self"`
	Revision int64  `json:"revision"`
	// Schema is the database's, as the daemon shows it; zero while none runs.
	Schema int64 `json:"schema,omitempty"`
	// Worker says that this member has neither log, and shows what it heard last.
	Worker  bool                     `json:"worker"`
	Members []InternalDatabaseMember `json:"members"`
}

// InternalDatabaseMember is what a member does for the two logs.
type InternalDatabaseMember struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"`
	// Database and Coordination are voter, stand-by, spare or worker; or "voter or
	// stand-by", when this member knows no more.
	Database     string `json:"database"`
	Coordination string `json:"coordination"`
}

// InternalSQL is the body of POST /internal/sql.
type InternalSQL struct {
	Query string `json:"query"`
	// Write allows statements that change something.
	Write bool `json:"write"`
}

// InternalTable is the answer to it.
type InternalTable struct {
	Columns      []string `json:"columns"`
	Rows         [][]any  `json:"rows"`
	RowsAffected int64    `json:"rows_affected"`
}

func local(r *http.Request) error {
	if CallerOf(r.Context()).Protocol != "unix" {
		return state.Errorf(state.ErrForbidden, "not authorized: this is for the daemon's own subcommands, over the local socket")
	}
	return nil
}

func (x internal) ready(r *http.Request) (any, error) {
	if err := local(r); err != nil {
		return nil, err
	}
	if !x.daemon.Ready() {
		return nil, state.Errorf(state.ErrUnavailable, "the daemon is not ready yet")
	}
	return nil, nil
}

func (x internal) database(r *http.Request) (any, error) {
	if err := local(r); err != nil {
		return nil, err
	}
	return x.daemon.Database(r.Context())
}

func (x internal) leave(r *http.Request) (any, error) {
	if err := fromMember(r); err != nil {
		return nil, err
	}
	return nil, x.daemon.Leave(r.Context())
}

func (x internal) shutdown(r *http.Request) (any, error) {
	if err := local(r); err != nil {
		return nil, err
	}
	req, err := decode[InternalShutdown](r)
	if err != nil {
		return nil, err
	}
	return nil, x.daemon.Shutdown(r.Context(), !req.KeepInstances)
}

func (x internal) sql(r *http.Request) (any, error) {
	if err := local(r); err != nil {
		return nil, err
	}
	req, err := decode[InternalSQL](r)
	if err != nil {
		return nil, err
	}
	table, err := x.daemon.Query(r.Context(), req.Query, req.Write)
	if err != nil {
		return nil, err
	}
	return InternalTable{Columns: orNone(table.Columns), Rows: orNone(table.Rows), RowsAffected: table.RowsAffected}, nil
}
