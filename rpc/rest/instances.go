package rest

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"muster/cluster"
	"muster/node"
	"muster/rpc/rest/api"
	"muster/scheduler"
	"muster/state"
	"muster/state/store"
)

// InstanceStore makes, changes and runs instances; *cluster.Cluster is one.
// Every method checks what it is given before it changes anything.
type InstanceStore interface {
	// Instance says state.ErrNotFound only after asking the leader.
	Instance(ctx context.Context, project, name string) (*state.Instance, error)
	CreateInstance(ctx context.Context, spec cluster.InstanceSpec) (cluster.OperationInfo, error)
	// Place says which member CreateInstance should be called on; see cluster.Cluster.
	Place(ctx context.Context, spec cluster.InstanceSpec, target string) (scheduler.Decision, func(), error)
	UpdateInstance(ctx context.Context, project, name string, change cluster.InstanceChange, expect state.Revision) error
	UpdateInstanceLater(ctx context.Context, project, name string, change cluster.InstanceChange, expect state.Revision) (cluster.OperationInfo, error)
	RenameInstance(ctx context.Context, project, name, newName string) (cluster.OperationInfo, error)
	// MoveInstance brings the instance to another member.
	MoveInstance(ctx context.Context, project, name, target, newName string) (cluster.OperationInfo, error)
	DeleteInstance(ctx context.Context, project, name string) (cluster.OperationInfo, error)
	ChangeState(ctx context.Context, project, name string, change cluster.StateChange) (cluster.OperationInfo, error)
	ChangeAllStates(ctx context.Context, project string, change cluster.StateChange) (cluster.OperationInfo, error)
	// Usage is asked of the member that hosts the instance.
	Usage(ctx context.Context, project, name string) (node.Usage, error)
	RestoreSnapshot(ctx context.Context, project, name, snapshot string) (cluster.OperationInfo, error)
}

// instances serves /1.0/instances and its two other names.
type instances struct {
	view  func() *store.View
	store InstanceStore
	host  Host
	// placement and peers are nil on a server that never has others.
	placement Placement
	peers     Peers
	log       *slog.Logger
}

// instanceExtensions are served because these routes are.
var instanceExtensions = []string{
	"instances", "container_full", "instance_get_full", "instance_all_projects", "api_filtering", "instance_bulk_state_change",
	"container_last_used_at", "snapshot_expiry", "snapshot_expiry_creation",
	"container_cpu_time", "container_copy_project", "container_only_migration",
}

