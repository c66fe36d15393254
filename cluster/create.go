package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"muster/node"
	"muster/state"
	"muster/state/store"
)

// InstanceSpec describes an instance to create.
type InstanceSpec struct {
	Project string
	// Name is made up when empty.
	Name         string
	Architecture string
	Description  string
	Ephemeral    bool
	Config       state.Config
	Devices      state.Devices
	// Profiles is the default profile when nil, and none when empty. A copy
	// takes over its source's.
	Profiles []string
	Source   InstanceSource

	// here is the member that makes the instance; empty while one is being looked for.
	here string
}

// InstanceSource says what the root file system is made from. One of the groups
// is set.
type InstanceSource struct {
	// Kind is "image", "copy" or "none".
	Kind string

	// Fingerprint (or a unique beginning), Alias or Properties find an image.
	Fingerprint string
	Alias       string
	Properties  map[string]string

	// Project, Instance and Snapshot name what to copy; Project is the new
	// instance's when empty, Snapshot may be.
	Project      string
	Instance     string
	Snapshot     string
	InstanceOnly bool
}

// mustBeFree refuses the name of an instance that is there (ErrExists). A View that is
// behind may show one that another member has just deleted.
func (c *Cluster) mustBeFree(ctx context.Context, project, name string) error {
	if _, err := c.store.View().Instance(project, name); err != nil {
		return nil //nolint:nilerr // there is none
	}
	if err := c.store.Barrier(ctx); err != nil {
		return state.Errorf(state.ErrUnavailable, "instance %q exists here, and nobody can say whether it still does: %w", name, err)
	}
	if _, err := c.store.View().Instance(project, name); err == nil {
		return state.Errorf(state.ErrExists, "instance %q already exists", name)
	}
	return nil
}

// CreateInstance makes an instance in the background. Whatever can be checked is
// checked before anything is recorded, and the name is taken at once, so of two
// callers that want it one is told immediately (ErrExists).
func (c *Cluster) CreateInstance(ctx context.Context, spec InstanceSpec) (OperationInfo, error) {
	if err := c.mustHost(); err != nil {
		return OperationInfo{}, err
	}
	plan, err := c.planCreate(ctx, spec)
	if err != nil {
		return OperationInfo{}, err
	}
	release, err := c.claim(ctx, plan.instance.Project, plan.instance.Name)
	if err != nil {
		return OperationInfo{}, err
	}
	done := c.carry(plan.command.Intent.ID)
	err = c.apply(ctx, plan.command)
	release()
	if err != nil {
		done()
		return OperationInfo{}, err
	}
	name := plan.instance.Name
	info, err := c.ops.Start(ctx, OperationSpec{
		Description: "Creating instance", Project: spec.Project, Resources: instanceResources(spec.Project, name),
	}, func(ctx context.Context, op *Operation) error {
		defer done()
		return c.create(ctx, plan, op)
	})
	if err != nil {
		c.abandon(ctx, plan)
		done()
	}
	return info, err
}

// createPlan is a checked creation.
type createPlan struct {
	instance state.Instance
	node     node.Instance
	source   node.Source
	command  store.CreateInstance
	// from is the member that hosts the source of a copy when it is another, fromRuns
	// says that it runs.
	from     string
	fromRuns bool
	// claims are what a copy takes over from its source.
	claims map[claim]string
	// snapshots are recorded with a copy.
	snapshots []*state.Snapshot
	event     string
}

