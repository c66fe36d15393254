package cluster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"

	"muster/node"
	"muster/node/image"
	"muster/state"
	"muster/state/store"
)

// checkInstance refuses an instance that could never be: bad names, keys and
// devices, profiles, pools and networks that do not exist. It fills in the
// architecture when nobody said, and gives it the kernel's name.
func (c *Cluster) checkInstance(view *store.View, inst *state.Instance) error {
	if inst.Architecture == "" {
		inst.Architecture = hostArchitecture()
	}
	inst.Architecture = image.KernelArchitecture(inst.Architecture)
	if !state.RunsOn(inst.Architecture, hostArchitecture()) {
		return state.Errorf(state.ErrInvalid, "architecture %q: this member runs %s", inst.Architecture, hostArchitecture())
	}
	if err := state.ValidateInstanceConfig(inst.Config, false); err != nil {
		return err
	}
	if err := state.ValidateDevices(inst.Devices, false); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, profile := range inst.Profiles {
		if seen[profile] {
			return state.Errorf(state.ErrInvalid, "profiles: %q is named twice", profile)
		}
		seen[profile] = true
	}
	config, devices, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
	if err != nil {
		return err
	}
	if err := state.ValidateInstanceConfig(config, false); err != nil {
		return err
	}
	// Devices of profiles and those of the instance may want the same place.
	if err := state.ValidateDevices(devices, false); err != nil {
		return err
	}
	return c.checkDevices(view, devices)
}

// checkChanged refuses devices of a profile and an instance that want the same place. Of
// the thousands that may have a profile, those whose devices stay are not looked at.
func checkChanged(from, to state.Devices) error {
	if sameDevices(from, to) {
		return nil
	}
	return state.ValidateDevices(to, false)
}

func sameDevices(a, b state.Devices) bool {
	return maps.EqualFunc(a, b, func(a, b map[string]string) bool { return maps.Equal(a, b) })
}

// checkDevices checks what expanded devices name.
func (c *Cluster) checkDevices(view *store.View, devices state.Devices) error {
	_, root, err := node.RootDisk(devices)
	if err != nil {
		return err
	}
	pool, err := view.Pool(root["pool"])
	if err != nil {
		return err
	}
	if pool.Busy != "" {
		return state.Errorf(state.ErrConflict, "storage pool %q is busy: %s is under way", pool.Name, pool.Busy)
	}
	for name, device := range devices {
		if network := device["network"]; device["type"] == "nic" && network != "" {
			if _, err := view.Network(state.DefaultProject, network); err != nil {
				return fmt.Errorf("device %q: %w", name, err)
			}
		}
	}
	return nil
}

// Architecture is this member's, in the kernel's words.
func (c *Cluster) Architecture() string { return hostArchitecture() }

// hostArchitecture is this machine's, in the kernel's words.
func hostArchitecture() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	case "386":
		return "i686"
	case "arm":
		return "armv7l"
	}
	return runtime.GOARCH
}

var (
	adjectives = []string{
		"able", "bold", "brave", "brisk", "calm", "clear", "crisp", "deft", "eager", "fair", "fast", "fine",
		"fresh", "glad", "grand", "keen", "kind", "light", "lively", "loyal", "lucid", "merry", "neat", "noble",
		"proud", "quick", "quiet", "ready", "sharp", "solid", "sound", "steady", "still", "sunny", "swift",
		"tidy", "true", "vivid", "warm", "wise",
	}
	animals = []string{
		"ant", "badger", "bear", "bee", "bison", "crane", "deer", "dingo", "dove", "eagle", "elk", "falcon",
		"ferret", "finch", "fox", "gecko", "hare", "heron", "ibex", "jackal", "koala", "lark", "lemur", "lynx",
		"marmot", "mole", "moose", "newt", "otter", "owl", "panda", "puma", "quail", "raven", "seal", "stork",
		"swan", "tapir", "viper", "wren",
	}
)

// freeName makes up a name that no instance of the project has.
func freeName(view *store.View, project string) string {
	for {
		name := adjectives[rand.N(len(adjectives))] + "-" + animals[rand.N(len(animals))]
		if _, err := view.Instance(project, name); err != nil {
			return name
		}
		name = fmt.Sprintf("%s-%d", name, rand.N(10000))
		if _, err := view.Instance(project, name); err != nil {
			return name
		}
	}
}
