package rest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"muster/cluster"
	"muster/cluster/pki"
	"muster/rpc/rest/api"
	"muster/rpc/rest/machine"
	"muster/rpc/rest/password"
	"muster/state"
	"muster/state/store"
)

// MemberStore shows and changes the cluster's members; *cluster.Cluster is one.
type MemberStore interface {
	Clustered() bool
	Members(ctx context.Context) []cluster.MemberInfo
	Member(ctx context.Context, name string) (cluster.MemberInfo, error)
	EnableCluster(ctx context.Context, name string) error
	CreateJoinToken(ctx context.Context, name string) (cluster.OperationInfo, error)
	// CheckJoin says why a server that shows a join token could not join with the
	// configuration that it brings, or nil. A secret that is no join token's is
	// cluster.ErrJoinSecret, also for AdmitMember.
	CheckJoin(ctx context.Context, ask cluster.JoinQuestion) error
	AdmitMember(ctx context.Context, join cluster.JoinRequest) (cluster.JoinAnswer, error)
	UpdateMember(ctx context.Context, name string, change cluster.MemberChange, expect state.Revision) error
	RenameMember(ctx context.Context, name, newName string) error
	RemoveMember(ctx context.Context, name string, force bool) error
	// UpdateClusterCertificate replaces the certificate that all members show to clients.
	UpdateClusterCertificate(ctx context.Context, certificate, key string) error
	// Going is told by a member that it goes; whether another takes its vote.
	Going(ctx context.Context, memberID string) (taken bool, err error)
	// Membership reports whether the holder of a member's certificate (DER) is a member,
	// as of now anywhere in the cluster, and which life of its daemon was recorded last.
	Membership(ctx context.Context, certificate []byte) (is bool, life string, err error)
}

// InternalMembership is the answer to POST /internal/membership.
type InternalMembership struct {
	Member bool `json:"member"`
	// Life is that of the member's daemon which was recorded last, as far as is known here.
	Life string `json:"life,omitempty"`
}

// InternalJoinTerms is the answer to POST /internal/join/terms.
type InternalJoinTerms struct {
	// MemberConfig are the keys that may differ on the joining server.
	MemberConfig []api.ClusterMemberConfigKey `json:"member_config"`
	// Drivers are those of the storage pools, by the pools' names: the joining server
	// knows for itself what they need.
	Drivers map[string]string `json:"drivers"`
}

// JoinSpec says which cluster this server is to join, and as whom.
type JoinSpec struct {
	// Name is the new member's, ServerAddress where the others reach it.
	Name          string
	ServerAddress string
	// Addresses are members of the cluster, Fingerprint is its certificate's.
	Addresses   []string
	Fingerprint string
	// Secret is the join token's.
	Secret string
	// Pools and Networks are the keys that differ on this server, by the names of
	// storage pools and networks.
	Pools    map[string]state.Config
	Networks map[string]state.Config
}

// members serves /1.0/cluster.
type members struct {
	view       func() *store.View
	store      MemberStore
	operations OperationStore
	daemon     Daemon
	host       Host
	// pools is nil on a server without storage.
	pools  PoolStore
	damper *password.Damper
}