func (c *Cluster) planCreate(ctx context.Context, spec InstanceSpec) (*createPlan, error) {
	// The profiles and the source may be news from another member.
	if err := c.store.Barrier(ctx); err != nil {
		return nil, err
	}
	view := c.store.View()
	if _, err := view.Project(spec.Project); err != nil {
		return nil, err
	}
	if spec.Name == "" {
		spec.Name = freeName(view, spec.Project)
	}
	if err := state.ValidateInstanceName(spec.Name); err != nil {
		return nil, err
	}
	spec.here = c.Self()
	plan := &createPlan{event: "instance-created"}
	var image *state.Image
	var err error
	switch spec.Source.Kind {
	case "image":
		image, err = findImage(view, spec.Project, spec.Source)
		if err == nil && spec.Profiles == nil && len(image.Profiles) > 0 {
			spec.Profiles = image.Profiles
		}
	case "copy":
		err = plan.copyFrom(view, &spec)
	case "none":
	default:
		err = state.Errorf(state.ErrInvalid, "source type %q: want image, copy or none", spec.Source.Kind)
	}
	if err != nil {
		return nil, err
	}
	if spec.Profiles == nil {
		spec.Profiles = []string{"default"}
	}
	inst := state.Instance{
		Project: spec.Project, Name: spec.Name, Location: c.Self(), Architecture: spec.Architecture,
		Description: spec.Description, Ephemeral: spec.Ephemeral,
		Config: maps.Clone(spec.Config), Devices: spec.Devices, Profiles: spec.Profiles,
		Status: state.StatusStopped, CreatedAt: time.Now().UTC(),
	}
	if inst.Config == nil {
		inst.Config = state.Config{}
	}
	if inst.Devices == nil {
		inst.Devices = state.Devices{}
	}
	if image != nil {
		plan.source.Image = image.Fingerprint
		fromImage(&inst, image)
	}
	if err := c.checkInstance(view, &inst); err != nil {
		return nil, err
	}
	if err := checkClaims(view, &inst, plan.claims); err != nil {
		return nil, err
	}
	id := uuid.NewString()
	if inst.Config["volatile.uuid"] == "" {
		inst.Config["volatile.uuid"] = uuid.NewString()
	}
	if inst.Config["volatile.cloud-init.instance-id"] == "" {
		inst.Config["volatile.cloud-init.instance-id"] = uuid.NewString()
	}
	plan.node, err = nodeInstance(view, &inst)
	if err != nil {
		return nil, err
	}
	if err := c.node.CheckConfig(ctx, plan.node.Config); err != nil {
		return nil, err
	}
	if err := c.node.CheckRoot(ctx, plan.node); err != nil {
		return nil, err
	}
	inst.Need = needOf(plan.node)
	plan.instance = inst
	plan.command = store.CreateInstance{
		Instance: inst, Room: c.room(view),
		Intent: state.Intent{ID: id, Kind: "create", Member: inst.Location, Input: encodeInput(createInput{Snapshots: snapshotNames(plan.snapshots)})},
		Image:  plan.source.Image,
	}
	return plan, nil
}

// createInput is what the intent of a creation keeps.
type createInput struct {
	Snapshots []string `json:"snapshots,omitempty"`
}

func encodeInput(input any) string {
	encoded, err := json.Marshal(input)
	if err != nil {
		panic(err) // our own plain structs always encode
	}
	return string(encoded)
}

// fromImage takes over what an image says about the instances made from it. Its
// programs are of the image's architecture whatever the request says, so LXD 5.0.2
// passes over an architecture beside an image.
func fromImage(inst *state.Instance, image *state.Image) {
	inst.Architecture = image.Architecture
	inst.Config["volatile.base_image"] = image.Fingerprint
	for key, value := range image.Properties {
		if _, set := inst.Config["image."+key]; !set {
			inst.Config["image."+key] = value
		}
	}
}

