package cluster

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"muster/cluster/coord"
	"muster/node"
	"muster/node/image"
	"muster/scheduler"
	"muster/state"
	"muster/state/store"
)

// placing keeps the decisions of this member that are not recorded yet, so that many
// requests at once do not all see the same member empty.
type placing struct {
	mu      sync.Mutex
	next    uint64                        // guarded by mu
	pending map[uint64]scheduler.Instance // guarded by mu
}

// Place says which member a new instance belongs on, and why: target is a member's
// name, "@" and a group, or empty. The caller calls done when the instance was recorded,
// or is not to be. The error says for each member what speaks against it.
func (c *Cluster) Place(ctx context.Context, spec InstanceSpec, target string) (decision scheduler.Decision, done func(), err error) {
	done = func() {}
	view := c.store.View()
	if err := c.targetExists(ctx, target); err != nil {
		return decision, done, err
	}
	if !c.Clustered() {
		return scheduler.Decision{Member: c.Self()}, done, nil
	}
	request, err := c.placeRequest(view, spec)
	if err != nil {
		return decision, done, err
	}
	request.Target = target
	if spec.Source.Kind == "copy" && target == "" {
		// Beside what it is a copy of: there is nothing to send.
		from, err := view.Instance(cmp.Or(spec.Source.Project, spec.Project), spec.Source.Instance)
		if err != nil {
			return decision, done, err
		}
		request.Target = from.Location
	}
	c.placing.mu.Lock()
	defer c.placing.mu.Unlock()
	decision, err = c.choose(request, c.snapshot())
	if err != nil {
		return decision, done, err
	}
	c.placing.next++
	id := c.placing.next
	if c.placing.pending == nil {
		c.placing.pending = map[uint64]scheduler.Instance{}
	}
	c.placing.pending[id] = scheduler.Instance{
		Project: request.Project, Name: request.Name, Member: decision.Member, Need: request.Need, Config: request.Config,
	}
	return decision, func() {
		c.placing.mu.Lock()
		defer c.placing.mu.Unlock()
		delete(c.placing.pending, id)
	}, nil
}

// targetExists refuses a target, the name of a member or "@" and a group, that names
// nothing, or a member that never hosts.
func (c *Cluster) targetExists(ctx context.Context, target string) error {
	name, isGroup := strings.CutPrefix(target, "@")
	if target == "" {
		return nil
	}
	if isGroup {
		_, err := c.store.View().Group(name)
		return err
	}
	m, err := c.store.View().Member(name)
	if err == nil && store.Witness(m) {
		err = errWitness(name)
	}
	return err
}

// placeRequest is what a new instance needs of its member.
func (c *Cluster) placeRequest(view *store.View, spec InstanceSpec) (scheduler.Request, error) {
	plan := &createPlan{}
	profiles, architecture, fingerprint := spec.Profiles, spec.Architecture, ""
	switch spec.Source.Kind {
	case "image":
		found, err := findImage(view, spec.Project, spec.Source)
		if err != nil {
			return scheduler.Request{}, err
		}
		// As in fromImage, what an image is for is what it says.
		fingerprint, architecture = found.Fingerprint, found.Architecture
		if profiles == nil && len(found.Profiles) > 0 {
			profiles = found.Profiles
		}
	case "copy":
		if err := plan.copyFrom(view, &spec); err != nil {
			return scheduler.Request{}, err
		}
		profiles, architecture = spec.Profiles, spec.Architecture
	}
	if profiles == nil {
		profiles = []string{"default"}
	}
	config, devices, err := expand(view, spec.Project, profiles, spec.Config, spec.Devices)
	if err != nil {
		return scheduler.Request{}, err
	}
	request, err := requestFor(config, devices)
	request.Project, request.Name = spec.Project, spec.Name
	request.Architecture, request.Image = image.KernelArchitecture(architecture), fingerprint
	return request, err
}

// requestFor is what an expanded configuration needs of a member.
func requestFor(config state.Config, devices state.Devices) (scheduler.Request, error) {
	need, err := scheduler.NeedOf(config, devices)
	request := scheduler.Request{Need: need, Config: config, Seed: rand.Uint64()}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		device := devices[name]
		switch {
		case device["type"] == "disk" && device["pool"] != "":
			request.Pools = append(request.Pools, device["pool"])
		case device["type"] == "nic" && device["network"] != "":
			request.Networks = append(request.Networks, device["network"])
		}
	}
	return request, err
}