func (x members) routes() []route {
	return []route{
		{
			pattern: "GET /1.0/cluster", access: trusted, handle: x.show,
			summary: "Show the cluster", returns: api.Cluster{},
			announces: []string{"clustering"},
		},
		{
			pattern: "PUT /1.0/cluster", access: admin, handle: x.put, async: true, streams: true,
			announces: []string{"clustering_join"},
			summary:   "Make this server the first member of a cluster, or join one", body: api.ClusterPut{}, returns: api.Operation{},
			description: "A server that joins is answered when it works as a member and has made its parts of all storage pools and networks, or could not: the operation has ended, and says what went wrong. Over HTTP/2 it is answered when the cluster has admitted it.",
		},
		{
			pattern: "PUT /1.0/cluster/certificate", access: admin, handle: x.certificate,
			announces: []string{"clustering_update_cert"},
			summary:   "Replace the certificate that all members show to clients", body: api.ClusterCertificatePut{},
			description: "New connections are served with it at once; members that are offline take it when they are back. Clients that pinned the former one have to trust the new one.",
		},
		{
			pattern: "GET /1.0/cluster/members", access: trusted, handle: x.list,
			summary: "List members", returns: []api.ClusterMember{},
			query: []parameter{recursionParameter, filterParameter},
		},
		{
			pattern: "POST /1.0/cluster/members", access: admin, tells: &news{action: "cluster-token-created", source: "/1.0/cluster/members", whole: true}, handle: x.token,
			announces: []string{"clustering_join_token"},
			summary:   "Make a join token", body: api.ClusterMembersPost{}, returns: api.Operation{}, async: true,
		},
		{
			pattern: "GET /1.0/cluster/members/{name}", access: trusted, handle: x.get,
			summary: "Show a member", returns: api.ClusterMember{}, tagged: true,
		},
		{
			pattern: "PUT /1.0/cluster/members/{name}", access: admin, handle: x.replace, tagged: true,
			summary: "Replace a member's description and configuration", body: api.ClusterMemberPut{},
			description: "Roles are the cluster's to give and can't be changed.",
			announces:   []string{"clustering_edit_roles", "clustering_failure_domains"},
		},
		{
			pattern: "PATCH /1.0/cluster/members/{name}", access: admin, handle: x.patch, tagged: true,
			summary: "Change parts of a member's description and configuration", body: api.ClusterMemberPut{},
		},
		{
			pattern: "POST /1.0/cluster/members/{name}", access: admin, handle: x.rename,
			summary: "Rename a member", body: api.ClusterMemberPost{}, status: http.StatusCreated,
		},
		{
			pattern: "DELETE /1.0/cluster/members/{name}", access: admin, handle: x.remove,
			summary: "Remove a member", query: []parameter{{"force", "integer", "1 removes a member that is offline."}},
			description: "The member is out when the answer arrives, open connections included.",
		},
		{
			pattern: "GET /1.0/cluster/members/{name}/state", access: trusted, on: namedMember, handle: x.state,
			summary: "Show how a member's machine is doing", returns: api.ClusterMemberState{},
			description: "Of a member that is offline only what is recorded is there; the rest is zero.",
			announces:   []string{"cluster_member_state"},
		},
		{
			pattern: "POST /internal/join", access: public, handle: x.admit,
			summary: "Admit a server that shows a join token", body: cluster.JoinRequest{}, returns: cluster.JoinAnswer{},
		},
		{
			pattern: "POST /internal/join/terms", access: public, handle: x.terms,
			summary: "Tell a server that shows a join token what it may choose, and whether it may choose that", body: cluster.JoinQuestion{}, returns: InternalJoinTerms{},
			description: "The token stays good.",
		},
		{
			pattern: "POST /internal/cluster/terms", access: admin, handle: x.ask,
			summary: "Ask the cluster that this server is to join what it may choose, and whether it may choose that", body: api.ClusterPut{}, returns: []api.ClusterMemberConfigKey{},
			description: "The body is that of the PUT /1.0/cluster that is to come. Nothing is changed, and a join token stays good.",
		},
		{
			pattern: "POST /internal/going", access: admin, handle: x.going,
			summary: "Tell the coordinator that a member goes", body: cluster.GoingQuestion{}, returns: cluster.GoingAnswer{},
		},
		{
			pattern: "POST /internal/membership", access: public, handle: x.membership,
			summary: "Tell a server that shows a member's certificate whether it still is a member", returns: InternalMembership{},
		},
	}
}

func (x members) show(*http.Request) (any, error) {
	if !x.store.Clustered() {
		return api.Cluster{MemberConfig: []api.ClusterMemberConfigKey{}}, nil
	}
	return api.Cluster{Enabled: true, ServerName: x.host.Name(), MemberConfig: memberConfig(x.view())}, nil
}

