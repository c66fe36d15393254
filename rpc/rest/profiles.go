package rest

import (
	"context"
	"maps"
	"net/http"

	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// ProfileStore changes profiles. Every method checks what it is given before it
// changes anything.
type ProfileStore interface {
	// CreateProfile fails with state.ErrExists when the name is taken.
	CreateProfile(ctx context.Context, profile state.Profile) error
	// UpdateProfile replaces description, config and devices of the profile that
	// profile names, and passes the change on to the instances that use it. When
	// expect is not zero and not the profile's revision, it is state.ErrStale.
	UpdateProfile(ctx context.Context, profile state.Profile, expect state.Revision) error
	// RenameProfile fails with state.ErrExists when the new name is taken, and
	// with state.ErrForbidden for the profile "default".
	RenameProfile(ctx context.Context, project, name, newName string) error
	// DeleteProfile fails with state.ErrConflict when instances use the profile,
	// and with state.ErrForbidden for the profile "default".
	DeleteProfile(ctx context.Context, project, name string, expect state.Revision) error
}

// profiles serves /1.0/profiles.
type profiles struct {
	view       func() *store.View
	store      ProfileStore
	operations OperationStore
}

func (x profiles) routes() []route {
	project := []parameter{projectParameter}
	return []route{
		{
			pattern: "GET /1.0/profiles", access: trusted, handle: x.list,
			summary: "List profiles", returns: []api.Profile{},
			announces: []string{"profile_usedby", "entity_description"},
			query:     []parameter{projectParameter, recursionParameter, filterParameter},
		},
		{
			pattern: "POST /1.0/profiles", access: trusted, handle: x.create,
			summary: "Create a profile", body: api.ProfilesPost{}, status: http.StatusCreated, query: project,
		},
		{
			pattern: "GET /1.0/profiles/{name}", access: trusted, handle: x.get,
			summary: "Show a profile", returns: api.Profile{}, tagged: true, query: project,
		},
		{
			pattern: "PUT /1.0/profiles/{name}", access: trusted, handle: x.put,
			summary: "Replace a profile's configuration", body: api.ProfilePut{}, tagged: true, query: project,
		},
		{
			pattern: "PATCH /1.0/profiles/{name}", access: trusted, handle: x.patch,
			summary: "Change parts of a profile's configuration", body: api.ProfilePut{}, tagged: true, query: project,
			description: "Keys and devices that the body leaves out stay as they are; an empty value unsets a key.",
		},
		{
			pattern: "POST /1.0/profiles/{name}", access: trusted, handle: x.rename,
			summary: "Rename a profile", body: api.ProfilePost{}, status: http.StatusCreated, query: project,
		},
		{
			pattern: "DELETE /1.0/profiles/{name}", access: trusted, handle: x.delete,
			summary: "Delete a profile", async: true, tagged: true, returns: api.Operation{}, query: project,
			description: "The profile is gone when the answer arrives; the operation has nothing left to do.",
		},
	}
}

func (x profiles) list(r *http.Request) (any, error) {
	view := x.view()
	return listing(r, view.Profiles(projectName(r)), rows[*state.Profile]{
		url:  profileURL,
		show: func(p *state.Profile) any { return showProfile(view, p) },
	})
}

func (x profiles) create(r *http.Request) (any, error) {
	req, err := decode[api.ProfilesPost](r)
	if err != nil {
		return nil, err
	}
	profile := profileOf(projectName(r), req.Name, req.ProfilePut)
	return created(profileURL(&profile)), x.store.CreateProfile(r.Context(), profile)
}

func (x profiles) get(r *http.Request) (any, error) {
	view := x.view()
	profile, err := view.Profile(projectName(r), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return tagged(etag(profile.Revision), showProfile(view, profile)), nil
}

func (x profiles) put(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	req, err := decode[api.ProfilePut](r)
	if err != nil {
		return nil, err
	}
	return nil, x.store.UpdateProfile(r.Context(), profileOf(projectName(r), r.PathValue("name"), req), expect)
}

func (x profiles) patch(r *http.Request) (any, error) {
	return patched(r, func(change []byte) (state.Revision, func(state.Revision) error, error) {
		profile, err := x.view().Profile(projectName(r), r.PathValue("name"))
		if err != nil {
			return 0, nil, err
		}
		req := showProfile(x.view(), profile).ProfilePut
		if err := unmarshal(change, &req); err != nil {
			return 0, nil, err
		}
		return profile.Revision, func(expect state.Revision) error {
			return x.store.UpdateProfile(r.Context(), profileOf(profile.Project, profile.Name, req), expect)
		}, nil
	})
}

func (x profiles) rename(r *http.Request) (any, error) {
	req, err := decode[api.ProfilePost](r)
	if err != nil {
		return nil, err
	}
	renamed := state.Profile{Project: projectName(r), Name: req.Name}
	return created(profileURL(&renamed)), x.store.RenameProfile(r.Context(), renamed.Project, r.PathValue("name"), req.Name)
}

func (x profiles) delete(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	project, name := projectName(r), r.PathValue("name")
	if err := x.store.DeleteProfile(r.Context(), project, name, expect); err != nil {
		return nil, err
	}
	return done(r, x.operations, "Deleting profile", "profiles", profileURL(&state.Profile{Project: project, Name: name}))
}

// profileURL is the profile's address.
func profileURL(p *state.Profile) string { return inProject(path("profiles", p.Name), p.Project) }

// showProfile turns a profile into what clients see; the result shares nothing
// with the View.
func showProfile(view *store.View, p *state.Profile) api.Profile {
	users := view.ProfileUsers(p.Project, p.Name)
	shown := api.Profile{
		Name: p.Name, UsedBy: make([]string, len(users)),
		ProfilePut: api.ProfilePut{
			Description: p.Description, Config: orEmpty(maps.Clone(p.Config)), Devices: orEmpty(maps.Clone(p.Devices)),
		},
	}
	for i, user := range users {
		shown.UsedBy[i] = inProject(path("instances", user.Name), user.Project)
	}
	return shown
}

// profileOf turns what a client sent into a profile.
func profileOf(project, name string, req api.ProfilePut) state.Profile {
	return state.Profile{
		Project: project, Name: name, Description: req.Description,
		Config: withoutEmpty(req.Config), Devices: withoutNil(req.Devices),
	}
}
