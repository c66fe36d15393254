package rest

import (
	"context"
	"net/http"
	"net/url"

	"muster/node/storage"
	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// PoolStore makes and changes storage pools; *cluster.Cluster is one.
type PoolStore interface {
	CreatePool(ctx context.Context, pool state.Pool) error
	// DefinePool is CreatePool for this member's part alone, before the whole.
	DefinePool(ctx context.Context, pool state.Pool) error
	// UpdatePool changes this member's part with here, and the whole otherwise.
	UpdatePool(ctx context.Context, pool state.Pool, here bool, expect state.Revision) error
	DeletePool(ctx context.Context, name string) error
	PoolUsers(name string) []string
	PoolResources(ctx context.Context, name string) (storage.Resources, error)
	// PoolVolumes are the volumes of instances.
	PoolVolumes(ctx context.Context, pool, project string) ([]state.Volume, error)
	VolumeUsage(ctx context.Context, pool, project, instance string) (storage.Usage, error)
}

// pools serves /1.0/storage-pools. Volumes are those of instances, to be looked
// at; they are made and deleted with their instance.
type pools struct {
	view  func() *store.View
	store PoolStore
	host  Host
}

func (x pools) routes() []route {
	target := []parameter{targetParameter}
	volumes := []parameter{projectParameter, recursionParameter, filterParameter}
	const one = "/1.0/storage-pools/{pool}"
	return []route{
		{
			pattern: "GET /1.0/storage-pools", access: trusted, handle: x.list, announces: []string{"storage"},
			summary: "List storage pools", returns: []api.StoragePool{}, query: []parameter{recursionParameter, filterParameter},
		},
		{
			pattern: "POST /1.0/storage-pools", access: admin, on: toTarget, handle: x.create,
			summary: "Create a storage pool", body: api.StoragePoolsPost{}, status: http.StatusCreated, query: target,
		},
		{
			pattern: "GET " + one, access: trusted, on: toTarget, handle: x.get, tagged: true,
			summary: "Show a storage pool", returns: api.StoragePool{}, query: target,
		},
		{
			pattern: "PUT " + one, access: admin, on: toHost, handle: x.put, tagged: true,
			summary: "Replace a pool's configuration", body: api.StoragePoolPut{}, query: target,
		},
		{
			pattern: "PATCH " + one, access: admin, on: toHost, handle: x.patch, tagged: true,
			summary: "Change parts of a pool's configuration", body: api.StoragePoolPut{}, query: target,
		},
		{
			pattern: "DELETE " + one, access: admin, handle: x.delete,
			summary: "Delete a pool that nothing uses",
		},
		{
			pattern: "GET " + one + "/resources", access: trusted, on: toHost, handle: x.resources,
			summary: "Show a pool's space", returns: api.ResourcesStoragePool{}, query: target,
		},
		{
			pattern: "GET " + one + "/volumes", access: trusted, handle: x.volumes,
			summary: "List a pool's volumes", returns: []api.StorageVolume{}, query: volumes,
		},
		{
			pattern: "POST " + one + "/volumes", access: trusted, handle: x.noCustom,
			summary: "Refuse to create a custom volume", description: "Custom volumes are not there yet; volumes of instances are made with them.",
		},
		{
			pattern: "GET " + one + "/volumes/{type}", access: trusted, handle: x.volumes,
			summary: "List a pool's volumes of one type", returns: []api.StorageVolume{}, query: volumes,
		},
		{
			pattern: "POST " + one + "/volumes/{type}", access: trusted, handle: x.noCustom,
			summary: "Refuse to create a custom volume", description: "Custom volumes are not there yet; volumes of instances are made with them.",
		},
		{
			pattern: "GET " + one + "/volumes/{type}/{name}", access: trusted, on: volumeTeller, handle: x.volume, tagged: true,
			summary: "Show a volume", returns: api.StorageVolume{}, query: volumes[:1],
		},
		{
			pattern: "GET " + one + "/volumes/{type}/{name}/state", access: trusted, on: volumeOwner, handle: x.volumeState, announces: []string{"storage_volume_state"},
			summary: "Show the space a volume takes", returns: api.StorageVolumeState{}, query: volumes[:1],
		},
	}
}

func poolURL(p *state.Pool) string { return "/1.0/storage-pools/" + url.PathEscape(p.Name) }

// show is the pool as it is on this member with here, and as a whole otherwise. A server
// alone shows both at once.
func (x pools) show(p *state.Pool, here bool) api.StoragePool {
	shown := api.StoragePool{
		StoragePoolPut: api.StoragePoolPut{Config: p.Config, Description: p.Description},
		Name:           p.Name, Driver: p.Driver, UsedBy: x.store.PoolUsers(p.Name), Status: p.Locals.Status(),
		Locations: p.Locals.Members(),
	}
	self := x.host.Name()
	if here || !x.host.Clustered() {
		shown.Config = p.On(self).Config
	} else {
		shown.Config, _ = state.SplitConfig(p.Config, state.PoolLocalKey)
	}
	if here {
		shown.Status = localStatus(p.Locals[self])
	}
	if !x.host.Clustered() {
		shown.Locations = []string{x.host.location(self)}
	}
	return shown
}

// localStatus is a part's status in the words that clients know.
func localStatus(local state.Local) string {
	if local.Unavailable() {
		return "Unavailable"
	}
	switch local.Status {
	case state.LocalCreated, state.LocalErrored, state.LocalPending:
		return string(local.Status)
	case state.LocalCreating, state.LocalDeleting:
		return string(state.LocalPending)
	}
	return "Unknown"
}

// here reports whether the request is about what this member has of a pool or network.
func here(r *http.Request) bool { return r.URL.Query().Get("target") != "" }

func (x pools) list(r *http.Request) (any, error) {
	return listing(r, x.view().Pools(), rows[*state.Pool]{url: poolURL, show: func(p *state.Pool) any { return x.show(p, false) }})
}

func (x pools) create(r *http.Request) (any, error) {
	req, err := decode[api.StoragePoolsPost](r)
	if err != nil {
		return nil, err
	}
	pool := state.Pool{Name: req.Name, Driver: req.Driver, Description: req.Description, Config: withoutEmpty(req.Config)}
	make := x.store.CreatePool
	if here(r) {
		make = x.store.DefinePool
	}
	return created(poolURL(&pool)), make(r.Context(), pool)
}

func (x pools) get(r *http.Request) (any, error) {
	pool, err := x.view().Pool(r.PathValue("pool"))
	if err != nil {
		return nil, err
	}
	return tagged(etag(pool.Revision), x.show(pool, here(r))), nil
}

func (x pools) put(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	req, err := decode[api.StoragePoolPut](r)
	if err != nil {
		return nil, err
	}
	return nil, x.store.UpdatePool(r.Context(), poolOf(r.PathValue("pool"), req), here(r), expect)
}

func poolOf(name string, req api.StoragePoolPut) state.Pool {
	return state.Pool{Name: name, Description: req.Description, Config: withoutEmpty(req.Config)}
}

func (x pools) patch(r *http.Request) (any, error) {
	return patched(r, func(change []byte) (state.Revision, func(state.Revision) error, error) {
		pool, err := x.view().Pool(r.PathValue("pool"))
		if err != nil {
			return 0, nil, err
		}
		req := x.show(pool, here(r)).StoragePoolPut
		req.Config = withoutEmpty(req.Config)
		if err := unmarshal(change, &req); err != nil {
			return 0, nil, err
		}
		return pool.Revision, func(expect state.Revision) error {
			return x.store.UpdatePool(r.Context(), poolOf(pool.Name, req), here(r), expect)
		}, nil
	})
}

func (x pools) delete(r *http.Request) (any, error) {
	return nil, x.store.DeletePool(r.Context(), r.PathValue("pool"))
}

func (x pools) resources(r *http.Request) (any, error) {
	found, err := x.store.PoolResources(r.Context(), r.PathValue("pool"))
	if err != nil {
		return nil, err
	}
	return showSpace(found), nil
}

func showSpace(found storage.Resources) api.ResourcesStoragePool {
	return api.ResourcesStoragePool{
		Space:  api.ResourcesStoragePoolSpace{Used: found.SpaceUsed, Total: found.SpaceTotal},
		Inodes: api.ResourcesStoragePoolInodes{Used: found.InodesUsed, Total: found.InodesTotal},
	}
}

func (pools) noCustom(*http.Request) (any, error) {
	return nil, state.Errorf(state.ErrInvalid, "custom volumes are not supported yet: use a disk device with a \"source\" on the host")
}

func (x pools) showVolume(v state.Volume) api.StorageVolume {
	return api.StorageVolume{
		StorageVolumePut: api.StorageVolumePut{Config: orEmpty(v.Config), Description: v.Description},
		Name:             v.Name, Type: string(v.Type), UsedBy: []string{instanceURL("/1.0/instances", v.Project, v.Name)},
		Location: x.host.location(v.Location), ContentType: "filesystem", Project: v.Project, CreatedAt: v.CreatedAt,
	}
}

// found returns the volumes of the type that the path names; those of the other
// types that clients ask for are none.
func (x pools) found(r *http.Request) ([]state.Volume, error) {
	switch kind := r.PathValue("type"); kind {
	case "", "container":
	case "custom", "image", "virtual-machine":
		_, err := x.view().Pool(r.PathValue("pool"))
		return nil, err
	default:
		return nil, state.Errorf(state.ErrInvalid, "volume type %q: want container, custom, image or virtual-machine", kind)
	}
	return x.store.PoolVolumes(r.Context(), r.PathValue("pool"), projectName(r))
}

func (x pools) volumes(r *http.Request) (any, error) {
	found, err := x.found(r)
	if err != nil {
		return nil, err
	}
	base := "/1.0/storage-pools/" + url.PathEscape(r.PathValue("pool")) + "/volumes/"
	return listing(r, found, rows[state.Volume]{
		url: func(v state.Volume) string {
			return inProject(base+string(v.Type)+"/"+url.PathEscape(v.Name), v.Project)
		},
		show: func(v state.Volume) any { return x.showVolume(v) },
	})
}

func (x pools) findVolume(r *http.Request) (state.Volume, error) {
	found, err := x.found(r)
	if err != nil {
		return state.Volume{}, err
	}
	for _, volume := range found {
		if volume.Name == r.PathValue("name") {
			return volume, nil
		}
	}
	return state.Volume{}, state.Errorf(state.ErrNotFound, "storage volume %q of pool %q not found", r.PathValue("name"), r.PathValue("pool"))
}

func (x pools) volume(r *http.Request) (any, error) {
	volume, err := x.findVolume(r)
	if err != nil {
		return nil, err
	}
	return tagged(etag(volume.Revision), x.showVolume(volume)), nil
}

func (x pools) volumeState(r *http.Request) (any, error) {
	volume, err := x.findVolume(r)
	if err != nil {
		return nil, err
	}
	usage, err := x.store.VolumeUsage(r.Context(), volume.Pool, volume.Project, volume.Name)
	if err != nil {
		return nil, err
	}
	return api.StorageVolumeState{Usage: &api.StorageVolumeStateUsage{Used: uint64(max(usage.Used, 0)), Total: usage.Limit}}, nil
}