// memberConfig are the keys that may differ on a server that joins.
func memberConfig(view *store.View) []api.ClusterMemberConfigKey {
	keys := []api.ClusterMemberConfigKey{}
	ask := func(entity, name, key, description string) {
		keys = append(keys, api.ClusterMemberConfigKey{Entity: entity, Name: name, Key: key, Description: description})
	}
	for _, pool := range view.Pools() {
		ask("storage-pool", pool.Name, "source", fmt.Sprintf("%q property for storage pool %q", "source", pool.Name))
		if pool.Driver == "btrfs" {
			ask("storage-pool", pool.Name, "size", fmt.Sprintf("%q property for storage pool %q", "size", pool.Name))
		}
	}
	for _, network := range view.Networks(state.DefaultProject) {
		if network.Config["bridge.external_interfaces"] != "" || hasLocal(network.Locals, "bridge.external_interfaces") {
			ask("network", network.Name, "bridge.external_interfaces", fmt.Sprintf("%q property for network %q", "bridge.external_interfaces", network.Name))
		}
	}
	return keys
}

// hasLocal reports whether some member has set the key.
func hasLocal(locals state.Locals, key string) bool {
	for _, local := range locals {
		if local.Config[key] != "" {
			return true
		}
	}
	return false
}

func (x members) put(r *http.Request) (any, error) {
	req, err := decode[api.ClusterPut](r)
	if err != nil {
		return nil, err
	}
	switch {
	case !req.Enabled:
		return nil, state.Errorf(state.ErrInvalid, "field \"enabled\" is false: a member leaves by DELETE /1.0/cluster/members/NAME on another")
	case req.ClusterToken == "" && req.ClusterAddress == "":
		if err := x.store.EnableCluster(r.Context(), req.ServerName); err != nil {
			return nil, err
		}
		return done(r, x.operations, "Bootstrapping cluster", "cluster", "/1.0/cluster")
	}
	join, err := joinSpec(req)
	if err != nil {
		return nil, err
	}
	if join.ServerAddress == "" {
		return nil, state.Errorf(state.ErrInvalid, "field \"server_address\" is missing: want the address at which the other members reach this one, such as 192.0.2.7:8443")
	}
	if err := x.daemon.Join(r.Context(), join); err != nil {
		return nil, err
	}
	return joining{daemon: x.daemon, atOnce: func() (any, error) {
		return done(r, x.operations, "Joining cluster", "cluster", "/1.0/cluster")
	}}, nil
}

// joinSpec reads what to join from a token, or from the fields that stock clients make of
// one: they send a whole token, its secret, or the trust password as the password.
func joinSpec(req api.ClusterPut) (JoinSpec, error) {
	spec := JoinSpec{Name: req.ServerName, ServerAddress: req.ServerAddress, Secret: req.ClusterPassword}
	if req.ClusterAddress != "" {
		spec.Addresses = []string{req.ClusterAddress}
	}
	token, err := api.ParseClusterMemberJoinToken(cmp.Or(req.ClusterToken, req.ClusterPassword))
	switch {
	case err == nil:
		spec.Fingerprint, spec.Secret, spec.Name = token.Fingerprint, token.Secret, cmp.Or(spec.Name, token.ServerName)
		for _, address := range token.Addresses {
			if !slices.Contains(spec.Addresses, address) {
				spec.Addresses = append(spec.Addresses, address)
			}
		}
	case req.ClusterToken != "":
		return spec, state.Errorf(state.ErrInvalid, "field \"cluster_token\": %w", err)
	case spec.Secret == "":
		return spec, state.Errorf(state.ErrInvalid, "field \"cluster_password\" is missing: want the cluster's trust password, or a join token, which \"muster cluster add\" makes on a member")
	}
	if spec.Fingerprint == "" {
		leaf, err := pki.ParseCertificate(req.ClusterCertificate)
		if err != nil {
			return spec, state.Errorf(state.ErrInvalid, "field \"cluster_certificate\": %w", err)
		}
		spec.Fingerprint = pki.Fingerprint(leaf)
	}
	if err := state.ValidateMemberName(spec.Name); err != nil {
		return spec, err
	}
	spec.Pools, spec.Networks = map[string]state.Config{}, map[string]state.Config{}
	for i, key := range req.MemberConfig {
		entities := map[string]map[string]state.Config{"storage-pool": spec.Pools, "network": spec.Networks}
		entity := entities[key.Entity]
		if entity == nil {
			return spec, state.Errorf(state.ErrInvalid, "field \"member_config\", entry %d: entity %q: want storage-pool or network", i, key.Entity)
		}
		if key.Value == "" {
			continue
		}
		if entity[key.Name] == nil {
			entity[key.Name] = state.Config{}
		}
		entity[key.Name][key.Key] = key.Value
	}
	return spec, nil
}

