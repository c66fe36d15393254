package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"muster/node/runtime"
	"muster/state"
)

// Update brings a running instance from one configuration to another, as far as
// that can be done while it runs, and returns the volatile keys to record. What
// can't waits for the next start. When a step fails, the steps before it are
// taken back.
func (n *Node) Update(ctx context.Context, from, to Instance) (state.Config, error) {
	volatile := n.hwaddrs(to)
	maps.Copy(volatile, forgotten(from, to))
	maps.Copy(volatile, InstanceIDAfter(from, to))
	to = to.with(volatile)
	running, err := n.Status(ctx, from)
	if err != nil {
		return nil, err
	}
	if running == state.StatusStopped {
		if err := n.claimAddresses(ctx, to); err != nil {
			n.keepAddresses(ctx, from)
			return nil, err
		}
	}
	if err := n.updateRootSize(ctx, from, to); err != nil {
		return nil, err
	}
	if running == state.StatusStopped {
		return volatile, nil
	}
	var done []func()
	undo := func() {
		for _, back := range slices.Backward(done) {
			back()
		}
	}
	if limitsChanged(from.Config, to.Config) {
		if err := n.updateLimits(ctx, from, to, &done); err != nil {
			undo()
			return nil, err
		}
	}
	// Before an interface is plugged in: its first question must find the answer.
	if err := n.updateAddresses(ctx, from, to, &done); err != nil {
		undo()
		return nil, err
	}
	from.Devices, to.Devices = withoutShadowed(from.Devices), withoutShadowed(to.Devices)
	for _, name := range deviceNames(from.Devices) {
		if !replugged(from.Devices[name], to.Devices[name]) {
			continue
		}
		if err := n.unplug(ctx, from, name, volatile, &done); err != nil {
			undo()
			return nil, err
		}
	}
	for _, name := range deviceNames(to.Devices) {
		if !replugged(from.Devices[name], to.Devices[name]) {
			continue
		}
		if err := n.plug(ctx, to, name, volatile, &done); err != nil {
			undo()
			return nil, err
		}
	}
	return volatile, nil
}

// unplugged are the options of a device that take effect without it, by its type: what
// the managed network or the next start knows.
var unplugged = map[string][]string{
	"nic":        {"ipv4.address", "ipv6.address", "boot.priority"},
	"disk":       {"required", "boot.priority"},
	"unix-char":  {"required"},
	"unix-block": {"required"},
}

// replugged reports whether a device that changes so must be taken from a running instance
// and given to it again. To the guest that is a new device: it loses what it had set up.
func replugged(from, to map[string]string) bool {
	if from["type"] != to["type"] {
		return true
	}
	hard := func(device map[string]string) map[string]string {
		options := maps.Clone(device)
		maps.DeleteFunc(options, func(key, value string) bool {
			return value == "" || strings.HasPrefix(key, "user.") || slices.Contains(unplugged[device["type"]], key)
		})
		return options
	}
	return !maps.Equal(hard(from), hard(to))
}

// forgotten empties the volatile keys of nics that are gone. One that is changed keeps its
// own: it is the same interface to the guest and to the network.
func forgotten(from, to Instance) state.Config {
	volatile := state.Config{}
	for name, device := range from.Devices {
		if device["type"] != "nic" || to.Devices[name]["type"] == "nic" {
			continue
		}
		for _, key := range []string{"host_name", "hwaddr", "name"} {
			if full := "volatile." + name + "." + key; from.Config[full] != "" {
				volatile[full] = ""
			}
		}
	}
	return volatile
}

// updateAddresses tells the managed networks of the instance's nics if they change.
func (n *Node) updateAddresses(ctx context.Context, from, to Instance, done *[]func()) error {
	if slices.Equal(reservations(from), reservations(to)) {
		return nil
	}
	*done = append(*done, func() {
		n.backed(from, "addresses", n.KeepAddresses(context.WithoutCancel(ctx), from))
	})
	return n.KeepAddresses(ctx, to)
}

func (n *Node) updateRootSize(ctx context.Context, from, to Instance) error {
	_, before, err := RootDisk(from.Devices)
	if err != nil {
		return err
	}
	_, after, err := RootDisk(to.Devices)
	if err != nil {
		return err
	}
	if before["pool"] != after["pool"] {
		return state.Errorf(state.ErrInvalid, "the root disk can't be moved from pool %q to %q by an update: copy the instance", before["pool"], after["pool"])
	}
	if before["size"] == after["size"] {
		return nil
	}
	pool, volume, err := n.volume(ctx, to)
	if err != nil {
		return err
	}
	var size int64
	if after["size"] != "" {
		if size, err = state.ParseSize(after["size"]); err != nil {
			return err
		}
	}
	return pool.SetQuota(ctx, volume, size)
}

func limitsChanged(from, to state.Config) bool {
	keys := func(config state.Config) map[string]string {
		found := map[string]string{}
		for key, value := range config {
			// limits.kernel.* are given to init once, when it starts.
			if strings.HasPrefix(key, "limits.") && !strings.HasPrefix(key, "limits.kernel.") && value != "" {
				found[key] = value
			}
		}
		return found
	}
	return !maps.Equal(keys(from), keys(to))
}

