package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"

	"muster/node"
	"muster/rpc/rest/api"
	"muster/state"
	"muster/state/store"
)

// listFull adds state and snapshots to each instance.
func (x instances) listFull(r *http.Request, view *store.View, found []*state.Instance, show rows[*state.Instance], away func(*state.Instance) bool) (any, error) {
	found, err := selected(r, found, show.show)
	if err != nil {
		return nil, err
	}
	elements := make(array, len(found))
	for i, inst := range found {
		if elements[i], err = show.encode(inst); err != nil {
			return nil, err
		}
	}
	elsewhere := x.statesElsewhere(r, found)
	err = each(found, func(i int, inst *state.Instance) error {
		var around surroundings
		switch {
		case away(inst):
			around = x.unknown(view, inst)
		case inst.Location == x.host.Name():
			around = x.surroundings(r.Context(), view, inst)
		default:
			around = x.remembered(view, inst)
			around.State = elsewhere[inst.Location][inst.Project+"/"+inst.Name]
		}
		more, err := json.Marshal(around)
		elements[i] = spliced(elements[i], more)
		return err
	})
	return elements, err
}

// statesElsewhere asks the other members how their instances are, by member and then by
// "project/name". What a member does not say in time is not there: a list never waits
// for one that is offline.
func (x instances) statesElsewhere(r *http.Request, found []*state.Instance) map[string]map[string]*api.InstanceState {
	if x.placement == nil || x.peers == nil {
		return nil
	}
	hosts := map[string]bool{}
	for _, inst := range found {
		hosts[inst.Location] = true
	}
	members := slices.DeleteFunc(x.placement.Others(), func(member string) bool { return !hosts[member] })
	from := &url.URL{Path: "/internal/states", RawQuery: url.Values{"project": r.URL.Query()["project"], "all-projects": r.URL.Query()["all-projects"]}.Encode()}
	states := map[string]map[string]*api.InstanceState{}
	for i, answer := range askAll[map[string]*api.InstanceState](x.peers, x.log, r, members, from) {
		states[members[i]] = answer
	}
	return states
}

// states answers another member with how the instances here are.
func (x instances) states(r *http.Request) (any, error) {
	project := projectName(r)
	if allProjects(r) {
		project = ""
	}
	caller := CallerOf(r.Context())
	var own []*state.Instance
	for _, inst := range x.view().Instances(project) {
		if inst.Location == x.host.Name() && caller.Sees(inst.Project) {
			own = append(own, inst)
		}
	}
	shown := make([]*api.InstanceState, len(own))
	err := each(own, func(i int, inst *state.Instance) error { //nolint:contextcheck // within r
		shown[i] = x.stateOf(r.Context(), inst)
		return nil
	})
	states := make(map[string]*api.InstanceState, len(own))
	for i, inst := range own {
		states[inst.Project+"/"+inst.Name] = shown[i]
	}
	return states, err
}

// spliced makes one JSON object of the members of two, neither of them empty. It
// leaves both as they are: the first is remembered by others.
func spliced(object, more []byte) []byte {
	if len(more) == 0 {
		return object
	}
	whole := make([]byte, 0, len(object)+len(more)-1)
	whole = append(whole, object[:len(object)-1]...)
	whole = append(whole, ',')
	return append(whole, more[1:]...)
}

// away tells which instances are on a member that is offline or out of reach, so that
// nobody knows how they are.
func (x instances) away() func(*state.Instance) bool {
	if x.placement == nil {
		return func(*state.Instance) bool { return false }
	}
	here := map[string]bool{x.placement.Self(): true}
	for _, member := range x.placement.Others() {
		here[member] = true
	}
	return func(inst *state.Instance) bool { return !here[inst.Location] }
}

// full is an instance with all that hangs on it. One of another member is asked of here
// only when that member can't be reached.
func (x instances) full(ctx context.Context, view *store.View, inst *state.Instance) api.InstanceFull {
	away := x.elsewhere(inst)
	around := x.unknown(view, inst)
	if !away {
		around = x.surroundings(ctx, view, inst)
	}
	return api.InstanceFull{Instance: x.show(view, inst, away), Backups: around.Backups, State: around.State, Snapshots: around.Snapshots}
}

// surroundings is what api.InstanceFull has and api.Instance has not.
type surroundings struct {
	Backups   []api.InstanceBackup   `json:"backups"`
	State     *api.InstanceState     `json:"state"`
	Snapshots []api.InstanceSnapshot `json:"snapshots"`
}

func (x instances) surroundings(ctx context.Context, view *store.View, inst *state.Instance) surroundings {
	around := x.remembered(view, inst)
	around.State = x.stateOf(ctx, inst)
	return around
}

// remembered is what is known of an instance without asking its host.
func (instances) remembered(view *store.View, inst *state.Instance) surroundings {
	around := surroundings{Backups: []api.InstanceBackup{}, Snapshots: []api.InstanceSnapshot{}}
	for _, snapshot := range view.Snapshots(inst.Project, inst.Name) {
		around.Snapshots = append(around.Snapshots, showSnapshot(view, snapshot))
	}
	return around
}

// elsewhere reports whether another member hosts the instance.
func (x instances) elsewhere(inst *state.Instance) bool { return inst.Location != x.host.Name() }

// unknown is what is known of an instance whose host can't be asked.
func (x instances) unknown(view *store.View, inst *state.Instance) surroundings {
	around := x.remembered(view, inst)
	shown := showState(node.Usage{Status: state.StatusError})
	around.State = &shown
	return around
}

func (x instances) stateOf(ctx context.Context, inst *state.Instance) *api.InstanceState {
	usage, err := x.store.Usage(ctx, inst.Project, inst.Name)
	if err != nil {
		// A list must not fail for one instance that is hard to ask.
		usage = node.Usage{Status: inst.Status}
	}
	shown := showState(usage)
	return &shown
}