// copyFrom fills the spec in from what is copied.
func (p *createPlan) copyFrom(view *store.View, spec *InstanceSpec) error {
	source := spec.Source
	if source.Project == "" {
		source.Project = spec.Project
	}
	from, err := view.Instance(source.Project, source.Instance)
	if err != nil {
		return err
	}
	if source.Snapshot == "" && source.Project == spec.Project && source.Instance == spec.Name {
		return state.Errorf(state.ErrExists, "instance %q already exists, and a copy needs another name; an instance can't be moved to another pool under its own name yet: give a new one and rename it afterwards", spec.Name)
	}
	if from.Busy != "" {
		return errBusy(from)
	}
	if spec.here != "" && from.Location != spec.here {
		p.from, p.fromRuns = from.Location, from.Status != state.StatusStopped
	}
	config, devices, profiles, ephemeral := from.Config, from.Devices, from.Profiles, from.Ephemeral
	architecture, description := from.Architecture, from.Description
	if source.Snapshot != "" {
		snapshot, err := view.Snapshot(source.Project, source.Instance, source.Snapshot)
		if err != nil {
			return err
		}
		if snapshot.Busy != "" {
			return state.Errorf(state.ErrConflict, "snapshot %q is busy: %s is under way", source.Snapshot, snapshot.Busy)
		}
		config, devices, profiles = snapshot.Config, snapshot.Devices, snapshot.Profiles
		architecture, description = snapshot.Architecture, snapshot.Description
	} else if !source.InstanceOnly {
		p.snapshots = view.Snapshots(source.Project, source.Instance)
	}
	copied := state.Instance{Project: source.Project, Profiles: profiles, Config: config, Devices: devices}
	// The copy may have other profiles than the source, one of which may be gone.
	p.claims, _ = claimsOfInstance(view, &copied)
	fromNode, err := nodeInstance(view, from)
	if err != nil {
		return err
	}
	if spec.Profiles == nil {
		spec.Profiles = slices.Clone(profiles)
		if spec.Profiles == nil {
			spec.Profiles = []string{}
		}
	}
	if spec.Architecture == "" {
		spec.Architecture = architecture
	}
	if spec.Description == "" {
		spec.Description = description
	}
	// A copy of an ephemeral instance is asked for to keep it, so only an
	// explicit wish makes the copy ephemeral too.
	_ = ephemeral
	moved := source.Snapshot == "" && from.Config["volatile.uuid"] != "" && spec.Config["volatile.uuid"] == from.Config["volatile.uuid"]
	wanted := spec.Config
	spec.Config = layCopied(config, spec.Config)
	if moved {
		keepMoved(spec.Config, wanted)
	}
	spec.Devices = layDevices(devices, spec.Devices)
	if source.Snapshot != "" {
		if err := withoutGone(view, from, profiles, spec); err != nil {
			return err
		}
	}
	p.source.Copy = &node.CopySource{From: fromNode, Snapshot: source.Snapshot, Snapshots: snapshotNames(p.snapshots)}
	return nil
}

// layCopied lays the wanted configuration over the source's, leaving behind what
// belongs to the source alone.
func layCopied(from, wanted state.Config) state.Config {
	config := state.Config{}
	for key, value := range from {
		if strings.HasPrefix(key, "volatile.") && key != "volatile.base_image" {
			continue
		}
		config[key] = value
	}
	for key, value := range wanted {
		if !strings.HasPrefix(key, "volatile.") || key == "volatile.base_image" {
			config[key] = value
		}
	}
	return config
}

// keepMoved takes over the volatile keys of an instance that a client moves: stock clients
// make a copy that they give all volatile keys of the source, and delete the source then.
func keepMoved(config, given state.Config) {
	for key, value := range given {
		if key == "volatile.apply_template" || key == "volatile.uuid" || strings.HasPrefix(key, "volatile.") && strings.HasSuffix(key, ".hwaddr") {
			config[key] = value
		}
	}
}

func layDevices(from, wanted state.Devices) state.Devices {
	devices := state.Devices{}
	maps.Copy(devices, from)
	maps.Copy(devices, wanted)
	return devices
}

func snapshotNames(snapshots []*state.Snapshot) []string {
	// In the order they were taken, for drivers that stack them.
	ordered := slices.Clone(snapshots)
	slices.SortStableFunc(ordered, func(a, b *state.Snapshot) int { return a.CreatedAt.Compare(b.CreatedAt) })
	names := make([]string, 0, len(ordered))
	for _, snapshot := range ordered {
		names = append(names, snapshot.Name)
	}
	return names
}

