package rest

import (
	"context"
	"net/http"
	"slices"

	"muster/cluster"
	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// GroupStore makes and changes cluster groups; *cluster.Cluster is one.
type GroupStore interface {
	CreateGroup(ctx context.Context, group state.Group, members []string) error
	UpdateGroup(ctx context.Context, name, description string, members []string, expect state.Revision) error
	RenameGroup(ctx context.Context, name, newName string) error
	DeleteGroup(ctx context.Context, name string) error
}

var _ GroupStore = (*cluster.Cluster)(nil)

// groups serves /1.0/cluster/groups.
type groups struct {
	view  func() *store.View
	store GroupStore
}

func (x groups) routes() []route {
	const one = "/1.0/cluster/groups/{name}"
	return []route{
		{
			pattern: "GET /1.0/cluster/groups", access: trusted, handle: x.list, announces: []string{"clustering_groups"},
			summary: "List cluster groups", returns: []api.ClusterGroup{}, query: []parameter{recursionParameter, filterParameter},
		},
		{
			pattern: "POST /1.0/cluster/groups", access: admin, handle: x.create,
			summary: "Create a cluster group", body: api.ClusterGroupsPost{}, status: http.StatusCreated,
		},
		{
			pattern: "GET " + one, access: trusted, handle: x.get, tagged: true,
			summary: "Show a cluster group", returns: api.ClusterGroup{},
		},
		{
			pattern: "PUT " + one, access: admin, handle: x.put, tagged: true,
			summary: "Replace a cluster group's description and members", body: api.ClusterGroupPut{},
		},
		{
			pattern: "PATCH " + one, access: admin, handle: x.patch, tagged: true,
			summary: "Change parts of a cluster group", body: api.ClusterGroupPut{},
		},
		{
			pattern: "POST " + one, access: admin, handle: x.rename,
			summary: "Rename a cluster group", body: api.ClusterGroupPost{}, status: http.StatusCreated,
		},
		{
			pattern: "DELETE " + one, access: admin, handle: x.delete,
			summary: "Delete a cluster group that no member is in",
		},
	}
}

func showGroup(view *store.View, g *state.Group) api.ClusterGroup {
	shown := api.ClusterGroup{Name: g.Name, ClusterGroupPut: api.ClusterGroupPut{Description: g.Description, Members: []string{}}}
	for _, m := range view.Members() {
		if slices.Contains(m.Groups, g.Name) {
			shown.Members = append(shown.Members, m.Name)
		}
	}
	return shown
}

func (x groups) list(r *http.Request) (any, error) {
	view := x.view()
	return listing(r, view.Groups(), rows[*state.Group]{
		url:  func(g *state.Group) string { return path("cluster", "groups", g.Name) },
		show: func(g *state.Group) any { return showGroup(view, g) },
	})
}

func (x groups) create(r *http.Request) (any, error) {
	req, err := decode[api.ClusterGroupsPost](r)
	if err != nil {
		return nil, err
	}
	return created(path("cluster", "groups", req.Name)), x.store.CreateGroup(r.Context(), state.Group{Name: req.Name, Description: req.Description}, req.Members)
}

// tagOf is the newest revision of what a group shows: its members are theirs.
func tagOf(view *store.View, g *state.Group) state.Revision {
	newest := g.Revision
	for _, m := range view.Members() {
		newest = max(newest, m.Revision)
	}
	return newest
}

// expected compares the ETag, and returns the group's own revision to hold on to.
func (x groups) expected(r *http.Request, view *store.View, g *state.Group) (state.Revision, error) {
	expect, err := expected(r)
	if err != nil || expect == 0 {
		return 0, err
	}
	if expect != tagOf(view, g) {
		return 0, state.Errorf(state.ErrStale, "the ETag does not match: cluster group %q changed since it was read", g.Name)
	}
	return g.Revision, nil
}

func (x groups) get(r *http.Request) (any, error) {
	view := x.view()
	g, err := view.Group(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return tagged(etag(tagOf(view, g)), showGroup(view, g)), nil
}

func (x groups) put(r *http.Request) (any, error) {
	req, err := decode[api.ClusterGroupPut](r)
	if err != nil {
		return nil, err
	}
	return nil, x.update(r, func(*store.View, *state.Group) (api.ClusterGroupPut, error) { return req, nil })
}

func (x groups) patch(r *http.Request) (any, error) {
	change, err := body(r)
	if err != nil {
		return nil, err
	}
	return nil, x.update(r, func(view *store.View, g *state.Group) (api.ClusterGroupPut, error) {
		req := showGroup(view, g).ClusterGroupPut
		return req, unmarshal(change, &req)
	})
}

func (x groups) update(r *http.Request, change func(*store.View, *state.Group) (api.ClusterGroupPut, error)) error {
	view := x.view()
	g, err := view.Group(r.PathValue("name"))
	if err != nil {
		return err
	}
	expect, err := x.expected(r, view, g)
	if err != nil {
		return err
	}
	put, err := change(view, g)
	if err != nil {
		return err
	}
	return x.store.UpdateGroup(r.Context(), g.Name, put.Description, put.Members, expect)
}

func (x groups) rename(r *http.Request) (any, error) {
	req, err := decode[api.ClusterGroupPost](r)
	if err != nil {
		return nil, err
	}
	return created(path("cluster", "groups", req.Name)), x.store.RenameGroup(r.Context(), r.PathValue("name"), req.Name)
}

func (x groups) delete(r *http.Request) (any, error) {
	return nil, x.store.DeleteGroup(r.Context(), r.PathValue("name"))
}
