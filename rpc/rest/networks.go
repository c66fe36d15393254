package rest

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"muster/cluster"
	"muster/node/network"
	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// NetworkStore makes and changes networks; *cluster.Cluster is one.
type NetworkStore interface {
	CreateNetwork(ctx context.Context, network state.Network) error
	// DefineNetwork is CreateNetwork for this member's part alone, before the whole.
	DefineNetwork(ctx context.Context, network state.Network) error
	// UpdateNetwork changes this member's part with here, and the whole otherwise.
	UpdateNetwork(ctx context.Context, network state.Network, here bool, expect state.Revision) error
	RenameNetwork(ctx context.Context, project, name, newName string) error
	DeleteNetwork(ctx context.Context, project, name string) error
	NetworkUsers(name string) []string
	NetworkLeases(ctx context.Context, project, name string) ([]network.Lease, error)
	// NetworkState and Interfaces are about this member's interfaces, managed or
	// not.
	NetworkState(ctx context.Context, name string) (network.State, error)
	Interfaces(ctx context.Context) ([]network.Interface, error)
}

var (
	_ NetworkStore  = (*cluster.Cluster)(nil)
	_ InstanceStore = (*cluster.Cluster)(nil)
	_ SnapshotStore = (*cluster.Cluster)(nil)
	_ ExecStore     = (*cluster.Cluster)(nil)
	_ FileStore     = (*cluster.Cluster)(nil)
	_ ImageStore    = (*cluster.Cluster)(nil)
	_ PoolStore     = (*cluster.Cluster)(nil)
)

// networks serves /1.0/networks. Networks belong to the default project.
type networks struct {
	view  func() *store.View
	store NetworkStore
	host  Host
}

func (x networks) routes() []route {
	target := []parameter{projectParameter, targetParameter}
	return []route{
		{
			pattern: "GET /1.0/networks", access: trusted, on: toTarget, handle: x.list, announces: []string{"network", "network_hwaddr", "instance_nic_network"},
			summary: "List networks, and the interfaces of this member", returns: []api.Network{}, query: []parameter{projectParameter, recursionParameter, filterParameter},
		},
		{
			pattern: "POST /1.0/networks", access: admin, on: toTarget, handle: x.create,
			summary: "Create a bridge", body: api.NetworksPost{}, status: http.StatusCreated, query: target,
		},
		{
			pattern: "GET /1.0/networks/{name}", access: trusted, on: toTarget, handle: x.get, tagged: true,
			summary: "Show a network", returns: api.Network{}, query: target,
		},
		{
			pattern: "PUT /1.0/networks/{name}", access: admin, on: toHost, handle: x.put, tagged: true,
			summary: "Replace a network's configuration", body: api.NetworkPut{}, query: target,
		},
		{
			pattern: "PATCH /1.0/networks/{name}", access: admin, on: toHost, handle: x.patch, tagged: true,
			summary: "Change parts of a network's configuration", body: api.NetworkPut{}, query: target,
		},
		{
			pattern: "POST /1.0/networks/{name}", access: admin, handle: x.rename,
			summary: "Rename a network that nothing uses", body: api.NetworkPost{}, status: http.StatusCreated, query: target[:1],
		},
		{
			pattern: "DELETE /1.0/networks/{name}", access: admin, handle: x.delete,
			summary: "Delete a network that nothing uses", query: target[:1],
		},
		{
			pattern: "GET /1.0/networks/{name}/leases", access: trusted, on: everyMember, handle: x.leases, announces: []string{"network_leases"},
			summary: "List the addresses that the network has handed out", returns: []api.NetworkLease{}, query: target,
		},
		{
			pattern: "GET /1.0/networks/{name}/state", access: trusted, on: toHost, handle: x.state, announces: []string{"network_state"},
			summary: "Show how a network is on a member", returns: api.NetworkState{}, query: target,
		},
	}
}

func networkURL(n api.Network) string { return "/1.0/networks/" + url.PathEscape(n.Name) }

// show is the network as it is on this member with here, and as a whole otherwise. A
// server alone shows both at once.
func (x networks) show(n *state.Network, here bool) api.Network {
	shown := api.Network{
		NetworkPut: api.NetworkPut{Description: n.Description},
		Name:       n.Name, Type: n.Type, UsedBy: x.store.NetworkUsers(n.Name), Managed: true, Status: n.Locals.Status(),
		Locations: n.Locals.Members(),
	}
	self := x.host.Name()
	if here || !x.host.Clustered() {
		shown.Config = n.On(self).Config
	} else {
		shown.Config, _ = state.SplitConfig(n.Config, state.NetworkLocalKey)
	}
	// The address that a bridge without bridge.hwaddr keeps is the server's alone: a network
	// is shown with what was asked for.
	delete(shown.Config, "volatile.bridge.hwaddr")
	if here {
		shown.Status = localStatus(n.Locals[self])
	}
	if !x.host.Clustered() {
		shown.Locations = []string{x.host.location(self)}
	}
	return shown
}