// choose has the scheduler decide. When nobody fits while nobody can tell who is alive, that
// is the reason.
func (c *Cluster) choose(request scheduler.Request, snapshot scheduler.Snapshot) (scheduler.Decision, error) {
	decision, err := scheduler.Place(request, snapshot)
	if errors.Is(err, state.ErrUnavailable) && c.blind() > 0 {
		err = state.Errorf(state.ErrUnavailable, "%w; %s", err, untold)
	}
	return decision, err
}

// snapshot is what the scheduler decides on; the caller holds placing.mu. A view that is
// older than the lock lacks what was recorded since, which is pending no more.
func (c *Cluster) snapshot() scheduler.Snapshot {
	view, snapshot := c.store.View(), scheduler.Snapshot{}
	images := view.Images("")
	for _, m := range view.Members() {
		member := scheduler.Member{
			Name: m.Name, Online: true, Scheduler: m.Config["scheduler.instance"], Groups: m.Groups,
			Architectures: []string{m.Architecture}, Domain: m.Domain, Capacity: m.Capacity,
		}
		if member.Domain == state.DefaultDomain {
			member.Domain = "" // nobody said that they fail together
		}
		if known, found := c.cfg.Coord.Member(m.ID); !found || known.Verdict != coord.Online {
			member.Online, member.Status = false, "joining"
			if found {
				member.Status = string(known.Verdict)
			}
		}
		if c.presenceOf(m.ID) == unreachable {
			member.Online, member.Status = false, "out of reach"
		}
		if store.Joining(m) {
			member.Online, member.Status = false, "joining"
		}
		if store.Witness(m) {
			member.Online, member.Status = false, "a witness, which hosts no instances"
		}
		for _, part := range []*int64{&member.Capacity.CPU, &member.Capacity.Memory, &member.Capacity.Disk} {
			if *part == 0 {
				*part = unlimited // not known
			}
		}
		for _, pool := range view.Pools() {
			if pool.Locals.Works(m.Name) {
				member.Pools = append(member.Pools, pool.Name)
			}
		}
		for _, network := range view.Networks("") {
			if network.Locals.Works(m.Name) {
				member.Networks = append(member.Networks, network.Name)
			}
		}
		for _, image := range images {
			if slices.Contains(image.Members, m.Name) {
				member.Images = append(member.Images, image.Fingerprint)
			}
		}
		snapshot.Members = append(snapshot.Members, member)
	}
	labels := labelled(view)
	for _, inst := range view.Instances("") {
		placed := scheduler.Instance{Project: inst.Project, Name: inst.Name, Member: inst.Location, Need: cmp.Or(inst.Need, scheduler.DefaultNeed)}
		if labels(inst) {
			placed.Config, _, _ = expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
		}
		snapshot.Instances = append(snapshot.Instances, placed)
	}
	for _, pending := range c.placing.pending {
		if _, err := view.Instance(pending.Project, pending.Name); errors.Is(err, state.ErrNotFound) {
			snapshot.Instances = append(snapshot.Instances, pending)
		}
	}
	return snapshot
}

// unlimited stands for means that are not known.
const unlimited = int64(1) << 50

// labelled finds the instances that have labels, their own or their profiles'.
func labelled(view *store.View) func(*state.Instance) bool {
	profiles := map[string]bool{}
	for _, profile := range view.Profiles("") {
		if profile.Config[scheduler.LabelKey] != "" {
			profiles[profile.Project+"/"+profile.Name] = true
		}
	}
	return func(inst *state.Instance) bool {
		return inst.Config[scheduler.LabelKey] != "" || len(profiles) > 0 && slices.ContainsFunc(inst.Profiles, func(name string) bool {
			return profiles[inst.Project+"/"+name]
		})
	}
}

// room is how much the instances on this member may need in sum; zero, which is not
// looked at, for a server alone: there is no other place.
func (c *Cluster) room(view *store.View) state.Resources {
	self, err := view.MemberByID(c.cfg.MemberID)
	if err != nil || len(view.Members()) == 1 {
		return state.Resources{}
	}
	return scheduler.Room(self.Capacity, scheduler.Ratios{})
}

// needOf is what an instance counts for; what can't be read is refused elsewhere.
func needOf(inst node.Instance) state.Resources {
	need, err := scheduler.NeedOf(inst.Config, inst.Devices)
	if err != nil {
		return scheduler.DefaultNeed
	}
	return need
}