// create carries a planned creation out.
func (c *Cluster) create(ctx context.Context, plan *createPlan, op *Operation) error {
	project, name := plan.instance.Project, plan.instance.Name
	release, err := c.locks.acquire(ctx, "instance "+plan.node.HostName(), "create")
	if err != nil {
		c.abandon(ctx, plan)
		return err
	}
	defer release()
	if plan.source.Copy != nil && plan.from == "" {
		// The source must hold still while it is copied.
		from := plan.source.Copy.From
		releaseSource, err := c.locks.acquire(ctx, "instance "+from.HostName(), "copy")
		if err != nil {
			c.abandon(ctx, plan)
			return err
		}
		defer releaseSource()
	}
	if plan.source.Image != "" {
		err := c.haveImage(ctx, project, plan.source.Image, func(received, size int64) {
			op.UpdateMetadata(map[string]any{"download_progress": fmt.Sprintf("rootfs: %d%%", received*100/max(size, 1))})
		})
		if err != nil {
			c.abandon(ctx, plan)
			return err
		}
	}
	make := c.node.Create
	if plan.from != "" {
		make = func(ctx context.Context, _ node.Instance, _ node.Source, _ node.Progress) (state.Config, error) {
			return c.copyFromElsewhere(ctx, plan)
		}
	}
	volatile, err := make(ctx, plan.node, plan.source, func(stage string, done, _ int64) {
		op.UpdateMetadata(map[string]any{"create_instance_from_image_unpack_progress": fmt.Sprintf("%s: %d MB", capital(stage), done>>20)})
	})
	if err == nil {
		err = c.node.Try(ctx, node.Instance{}, plan.node)
	}
	if err != nil {
		c.abandon(ctx, plan)
		return err
	}
	for _, snapshot := range plan.snapshots {
		copied := *snapshot
		copied.Project, copied.Instance = project, name
		copied.Config = layCopied(snapshot.Config, nil)
		if err := c.finish(ctx, store.CreateSnapshot{Snapshot: copied, Within: plan.command.Intent.ID, Hint: store.Hint{Action: store.NoEvent}}); err != nil {
			c.abandon(ctx, plan)
			return err
		}
	}
	return c.finish(ctx, store.FinishCreate{
		Project: project, Name: name, IntentID: plan.command.Intent.ID, Set: volatile,
		Hint: store.Hint{Action: plan.event},
	})
}

func capital(word string) string {
	if word == "" {
		return ""
	}
	return strings.ToUpper(word[:1]) + word[1:]
}

// abandon takes a creation back. What can't be taken back now is taken back later
// (tendIntents), because the intent stays.
func (c *Cluster) abandon(ctx context.Context, plan *createPlan) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := c.undoCreate(ctx, plan.node, plan.command.Intent.ID); err != nil {
		c.log.Error("take back the creation of an instance", "instance", plan.instance.Name, "error", err)
	}
}

func (c *Cluster) undoCreate(ctx context.Context, inst node.Instance, intent string) error {
	err := c.node.Delete(ctx, inst)
	if errors.Is(err, state.ErrUnavailable) {
		// Its pool is not there. What may be in it is removed when the pool comes back.
		left, invalid := leftoverOf(uuid.NewString(), c.Self(), inst)
		if invalid != nil {
			return errors.Join(err, invalid)
		}
		done := c.carry(left.ID)
		defer done()
		err = c.apply(ctx, store.Begin{Intent: left})
	}
	if err != nil {
		return err
	}
	return c.apply(ctx, store.DeleteInstance{
		Project: inst.Project, Name: inst.Name, IntentID: intent, Hint: store.Hint{Action: store.NoEvent},
	})
}

// findImage finds the image that a source names.
func findImage(view *store.View, project string, source InstanceSource) (*state.Image, error) {
	switch {
	case source.Fingerprint != "":
		return view.Image(project, source.Fingerprint)
	case source.Alias != "":
		alias, err := view.Alias(project, source.Alias)
		if err != nil {
			// Clients let users name a fingerprint where an alias goes.
			if image, byFingerprint := view.Image(project, source.Alias); byFingerprint == nil {
				return image, nil
			}
			return nil, state.Errorf(state.ErrNotFound, "image %q not found: \"muster image list\" shows what there is", source.Alias)
		}
		return view.Image(project, alias.Target)
	case len(source.Properties) > 0:
		var newest *state.Image
		for _, image := range view.Images(project) {
			if hasAll(image.Properties, source.Properties) && (newest == nil || image.CreatedAt.After(newest.CreatedAt)) {
				newest = image
			}
		}
		if newest == nil {
			return nil, state.Errorf(state.ErrNotFound, "no image has all of these properties: %v", source.Properties)
		}
		return newest, nil
	}
	return nil, state.Errorf(state.ErrInvalid, "source: name the image by fingerprint, alias or properties")
}

func hasAll(properties, wanted map[string]string) bool {
	for key, value := range wanted {
		if properties[key] != value {
			return false
		}
	}
	return true
}