func (x networks) unmanaged(name, kind string) api.Network {
	return api.Network{
		NetworkPut: api.NetworkPut{Config: map[string]string{}}, Name: name, Type: kind,
		UsedBy: x.store.NetworkUsers(name), Locations: []string{},
	}
}

func (x networks) list(r *http.Request) (any, error) {
	all := []api.Network{}
	managed := map[string]bool{}
	for _, n := range x.view().Networks(state.DefaultProject) {
		managed[n.Name] = true
		all = append(all, x.show(n, here(r)))
	}
	interfaces, err := x.store.Interfaces(r.Context())
	if err != nil {
		return nil, err
	}
	for _, found := range interfaces {
		if !managed[found.Name] {
			all = append(all, x.unmanaged(found.Name, found.Type))
		}
	}
	slices.SortFunc(all, func(a, b api.Network) int { return strings.Compare(a.Name, b.Name) })
	return listing(r, all, rows[api.Network]{url: networkURL, show: func(n api.Network) any { return n }})
}

func (x networks) create(r *http.Request) (any, error) {
	req, err := decode[api.NetworksPost](r)
	if err != nil {
		return nil, err
	}
	make := x.store.CreateNetwork
	if here(r) {
		make = x.store.DefineNetwork
	}
	return created(networkURL(api.Network{Name: req.Name})), make(r.Context(), state.Network{
		Project: state.DefaultProject, Name: req.Name, Type: req.Type, Description: req.Description, Config: withoutEmpty(req.Config),
	})
}

func (x networks) get(r *http.Request) (any, error) {
	name := r.PathValue("name")
	found, err := x.view().Network(state.DefaultProject, name)
	if err == nil {
		return tagged(etag(found.Revision), x.show(found, here(r))), nil
	}
	interfaces, listErr := x.store.Interfaces(r.Context())
	if listErr != nil {
		return nil, listErr
	}
	for _, candidate := range interfaces {
		if candidate.Name == name {
			return x.unmanaged(name, candidate.Type), nil
		}
	}
	return nil, err
}

func (x networks) put(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	req, err := decode[api.NetworkPut](r)
	if err != nil {
		return nil, err
	}
	return nil, x.store.UpdateNetwork(r.Context(), networkOf(r.PathValue("name"), req), here(r), expect)
}

func networkOf(name string, req api.NetworkPut) state.Network {
	return state.Network{Project: state.DefaultProject, Name: name, Description: req.Description, Config: withoutEmpty(req.Config)}
}

func (x networks) patch(r *http.Request) (any, error) {
	return patched(r, func(change []byte) (state.Revision, func(state.Revision) error, error) {
		found, err := x.view().Network(state.DefaultProject, r.PathValue("name"))
		if err != nil {
			return 0, nil, err
		}
		req := x.show(found, here(r)).NetworkPut
		req.Config = withoutEmpty(req.Config)
		if err := unmarshal(change, &req); err != nil {
			return 0, nil, err
		}
		return found.Revision, func(expect state.Revision) error {
			return x.store.UpdateNetwork(r.Context(), networkOf(found.Name, req), here(r), expect)
		}, nil
	})
}

func (x networks) rename(r *http.Request) (any, error) {
	req, err := decode[api.NetworkPost](r)
	if err != nil {
		return nil, err
	}
	return created(networkURL(api.Network{Name: req.Name})), x.store.RenameNetwork(r.Context(), state.DefaultProject, r.PathValue("name"), req.Name)
}

func (x networks) delete(r *http.Request) (any, error) {
	return nil, x.store.DeleteNetwork(r.Context(), state.DefaultProject, r.PathValue("name"))
}

func (x networks) leases(r *http.Request) (any, error) {
	found, err := x.store.NetworkLeases(r.Context(), state.DefaultProject, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	shown := []api.NetworkLease{}
	for _, lease := range found {
		shown = append(shown, api.NetworkLease{
			Hostname: lease.Hostname, Hwaddr: lease.HWAddr, Address: lease.Address, Type: lease.Type,
			Location: x.host.location(x.host.Name()),
		})
	}
	return shown, nil
}

func (x networks) state(r *http.Request) (any, error) {
	found, err := x.store.NetworkState(r.Context(), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	shown := api.NetworkState{
		Addresses: []api.NetworkStateAddress{}, Counters: api.NetworkStateCounters(found.Counters),
		Hwaddr: found.HWAddr, Mtu: found.MTU, State: "down", Type: found.Type,
	}
	if found.Up {
		shown.State = "up"
	}
	for _, address := range found.Addresses {
		shown.Addresses = append(shown.Addresses, api.NetworkStateAddress(address))
	}
	if found.Bridge != nil {
		shown.Bridge = &api.NetworkStateBridge{ID: found.Bridge.ID, UpperDevices: found.Bridge.Ports}
	}
	return shown, nil
}
