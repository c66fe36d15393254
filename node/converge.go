package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"muster/node/runtime"
	"muster/state"
)

// Converge gives a running instance the interfaces that it is recorded to have and takes
// others away, and returns the volatile keys to record: a daemon that was killed may have
// changed the host and not the record. It goes by what each interface is called, its address
// and what it hangs on. A new release may fill in other options differently, and that must not
// cut off what runs.
func (n *Node) Converge(ctx context.Context, inst Instance) (state.Config, error) {
	spec, err := n.cfg.Runtime.Spec(ctx, inst.HostName())
	if err != nil {
		return nil, err
	}
	interfaces, err := n.cfg.Runtime.Interfaces(ctx, inst.HostName())
	if err != nil {
		return nil, err
	}
	// What was to be added or removed when the daemon ended is in the Spec and not there. A
	// guest may call its end otherwise; the host's end keeps its name.
	left := slices.DeleteFunc(spec.NICs, func(nic runtime.NIC) bool {
		there := func(i runtime.Interface) bool { return i.HostName == nic.HostName }
		return nic.Kind == runtime.NICVeth && !slices.ContainsFunc(interfaces, there)
	})
	volatile := state.Config{}
	var missing []string
	for _, name := range deviceNames(inst.Devices) {
		device := inst.Devices[name]
		if device["type"] != "nic" {
			continue
		}
		at := slices.IndexFunc(left, func(nic runtime.NIC) bool { return n.isNIC(inst, name, device, nic) })
		if at < 0 {
			missing = append(missing, name)
			continue
		}
		note(inst, volatile, name, "name", device["name"], left[at].Name)
		note(inst, volatile, name, "host_name", device["host_name"], left[at].HostName)
		left = slices.Delete(left, at, at+1)
	}
	var failed []error
	for _, nic := range left {
		n.log.Info("an instance loses an interface that it is not recorded to have", "instance", inst.HostName(), "interface", nic.Name)
		if err := n.cfg.Runtime.RemoveNIC(ctx, inst.HostName(), nic.Name); err != nil && !errors.Is(err, state.ErrNotFound) {
			failed = append(failed, fmt.Errorf("remove interface %s: %w", nic.Name, err))
		}
	}
	inst = inst.with(volatile)
	for _, name := range missing {
		n.log.Info("an instance gets an interface that it is recorded to have", "instance", inst.HostName(), "device", name)
		if err := n.plug(ctx, inst, name, volatile, new([]func())); err != nil {
			failed = append(failed, err)
		}
	}
	return volatile, errors.Join(failed...)
}

// isNIC reports whether the interface is the device's.
func (n *Node) isNIC(inst Instance, name string, device map[string]string, nic runtime.NIC) bool {
	if inside := interfaceName(inst, name); inside != "" && inside != nic.Name {
		return false
	}
	if hwaddr := HWAddr(inst.Config, name, device); hwaddr != "" && !strings.EqualFold(hwaddr, nic.HWAddr) {
		return false
	}
	kind, parent, err := n.attachment(inst, name, device)
	return err != nil || kind == nic.Kind && parent == nic.Parent
}

// note records what an interface is called, unless its device says so.
func note(inst Instance, volatile state.Config, device, what, given, is string) {
	if key := "volatile." + device + "." + what; given == "" && is != "" && inst.Config[key] != is {
		volatile[key] = is
	}
}