func (x members) certificate(r *http.Request) (any, error) {
	req, err := decode[api.ClusterCertificatePut](r)
	if err != nil {
		return nil, err
	}
	return nil, x.store.UpdateClusterCertificate(r.Context(), req.ClusterCertificate, req.ClusterCertificateKey)
}

func (x members) list(r *http.Request) (any, error) {
	return listing(r, x.store.Members(r.Context()), rows[cluster.MemberInfo]{
		url:  func(m cluster.MemberInfo) string { return path("cluster", "members", m.Name) },
		show: func(m cluster.MemberInfo) any { return showMember(m) },
	})
}

// showMember turns a member into what clients see; the result shares nothing with the
// View.
func showMember(m cluster.MemberInfo) api.ClusterMember {
	config := maps.Clone(m.Config)
	maps.DeleteFunc(config, func(key, _ string) bool { return strings.HasPrefix(key, "volatile.") })
	return api.ClusterMember{
		ServerName: m.Name, URL: "https://" + m.Address, Database: m.Database, Status: m.Status, Message: m.Message, Architecture: m.Architecture,
		ClusterMemberPut: api.ClusterMemberPut{
			Roles: slices.Clone(orNone(m.Roles)), FailureDomain: m.Domain, Description: m.Description, Config: orEmpty(config), Groups: slices.Clone(orNone(m.Groups)),
		},
	}
}

