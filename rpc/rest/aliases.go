package rest

import (
	"net/http"
	"net/url"

	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// aliases serves /1.0/images/aliases. Names may hold slashes.
type aliases struct {
	view  func() *store.View
	store ImageStore
}

func (x aliases) routes() []route {
	project := []parameter{projectParameter}
	return []route{
		{
			pattern: "GET /1.0/images/aliases", access: public, handle: x.list,
			summary: "List image aliases", returns: []api.ImageAliasesEntry{}, query: []parameter{projectParameter, recursionParameter},
		},
		{
			pattern: "POST /1.0/images/aliases", access: trusted, handle: x.create,
			summary: "Name an image", body: api.ImageAliasesPost{}, status: http.StatusCreated, query: project,
		},
		{
			pattern: "GET /1.0/images/aliases/{name...}", access: public, handle: x.get, tagged: true,
			summary: "Show an image alias", returns: api.ImageAliasesEntry{}, query: project,
		},
		{
			pattern: "PUT /1.0/images/aliases/{name...}", access: trusted, handle: x.put, tagged: true,
			summary: "Point an alias to another image", body: api.ImageAliasesEntryPut{}, query: project,
		},
		{
			pattern: "PATCH /1.0/images/aliases/{name...}", access: trusted, handle: x.patch, tagged: true,
			summary: "Change parts of an alias", body: api.ImageAliasesEntryPut{}, query: project,
		},
		{
			pattern: "POST /1.0/images/aliases/{name...}", access: trusted, handle: x.rename,
			summary: "Rename an alias", body: api.ImageAliasesEntryPost{}, status: http.StatusCreated, query: project,
		},
		{
			pattern: "DELETE /1.0/images/aliases/{name...}", access: trusted, handle: x.delete,
			summary: "Delete an alias", query: project,
		},
	}
}

func aliasURL(project, name string) string {
	return inProject("/1.0/images/aliases/"+url.PathEscape(name), project)
}

// visible reports whether the caller may see where the alias points.
func visible(r *http.Request, view *store.View, alias *state.ImageAlias) bool {
	if CallerOf(r.Context()).Sees(alias.Project) {
		return true
	}
	target, err := view.Image(alias.Project, alias.Target)
	return err == nil && target.Public
}

func showAlias(alias *state.ImageAlias) api.ImageAliasesEntry {
	return api.ImageAliasesEntry{
		ImageAliasesEntryPut: api.ImageAliasesEntryPut{Description: alias.Description, Target: alias.Target},
		Name:                 alias.Name, Type: "container",
	}
}

func (x aliases) list(r *http.Request) (any, error) {
	view := x.view()
	seen := []*state.ImageAlias{}
	for _, alias := range view.Aliases(projectName(r)) {
		if visible(r, view, alias) {
			seen = append(seen, alias)
		}
	}
	return listing(r, seen, rows[*state.ImageAlias]{
		url:  func(a *state.ImageAlias) string { return aliasURL(a.Project, a.Name) },
		show: func(a *state.ImageAlias) any { return showAlias(a) },
	})
}

func (x aliases) create(r *http.Request) (any, error) {
	req, err := decode[api.ImageAliasesPost](r)
	if err != nil {
		return nil, err
	}
	project := projectName(r)
	return created(aliasURL(project, req.Name)), x.store.CreateAlias(r.Context(), state.ImageAlias{
		Project: project, Name: req.Name, Description: req.Description, Target: req.Target,
	})
}

func (x aliases) find(r *http.Request) (*state.ImageAlias, error) {
	view := x.view()
	alias, err := view.Alias(projectName(r), r.PathValue("name"))
	if err == nil && !visible(r, view, alias) {
		err = state.Errorf(state.ErrNotFound, "image alias %q not found", r.PathValue("name"))
	}
	return alias, err
}

func (x aliases) get(r *http.Request) (any, error) {
	alias, err := x.find(r)
	if err != nil {
		return nil, err
	}
	return tagged(etag(alias.Revision), showAlias(alias)), nil
}

func (x aliases) put(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	req, err := decode[api.ImageAliasesEntryPut](r)
	if err != nil {
		return nil, err
	}
	alias, err := x.find(r)
	if err != nil {
		return nil, err
	}
	return nil, x.store.UpdateAlias(r.Context(), state.ImageAlias{
		Project: alias.Project, Name: alias.Name, Description: req.Description, Target: req.Target,
	}, expect)
}

func (x aliases) patch(r *http.Request) (any, error) {
	return patched(r, func(change []byte) (state.Revision, func(state.Revision) error, error) {
		alias, err := x.find(r)
		if err != nil {
			return 0, nil, err
		}
		req := showAlias(alias).ImageAliasesEntryPut
		if err := unmarshal(change, &req); err != nil {
			return 0, nil, err
		}
		return alias.Revision, func(expect state.Revision) error {
			return x.store.UpdateAlias(r.Context(), state.ImageAlias{
				Project: alias.Project, Name: alias.Name, Description: req.Description, Target: req.Target,
			}, expect)
		}, nil
	})
}

func (x aliases) rename(r *http.Request) (any, error) {
	req, err := decode[api.ImageAliasesEntryPost](r)
	if err != nil {
		return nil, err
	}
	project := projectName(r)
	return created(aliasURL(project, req.Name)), x.store.RenameAlias(r.Context(), project, r.PathValue("name"), req.Name)
}

func (x aliases) delete(r *http.Request) (any, error) {
	return nil, x.store.DeleteAlias(r.Context(), projectName(r), r.PathValue("name"))
}
