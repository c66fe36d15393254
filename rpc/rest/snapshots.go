package rest

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"time"

	"muster/cluster"
	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// SnapshotStore takes and changes snapshots; *cluster.Cluster is one.
type SnapshotStore interface {
	Instance(ctx context.Context, project, name string) (*state.Instance, error)
	Snapshot(ctx context.Context, project, instance, name string) (*state.Snapshot, error)
	CreateSnapshot(ctx context.Context, project, instance string, spec cluster.SnapshotSpec) (cluster.OperationInfo, error)
	UpdateSnapshot(ctx context.Context, project, instance, name string, expiresAt time.Time, expect state.Revision) error
	RenameSnapshot(ctx context.Context, project, instance, name, newName string) (cluster.OperationInfo, error)
	DeleteSnapshot(ctx context.Context, project, instance, name string) (cluster.OperationInfo, error)
}

// snapshots serves /1.0/instances/{name}/snapshots.
type snapshots struct {
	view       func() *store.View
	store      SnapshotStore
	operations OperationStore
}

func (x snapshots) routes() []route {
	project := []parameter{projectParameter}
	const one = "/1.0/instances/{name}/snapshots/{snapshot}"
	return []route{
		{
			pattern: "GET /1.0/instances/{name}/snapshots", access: trusted, handle: x.list,
			summary: "List an instance's snapshots", returns: []api.InstanceSnapshot{}, query: []parameter{projectParameter, recursionParameter},
		},
		{
			pattern: "POST /1.0/instances/{name}/snapshots", access: trusted, on: instanceOwner, handle: x.create,
			summary: "Take a snapshot", body: api.InstanceSnapshotsPost{}, returns: api.Operation{}, async: true, query: project,
		},
		{
			pattern: "GET " + one, access: trusted, handle: x.get, tagged: true,
			summary: "Show a snapshot", returns: api.InstanceSnapshot{}, query: project,
		},
		{
			pattern: "PUT " + one, access: trusted, on: instanceOwner, handle: x.update, tagged: true,
			summary: "Change when a snapshot expires", body: api.InstanceSnapshotPut{}, returns: api.Operation{}, async: true, query: project,
		},
		{
			pattern: "PATCH " + one, access: trusted, on: instanceOwner, handle: x.patch, tagged: true,
			summary: "Change when a snapshot expires", body: api.InstanceSnapshotPut{}, returns: api.Operation{}, async: true, query: project,
			description: "A body that leaves expires_at out changes nothing.",
		},
		{
			pattern: "POST " + one, access: trusted, on: instanceOwner, handle: x.rename,
			summary: "Rename a snapshot", body: api.InstanceSnapshotPost{}, returns: api.Operation{}, async: true, query: project,
		},
		{
			pattern: "DELETE " + one, access: trusted, on: instanceOwner, handle: x.delete,
			summary: "Delete a snapshot", returns: api.Operation{}, async: true, query: project,
		},
	}
}

func showSnapshot(view *store.View, s *state.Snapshot) api.InstanceSnapshot {
	config, devices := expanded(view, s.Project, s.Profiles, s.Config, s.Devices)
	return api.InstanceSnapshot{
		InstanceSnapshotPut: api.InstanceSnapshotPut{ExpiresAt: s.ExpiresAt},
		Architecture:        s.Architecture, Config: maps.Clone(orEmpty(s.Config)), CreatedAt: s.CreatedAt, Devices: orEmpty(s.Devices),
		Ephemeral: s.Ephemeral, ExpandedConfig: config, ExpandedDevices: devices, LastUsedAt: orEpoch(time.Time{}),
		Name: s.Name, Profiles: orNone(s.Profiles), Stateful: s.Stateful, Size: -1,
	}
}

func (x snapshots) list(r *http.Request) (any, error) {
	inst, err := x.store.Instance(r.Context(), projectName(r), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	view, prefix := x.view(), instancesPrefix(r)
	return listing(r, view.Snapshots(inst.Project, inst.Name), rows[*state.Snapshot]{
		url: func(s *state.Snapshot) string {
			return inProject(prefix+"/"+url.PathEscape(s.Instance)+"/snapshots/"+url.PathEscape(s.Name), s.Project)
		},
		show: func(s *state.Snapshot) any { return showSnapshot(view, s) },
	})
}

func (x snapshots) create(r *http.Request) (any, error) {
	req, err := decode[api.InstanceSnapshotsPost](r)
	if err != nil {
		return nil, err
	}
	op, err := x.store.CreateSnapshot(r.Context(), projectName(r), r.PathValue("name"),
		cluster.SnapshotSpec{Name: req.Name, Stateful: req.Stateful, ExpiresAt: req.ExpiresAt})
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func (x snapshots) get(r *http.Request) (any, error) {
	snapshot, err := x.store.Snapshot(r.Context(), projectName(r), r.PathValue("name"), r.PathValue("snapshot"))
	if err != nil {
		return nil, err
	}
	return tagged(etag(snapshot.Revision), showSnapshot(x.view(), snapshot)), nil
}

func (x snapshots) update(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	req, err := decode[api.InstanceSnapshotPut](r)
	if err != nil {
		return nil, err
	}
	project, name, snapshot := projectName(r), r.PathValue("name"), r.PathValue("snapshot")
	if err := x.store.UpdateSnapshot(r.Context(), project, name, snapshot, req.ExpiresAt, expect); err != nil {
		return nil, err
	}
	return done(r, x.operations, "Updating snapshot", "instances", instanceURL("/1.0/instances", project, name))
}

func (x snapshots) patch(r *http.Request) (any, error) {
	project, name := projectName(r), r.PathValue("name")
	_, err := patched(r, func(change []byte) (state.Revision, func(state.Revision) error, error) {
		snapshot, err := x.store.Snapshot(r.Context(), project, name, r.PathValue("snapshot"))
		if err != nil {
			return 0, nil, err
		}
		req := api.InstanceSnapshotPut{ExpiresAt: snapshot.ExpiresAt}
		if err := unmarshal(change, &req); err != nil {
			return 0, nil, err
		}
		return snapshot.Revision, func(expect state.Revision) error {
			return x.store.UpdateSnapshot(r.Context(), project, name, snapshot.Name, req.ExpiresAt, expect)
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return done(r, x.operations, "Updating snapshot", "instances", instanceURL("/1.0/instances", project, name))
}

func (x snapshots) rename(r *http.Request) (any, error) {
	req, err := decode[api.InstanceSnapshotPost](r)
	if err != nil {
		return nil, err
	}
	if req.Migration {
		return nil, state.Errorf(state.ErrInvalid, "migration is not supported: rename without it, or publish and import an image")
	}
	op, err := x.store.RenameSnapshot(r.Context(), projectName(r), r.PathValue("name"), r.PathValue("snapshot"), req.Name)
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func (x snapshots) delete(r *http.Request) (any, error) {
	op, err := x.store.DeleteSnapshot(r.Context(), projectName(r), r.PathValue("name"), r.PathValue("snapshot"))
	if err != nil {
		return nil, err
	}
	return started(op), nil
}