func (x members) get(r *http.Request) (any, error) {
	m, err := x.store.Member(r.Context(), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return tagged(etag(m.Revision), showMember(m)), nil
}

func (x members) state(r *http.Request) (any, error) {
	if name := r.PathValue("name"); name != x.host.Name() {
		return x.lastState(name)
	}
	info, err := machine.State("/")
	if err != nil {
		return nil, err
	}
	shown := api.ClusterMemberState{SysInfo: info, StoragePools: map[string]api.ResourcesStoragePool{}}
	if x.pools == nil {
		return shown, nil
	}
	for _, pool := range x.view().Pools() {
		// A pool that is not on this member, or broken there, must not hide the rest.
		if found, err := x.pools.PoolResources(r.Context(), pool.Name); err == nil {
			shown.StoragePools[pool.Name] = showSpace(found)
		}
	}
	return shown, r.Context().Err()
}

// lastState is what is recorded of a member that can't be asked.
func (x members) lastState(name string) (any, error) {
	m, err := x.view().Member(name)
	if err != nil {
		return nil, err
	}
	return api.ClusterMemberState{
		SysInfo:      api.ClusterMemberSysInfo{TotalRAM: uint64(max(m.Capacity.Memory, 0)), LoadAverages: []float64{}},
		StoragePools: map[string]api.ResourcesStoragePool{},
	}, nil
}

func (x members) token(r *http.Request) (any, error) {
	req, err := decode[api.ClusterMembersPost](r)
	if err != nil {
		return nil, err
	}
	op, err := x.store.CreateJoinToken(r.Context(), req.ServerName)
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func (x members) replace(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	sent, err := body(r)
	if err != nil {
		return nil, err
	}
	var req api.ClusterMemberPut
	var given map[string]json.RawMessage
	if err := unmarshal(sent, &req); err != nil {
		return nil, err
	}
	if err := unmarshal(sent, &given); err != nil {
		return nil, err
	}
	// Clients of other servers don't know of these: what they leave out stays.
	change, err := memberChange(req)
	if _, ok := given["groups"]; !ok {
		change.Groups = nil
	}
	if _, ok := given["failure_domain"]; !ok {
		change.Domain = ""
	}
	if err != nil {
		return nil, err
	}
	return nil, x.store.UpdateMember(r.Context(), r.PathValue("name"), change, expect)
}

// memberChange reads what is to become of a member.
func memberChange(req api.ClusterMemberPut) (cluster.MemberChange, error) {
	change := cluster.MemberChange{
		Description: req.Description, Config: withoutEmpty(req.Config),
		Domain: cmp.Or(req.FailureDomain, state.DefaultDomain), Groups: orNone(req.Groups),
	}
	// Roles change by themselves between reading a member and writing it back.
	if slices.ContainsFunc(req.Roles, func(role string) bool { return !slices.Contains(cluster.Roles, role) }) {
		return change, state.Errorf(state.ErrInvalid, "field \"roles\": the cluster gives its members their roles; cluster.max_voters and cluster.max_standby say how many of each there are")
	}
	return change, nil
}

func (x members) patch(r *http.Request) (any, error) {
	return patched(r, func(change []byte) (state.Revision, func(state.Revision) error, error) {
		m, err := x.store.Member(r.Context(), r.PathValue("name"))
		if err != nil {
			return 0, nil, err
		}
		req := showMember(m).ClusterMemberPut
		if err := unmarshal(change, &req); err != nil {
			return 0, nil, err
		}
		changed, err := memberChange(req)
		return m.Revision, func(expect state.Revision) error {
			return x.store.UpdateMember(r.Context(), m.Name, changed, expect)
		}, err
	})
}

func (x members) rename(r *http.Request) (any, error) {
	req, err := decode[api.ClusterMemberPost](r)
	if err != nil {
		return nil, err
	}
	return created(path("cluster", "members", req.ServerName)), x.store.RenameMember(r.Context(), r.PathValue("name"), req.ServerName)
}

func (x members) remove(r *http.Request) (any, error) {
	return nil, x.store.RemoveMember(r.Context(), r.PathValue("name"), r.URL.Query().Get("force") == "1")
}

func (x members) going(r *http.Request) (any, error) {
	if err := fromMember(r); err != nil {
		return nil, err
	}
	req, err := decode[cluster.GoingQuestion](r)
	if err != nil {
		return nil, err
	}
	taken, err := x.store.Going(r.Context(), req.MemberID)
	return cluster.GoingAnswer{Taken: taken}, err
}

func (x members) membership(r *http.Request) (any, error) {
	is, life, err := x.store.Membership(r.Context(), CallerOf(r.Context()).Certificate)
	return InternalMembership{Member: is, Life: life}, err
}

func (x members) admit(r *http.Request) (any, error) {
	req, err := decode[cluster.JoinRequest](r)
	if err != nil {
		return nil, err
	}
	var answer cluster.JoinAnswer
	err = x.damped(r, req.Secret, func(byPassword bool) (err error) {
		req.ByPassword = byPassword
		answer, err = x.store.AdmitMember(r.Context(), req)
		return err
	})
	return answer, err
}

func (x members) terms(r *http.Request) (any, error) {
	req, err := decode[cluster.JoinQuestion](r)
	if err != nil {
		return nil, err
	}
	err = x.damped(r, req.Secret, func(byPassword bool) error {
		req.ByPassword = byPassword
		return x.store.CheckJoin(r.Context(), req)
	})
	if err != nil {
		return nil, err
	}
	view := x.view()
	terms := InternalJoinTerms{MemberConfig: memberConfig(view), Drivers: map[string]string{}}
	for _, pool := range view.Pools() {
		terms.Drivers[pool.Name] = pool.Driver
	}
	return terms, nil
}

// damped runs check with the secret as that of a join token, or as the trust password when
// it is that. It makes guessing slow for who calls.
func (x members) damped(r *http.Request, secret string, check func(byPassword bool) error) error {
	source := hostOf(CallerOf(r.Context()).Address)
	if wait := x.damper.Wait(source, time.Now()); wait > 0 {
		return state.Errorf(state.ErrForbidden, "too many wrong join tokens and passwords came from this address: try again in %s", wait.Round(time.Second))
	}
	err := check(false)
	if hash := x.view().Setting("", trustPassword); errors.Is(err, cluster.ErrJoinSecret) && hash != "" && password.Matches(hash, secret) {
		err = check(true)
	}
	switch {
	case errors.Is(err, cluster.ErrJoinSecret):
		x.damper.Wrong(source, time.Now()) // the check takes its time
	case err == nil:
		x.damper.Right(source)
	}
	return err
}

func (x members) ask(r *http.Request) (any, error) {
	req, err := decode[api.ClusterPut](r)
	if err != nil {
		return nil, err
	}
	join, err := joinSpec(req)
	if err != nil {
		return nil, err
	}
	return x.daemon.JoinTerms(r.Context(), join)
}

var _ MemberStore = (*cluster.Cluster)(nil)