func (n *Node) updateLimits(ctx context.Context, from, to Instance, done *[]func()) error {
	before, err := n.limits(from.Config)
	if err != nil {
		return err
	}
	after, err := n.limits(to.Config)
	if err != nil {
		return err
	}
	if err := n.cfg.Runtime.SetLimits(ctx, to.HostName(), after); err != nil {
		return fmt.Errorf("change limits: %w", err)
	}
	*done = append(*done, func() {
		n.backed(to, "limits", n.cfg.Runtime.SetLimits(context.WithoutCancel(ctx), to.HostName(), before))
	})
	return nil
}

// backed logs that a step could not be taken back.
func (n *Node) backed(inst Instance, step string, err error) {
	if err != nil {
		n.log.Error("take back a step of an update", "instance", inst.HostName(), "step", step, "error", err)
	}
}

// unplug takes a device from a running instance.
func (n *Node) unplug(ctx context.Context, inst Instance, name string, volatile state.Config, done *[]func()) error {
	id, device := inst.HostName(), inst.Devices[name]
	again := func() {
		n.backed(inst, name, n.plug(context.WithoutCancel(ctx), inst, name, state.Config{}, new([]func())))
	}
	var err error
	switch device["type"] {
	case "nic":
		err = n.cfg.Runtime.RemoveNIC(ctx, id, interfaceName(inst, name))
		if full := "volatile." + name + ".host_name"; inst.Config[full] != "" {
			volatile[full] = "" // until it is plugged in again
		}
	case "disk":
		if device["path"] == "/" {
			return nil
		}
		err = n.cfg.Runtime.RemoveMount(ctx, id, device["path"])
		if err == nil || errors.Is(err, state.ErrNotFound) {
			err = n.dropDisk(ctx, filepath.Join(n.disksOf(inst), name))
		}
	case "unix-char", "unix-block":
		err = n.cfg.Runtime.RemoveDevice(ctx, id, unixPath(device))
	case "proxy":
		err = n.cfg.Runtime.RemoveProxy(ctx, id, name)
	default:
		return nil
	}
	// What was never there (required=false, say) needs no removal.
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("remove device %q: %w", name, err)
	}
	*done = append(*done, again)
	return nil
}

func interfaceName(inst Instance, device string) string {
	if name := inst.Devices[device]["name"]; name != "" {
		return name
	}
	return inst.Config["volatile."+device+".name"]
}

// plug gives a running instance a device.
func (n *Node) plug(ctx context.Context, inst Instance, name string, volatile state.Config, done *[]func()) error {
	id, device := inst.HostName(), inst.Devices[name]
	only := inst
	only.Devices = state.Devices{name: device}
	var spec runtime.Spec
	// The name inside is chosen with a view to the other nics, and recorded: without it the
	// interface could not be found again.
	if key := "volatile." + name + ".name"; device["type"] == "nic" && device["name"] == "" && inst.Config[key] == "" {
		volatile[key] = freeInterface(inst)
		only = only.with(state.Config{key: volatile[key]})
	}
	more, err := n.addDevices(ctx, only, &spec)
	if err != nil {
		return err
	}
	maps.Copy(volatile, more)
	for _, nic := range spec.NICs {
		// A daemon that was killed may have left one of that name that is not recorded.
		if err := n.cfg.Runtime.RemoveNIC(ctx, id, nic.Name); err != nil && !errors.Is(err, state.ErrNotFound) {
			return fmt.Errorf("add device %q: %w", name, err)
		}
		if err := n.cfg.Runtime.AddNIC(ctx, id, nic); err != nil {
			return fmt.Errorf("add device %q: %w", name, err)
		}
		*done = append(*done, func() { n.backed(inst, name, n.cfg.Runtime.RemoveNIC(context.WithoutCancel(ctx), id, nic.Name)) })
	}
	for _, mount := range spec.Mounts {
		if err := n.cfg.Runtime.AddMount(ctx, id, mount); err != nil {
			n.backed(inst, name, n.dropDisk(context.WithoutCancel(ctx), filepath.Join(n.disksOf(inst), name)))
			return fmt.Errorf("add device %q: %w", name, err)
		}
		*done = append(*done, func() { n.backed(inst, name, n.cfg.Runtime.RemoveMount(context.WithoutCancel(ctx), id, mount.Path)) })
	}
	for _, node := range spec.Devices {
		if err := n.cfg.Runtime.AddDevice(ctx, id, node); err != nil {
			return fmt.Errorf("add device %q: %w", name, err)
		}
		*done = append(*done, func() { n.backed(inst, name, n.cfg.Runtime.RemoveDevice(context.WithoutCancel(ctx), id, node.Path)) })
	}
	for _, proxy := range spec.Proxies {
		if err := n.cfg.Runtime.AddProxy(ctx, id, proxy); err != nil {
			return fmt.Errorf("add device %q: %w", name, err)
		}
		*done = append(*done, func() { n.backed(inst, name, n.cfg.Runtime.RemoveProxy(context.WithoutCancel(ctx), id, proxy.Name)) })
	}
	return nil
}