func (x instances) routes() []route {
	project := []parameter{projectParameter}
	return []route{
		{
			pattern: "GET /1.0/instances", access: trusted, handle: x.list, announces: instanceExtensions,
			summary: "List instances", returns: []api.Instance{},
			query: []parameter{projectParameter, recursionParameter, filterParameter, {"all-projects", "boolean", "List the instances of all projects."}, {"instance-type", "string", "container or virtual-machine."}},
		},
		{
			pattern: "POST /1.0/instances", access: trusted, on: policy{place: x.place}, handle: x.create,
			summary: "Create an instance", body: api.InstancesPost{}, returns: api.Operation{}, async: true,
			query: []parameter{projectParameter, targetParameter, {"dry-run", "boolean", "Answer where it would be made and why (Placement), and make nothing."}},
		},
		{
			pattern: "PUT /1.0/instances", access: trusted, handle: x.changeAll,
			summary: "Change the state of all instances", body: api.InstancesPut{}, returns: api.Operation{}, async: true, query: project,
		},
		{
			pattern: "GET /internal/states", access: trusted, handle: x.states,
			summary: "Tell another member how the instances here are", returns: map[string]*api.InstanceState{}, query: project,
		},
		{
			pattern: "GET /1.0/instances/{name}", access: trusted, on: ownerForState, handle: x.get, tagged: true,
			summary: "Show an instance", returns: api.Instance{}, query: []parameter{projectParameter, recursionParameter},
		},
		{
			pattern: "PUT /1.0/instances/{name}", access: trusted, on: instanceOwner, handle: x.put, tagged: true,
			summary: "Replace an instance's configuration, or restore a snapshot", body: api.InstancePut{}, returns: api.Operation{}, async: true, query: project,
		},
		{
			pattern: "PATCH /1.0/instances/{name}", access: trusted, on: instanceOwner, handle: x.patch, tagged: true,
			summary: "Change parts of an instance's configuration", body: api.InstancePut{}, query: project,
			description: "Keys and devices that the body leaves out stay as they are; an empty value unsets a key.",
		},
		{
			pattern: "POST /1.0/instances/{name}", access: trusted, on: instanceOwner, handle: x.rename,
			summary: "Rename an instance, or move it to another member", body: api.InstancePost{}, returns: api.Operation{}, async: true,
			query:     []parameter{projectParameter, targetParameter},
			announces: []string{"cluster_internal_copy"},
		},
		{
			pattern: "DELETE /1.0/instances/{name}", access: trusted, on: instanceOwner, handle: x.delete,
			summary: "Delete a stopped instance", returns: api.Operation{}, async: true, query: project,
		},
		{
			pattern: "GET /1.0/instances/{name}/state", access: trusted, on: instanceTeller, handle: x.state,
			summary: "Show what an instance uses", description: "The status of one whose member is offline is \"Error\".", returns: api.InstanceState{}, query: project,
		},
		{
			pattern: "PUT /1.0/instances/{name}/state", access: trusted, on: instanceOwner, handle: x.changeState,
			summary: "Start, stop, restart, freeze or unfreeze an instance", body: api.InstanceStatePut{}, returns: api.Operation{}, async: true, query: project,
		},
	}
}

func (x instances) list(r *http.Request) (any, error) {
	level, err := recursion(r)
	if err != nil {
		return nil, err
	}
	project := projectName(r)
	if allProjects(r) {
		project = ""
	}
	view := x.view()
	prefix := instancesPrefix(r)
	found := view.Instances(project)
	if kind := r.URL.Query().Get("instance-type"); onlyMachines(r) || kind == "virtual-machine" {
		found = nil
	} else if kind != "" && kind != "container" {
		return nil, state.Errorf(state.ErrInvalid, "instance-type %q: want container or virtual-machine", kind)
	}
	if project == "" {
		caller := CallerOf(r.Context())
		var seen []*state.Instance
		for _, inst := range found {
			if caller.Sees(inst.Project) {
				seen = append(seen, inst)
			}
		}
		found = seen
	}
	profiles, away := newProfileRevisions(view), x.away()
	show := rows[*state.Instance]{
		url:  func(inst *state.Instance) string { return instanceURL(prefix, inst.Project, inst.Name) },
		show: func(inst *state.Instance) any { return x.show(view, inst, away(inst)) },
		encode: func(inst *state.Instance) ([]byte, error) {
			if away(inst) {
				return json.Marshal(x.show(view, inst, true)) // that passes, and isn't remembered
			}
			return encodeOnce(inst.Meta, profiles.of(inst), func() any { return x.show(view, inst, false) })
		},
	}
	if level == 2 {
		return x.listFull(r, view, found, show, away) //nolint:contextcheck // within r
	}
	return listing(r, found, show)
}

// profileRevisions remembers the newest revision among the profiles of each
// combination, for the length of one list.
type profileRevisions struct {
	view *store.View
	seen map[string]state.Revision
}

func newProfileRevisions(view *store.View) profileRevisions {
	return profileRevisions{view, map[string]state.Revision{}}
}

// of is the newest revision of what the instance's expanded configuration
// depends on besides itself.
func (p profileRevisions) of(inst *state.Instance) state.Revision {
	key := inst.Project + "\x00" + strings.Join(inst.Profiles, "\x00")
	newest, ok := p.seen[key]
	if ok {
		return newest
	}
	for _, name := range inst.Profiles {
		if profile, err := p.view.Profile(inst.Project, name); err == nil {
			newest = max(newest, profile.Revision)
		}
	}
	p.seen[key] = newest
	return newest
}

