package rest

import (
	"context"
	"maps"
	"net/http"

	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// ProjectStore changes projects.
type ProjectStore interface {
	// CreateProject makes a project with an empty default profile. It fails with
	// state.ErrExists when the name is taken.
	CreateProject(ctx context.Context, project state.Project) error
	// UpdateProject replaces description and config; see
	// ProfileStore.UpdateProfile for expect.
	UpdateProject(ctx context.Context, project state.Project, expect state.Revision) error
	// DeleteProject fails with state.ErrConflict when something is in it, and
	// with state.ErrForbidden for the project "default".
	DeleteProject(ctx context.Context, name string) error
}

// projects serves /1.0/projects. Without a store it shows the projects there
// are, and the extension "projects" is not announced.
type projects struct {
	view  func() *store.View
	store ProjectStore
}

func (x projects) routes() []route {
	read := []route{
		{
			pattern: "GET /1.0/projects", access: trusted, handle: x.list,
			summary: "List projects", returns: []api.Project{}, query: []parameter{recursionParameter, filterParameter},
			description: "Restricted clients see their own.",
		},
		{
			pattern: "GET /1.0/projects/{name}", access: trusted, handle: x.get,
			summary: "Show a project", returns: api.Project{}, tagged: true,
		},
	}
	if x.store == nil {
		return read
	}
	return append(read, []route{
		{
			pattern: "POST /1.0/projects", access: admin, handle: x.create, announces: []string{"projects"},
			summary: "Create a project", body: api.ProjectsPost{}, status: http.StatusCreated,
		},
		{
			pattern: "PUT /1.0/projects/{name}", access: admin, handle: x.put,
			summary: "Replace a project's configuration", body: api.ProjectPut{}, tagged: true,
		},
		{
			pattern: "PATCH /1.0/projects/{name}", access: admin, handle: x.patch,
			summary: "Change parts of a project's configuration", body: api.ProjectPut{}, tagged: true,
		},
		{
			pattern: "DELETE /1.0/projects/{name}", access: admin, handle: x.delete,
			summary: "Delete an empty project",
		},
	}...)
}

func (x projects) list(r *http.Request) (any, error) {
	view := x.view()
	var visible []*state.Project
	for _, project := range view.Projects() {
		if CallerOf(r.Context()).Sees(project.Name) {
			visible = append(visible, project)
		}
	}
	return listing(r, visible, rows[*state.Project]{
		url:  func(p *state.Project) string { return path("projects", p.Name) },
		show: func(p *state.Project) any { return showProject(view, p) },
	})
}

func (x projects) get(r *http.Request) (any, error) {
	view := x.view()
	project, err := view.Project(r.PathValue("name"))
	if err == nil && !CallerOf(r.Context()).Sees(project.Name) {
		err = state.Errorf(state.ErrNotFound, "project %q not found", r.PathValue("name"))
	}
	if err != nil {
		return nil, err
	}
	return tagged(etag(project.Revision), showProject(view, project)), nil
}

func (x projects) create(r *http.Request) (any, error) {
	req, err := decode[api.ProjectsPost](r)
	if err != nil {
		return nil, err
	}
	project := state.Project{Name: req.Name, Description: req.Description, Config: withoutEmpty(req.Config)}
	return created(path("projects", req.Name)), x.store.CreateProject(r.Context(), project)
}

func (x projects) put(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	req, err := decode[api.ProjectPut](r)
	if err != nil {
		return nil, err
	}
	return nil, x.update(r, req, expect)
}

func (x projects) patch(r *http.Request) (any, error) {
	return patched(r, func(change []byte) (state.Revision, func(state.Revision) error, error) {
		project, err := x.view().Project(r.PathValue("name"))
		if err != nil {
			return 0, nil, err
		}
		req := api.ProjectPut{Description: project.Description, Config: orEmpty(maps.Clone(project.Config))}
		if err := unmarshal(change, &req); err != nil {
			return 0, nil, err
		}
		return project.Revision, func(expect state.Revision) error { return x.update(r, req, expect) }, nil
	})
}

func (x projects) update(r *http.Request, req api.ProjectPut, expect state.Revision) error {
	project := state.Project{Name: r.PathValue("name"), Description: req.Description, Config: withoutEmpty(req.Config)}
	return x.store.UpdateProject(r.Context(), project, expect)
}

func (x projects) delete(r *http.Request) (any, error) {
	return nil, x.store.DeleteProject(r.Context(), r.PathValue("name"))
}

// showProject turns a project into what clients see.
func showProject(view *store.View, p *state.Project) api.Project {
	usedBy := []string{}
	for _, instance := range view.Instances(p.Name) {
		usedBy = append(usedBy, inProject(path("instances", instance.Name), p.Name))
	}
	for _, profile := range view.Profiles(p.Name) {
		usedBy = append(usedBy, profileURL(profile))
	}
	for _, image := range view.Images(p.Name) {
		usedBy = append(usedBy, inProject(path("images", image.Fingerprint), p.Name))
	}
	for _, network := range view.Networks(p.Name) {
		usedBy = append(usedBy, inProject(path("networks", network.Name), p.Name))
	}
	return api.Project{
		Name: p.Name, UsedBy: usedBy,
		ProjectPut: api.ProjectPut{Description: p.Description, Config: orEmpty(p.Config)},
	}
}