func instanceURL(prefix, project, name string) string {
	return inProject(prefix+"/"+url.PathEscape(name), project)
}

// statusCode is the number that goes with a status.
func statusCode(status state.Status) api.StatusCode {
	switch status {
	case state.StatusRunning:
		return 103
	case state.StatusFrozen:
		return 110
	case state.StatusError:
		return 112
	}
	return 102
}

// show is an instance as clients see it; away says that its host can't be asked.
func (x instances) show(view *store.View, inst *state.Instance, away bool) api.Instance {
	status, last := inst.Status, state.Status("")
	if away {
		status, last = state.StatusError, inst.Status
	}
	config, devices := expanded(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
	return api.Instance{
		InstancePut: api.InstancePut{
			Architecture: inst.Architecture, Config: orEmpty(inst.Config), Devices: orEmpty(inst.Devices),
			Ephemeral: inst.Ephemeral, Profiles: orNone(inst.Profiles), Stateful: inst.Stateful, Description: inst.Description,
		},
		CreatedAt: inst.CreatedAt, ExpandedConfig: config, ExpandedDevices: devices, Name: inst.Name,
		Status: string(status), StatusCode: statusCode(status), LastKnownStatus: string(last), LastUsedAt: orEpoch(inst.LastUsedAt),
		Location: x.host.location(inst.Location), Type: api.InstanceTypeContainer, Project: inst.Project,
	}
}

// location is a member's name as clients know it: "none" outside a cluster.
func (h Host) location(member string) string {
	if h.Clustered != nil && h.Clustered() {
		return member
	}
	return "none"
}

// orEpoch is how the API writes a time that never was.
func orEpoch(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0).UTC()
	}
	return t
}

// orNone returns an empty list for a nil one.
func orNone[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// expanded lays a configuration over its profiles; one that is gone adds nothing.
func expanded(view *store.View, project string, names []string, config state.Config, devices state.Devices) (state.Config, state.Devices) {
	var profiles []*state.Profile
	for _, name := range names {
		if profile, err := view.Profile(project, name); err == nil {
			profiles = append(profiles, profile)
		}
	}
	return state.Expand(profiles, config, devices)
}

// place finds the member for a new instance.
func (x instances) place(r *http.Request, body []byte) (string, func(), error) {
	var req api.InstancesPost
	if err := json.Unmarshal(body, &req); err != nil {
		return "", func() {}, nil //nolint:nilerr // create says it
	}
	spec, err := instanceSpec(r, req)
	if err != nil || r.URL.Query().Has("dry-run") {
		return "", func() {}, nil //nolint:nilerr // create says it
	}
	decision, done, err := x.store.Place(r.Context(), spec, r.URL.Query().Get("target"))
	return decision.Member, done, err
}

func (x instances) create(r *http.Request) (any, error) {
	if onlyMachines(r) {
		return nil, errNoMachines
	}
	req, err := decode[api.InstancesPost](r)
	if err != nil {
		return nil, err
	}
	spec, err := instanceSpec(r, req)
	if err != nil {
		return nil, err
	}
	if r.URL.Query().Has("dry-run") {
		decision, done, err := x.store.Place(r.Context(), spec, r.URL.Query().Get("target"))
		done()
		if err != nil && len(decision.Verdicts) == 0 {
			return nil, err
		}
		return showPlacement(decision, err), nil
	}
	op, err := x.store.CreateInstance(r.Context(), spec)
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

// showPlacement is where an instance would be made, and why.
func showPlacement(decision scheduler.Decision, refused error) api.Placement {
	shown := api.Placement{Member: decision.Member, Members: []api.PlacementVerdict{}}
	if refused != nil {
		shown.Error = refused.Error()
	}
	for _, verdict := range decision.Verdicts {
		shown.Members = append(shown.Members, api.PlacementVerdict{
			Member: verdict.Member, Filter: verdict.Filter, Reason: verdict.Reason, Scores: orEmpty(verdict.Scores), Total: verdict.Total,
		})
	}
	return shown
}

// instanceSpec reads what to create.
func instanceSpec(r *http.Request, req api.InstancesPost) (cluster.InstanceSpec, error) {
	var none cluster.InstanceSpec
	switch req.Type {
	case "", api.InstanceTypeContainer:
	case api.InstanceTypeVM:
		return none, errNoMachines
	default:
		return none, state.Errorf(state.ErrInvalid, "field \"type\" is %q: want container", req.Type)
	}
	if req.InstanceType != "" {
		return none, state.Errorf(state.ErrInvalid, "instance_type %q: sizes of clouds are not known here; set limits.cpu and limits.memory", req.InstanceType)
	}
	source, err := instanceSource(req.Source)
	return cluster.InstanceSpec{
		Project: projectName(r), Name: req.Name, Architecture: req.Architecture, Description: req.Description,
		Ephemeral: req.Ephemeral, Config: withoutEmpty(req.Config), Devices: withoutNil(req.Devices), Profiles: req.Profiles,
		Source: source,
	}, err
}

// instanceSource reads where a root file system comes from.
func instanceSource(source api.InstanceSource) (cluster.InstanceSource, error) {
	made := cluster.InstanceSource{Kind: source.Type}
	switch source.Type {
	case "image":
		if source.Server != "" {
			return made, state.Errorf(state.ErrInvalid, "source: images of other servers can't be launched directly; copy the image here first")
		}
		made.Fingerprint, made.Alias, made.Properties = source.Fingerprint, source.Alias, source.Properties
	case "copy":
		if source.Refresh {
			return made, state.Errorf(state.ErrInvalid, "source: refresh of a copy is not supported; delete the copy and make it anew")
		}
		made.Project = source.Project
		made.Instance, made.Snapshot, _ = strings.Cut(source.Source, "/")
		made.InstanceOnly = source.InstanceOnly || source.ContainerOnly
		if made.Instance == "" {
			return made, state.Errorf(state.ErrInvalid, "source: \"source\" names the instance to copy; it is empty")
		}
	case "none":
	case "migration":
		return made, state.Errorf(state.ErrInvalid, "source type \"migration\" is not supported: publish the instance there and import the image here")
	default:
		return made, state.Errorf(state.ErrInvalid, "source type %q: want image, copy or none", source.Type)
	}
	return made, nil
}

func (x instances) changeAll(r *http.Request) (any, error) {
	req, err := decode[api.InstancesPut](r)
	if err != nil {
		return nil, err
	}
	if req.State == nil {
		return nil, state.Errorf(state.ErrInvalid, "\"state\" is missing: give an object with an \"action\"")
	}
	op, err := x.store.ChangeAllStates(r.Context(), projectName(r), stateChange(*req.State))
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func stateChange(req api.InstanceStatePut) cluster.StateChange {
	return cluster.StateChange{
		Action: req.Action, Timeout: time.Duration(req.Timeout) * time.Second, Force: req.Force, Stateful: req.Stateful,
	}
}

func (x instances) get(r *http.Request) (any, error) {
	level, err := recursion(r)
	if err != nil {
		return nil, err
	}
	inst, err := x.find(r)
	if err != nil {
		return nil, err
	}
	view := x.view()
	if level > 0 {
		return tagged(etag(inst.Revision), x.full(r.Context(), view, inst)), nil
	}
	if x.away()(inst) {
		return tagged(etag(inst.Revision), x.show(view, inst, true)), nil
	}
	shown, err := encodeOnce(inst.Meta, newProfileRevisions(view).of(inst), func() any { return x.show(view, inst, false) })
	return tagged(etag(inst.Revision), encoded(shown)), err
}

func (x instances) find(r *http.Request) (*state.Instance, error) {
	if onlyMachines(r) {
		return nil, state.Errorf(state.ErrNotFound, "virtual machine %q not found: muster runs containers only", r.PathValue("name"))
	}
	return x.store.Instance(r.Context(), projectName(r), r.PathValue("name"))
}

func (x instances) put(r *http.Request) (any, error) {
	expect, err := expected(r)
	if err != nil {
		return nil, err
	}
	req, err := decode[api.InstancePut](r)
	if err != nil {
		return nil, err
	}
	project, name := projectName(r), r.PathValue("name")
	var op cluster.OperationInfo
	if req.Restore != "" && req.Stateful {
		return nil, state.Errorf(state.ErrInvalid, "field \"stateful\": snapshots of containers hold no memory; leave it out")
	}
	if req.Restore != "" {
		// Clients name it with its instance before it.
		op, err = x.store.RestoreSnapshot(r.Context(), project, name, strings.TrimPrefix(req.Restore, name+"/"))
	} else {
		op, err = x.store.UpdateInstanceLater(r.Context(), project, name, instanceChange(req), expect)
	}
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func instanceChange(req api.InstancePut) cluster.InstanceChange {
	return cluster.InstanceChange{
		Architecture: req.Architecture, Description: req.Description, Ephemeral: req.Ephemeral,
		Config: withoutEmpty(req.Config), Devices: withoutNil(req.Devices), Profiles: req.Profiles,
	}
}

func (x instances) patch(r *http.Request) (any, error) {
	return patched(r, func(change []byte) (state.Revision, func(state.Revision) error, error) {
		inst, err := x.find(r)
		if err != nil {
			return 0, nil, err
		}
		// Through JSON, so that the View's own maps are not written to.
		current, err := json.Marshal(x.show(x.view(), inst, false).InstancePut)
		if err != nil {
			return 0, nil, err
		}
		var req api.InstancePut
		if err := json.Unmarshal(current, &req); err != nil {
			return 0, nil, err
		}
		if err := unmarshal(change, &req); err != nil {
			return 0, nil, err
		}
		return inst.Revision, func(expect state.Revision) error {
			return x.store.UpdateInstance(r.Context(), inst.Project, inst.Name, instanceChange(req), expect)
		}, nil
	})
}

func (x instances) rename(r *http.Request) (any, error) {
	req, err := decode[api.InstancePost](r)
	if err != nil {
		return nil, err
	}
	switch {
	case req.Migration && r.URL.Query().Get("target") == "":
		return nil, state.Errorf(state.ErrInvalid, "migration to another server is not supported: publish the instance and import the image there, or name a member of this cluster with ?target= (--target)")
	case req.Pool != "" || req.Project != "":
		return nil, state.Errorf(state.ErrInvalid, "an instance can't be moved to another pool or project: copy it there and delete this one")
	case req.Name == "" && r.URL.Query().Get("target") == "":
		return nil, state.Errorf(state.ErrInvalid, "\"name\" is missing: give the new name")
	}
	if target := r.URL.Query().Get("target"); target != "" {
		op, err := x.store.MoveInstance(r.Context(), projectName(r), r.PathValue("name"), target, req.Name)
		if err != nil {
			return nil, err
		}
		return started(op), nil
	}
	op, err := x.store.RenameInstance(r.Context(), projectName(r), r.PathValue("name"), req.Name)
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func (x instances) delete(r *http.Request) (any, error) {
	op, err := x.store.DeleteInstance(r.Context(), projectName(r), r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return started(op), nil
}

func (x instances) state(r *http.Request) (any, error) {
	inst, err := x.find(r)
	if err != nil {
		return nil, err
	}
	if x.elsewhere(inst) {
		return tagged(etag(inst.Revision), showState(node.Usage{Status: state.StatusError})), nil
	}
	usage, err := x.store.Usage(r.Context(), inst.Project, inst.Name)
	if err != nil {
		return nil, err
	}
	return tagged(etag(inst.Revision), showState(usage)), nil
}

func (x instances) changeState(r *http.Request) (any, error) {
	req, err := decode[api.InstanceStatePut](r)
	if err != nil {
		return nil, err
	}
	op, err := x.store.ChangeState(r.Context(), projectName(r), r.PathValue("name"), stateChange(req))
	if err != nil {
		return nil, err
	}
	return started(op), nil
}
