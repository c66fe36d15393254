package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"muster/node/runtime"
	"muster/state"
)

// startKeys are the keys, and prefixes of keys, that liblxc may refuse at a start although
// each by itself looks right.
var startKeys = []string{"raw.lxc", "linux.sysctl.", "limits.kernel.", "security.syscalls."}

// startConfig returns those keys of a configuration.
func startConfig(config state.Config) state.Config {
	found := state.Config{}
	for key, value := range config {
		if value != "" && slices.ContainsFunc(startKeys, func(start string) bool {
			return key == start || strings.HasSuffix(start, ".") && strings.HasPrefix(key, start)
		}) {
			found[key] = value
		}
	}
	return found
}

// CheckConfig refuses a configuration that no instance could start with, as far as that
// can be said without one.
func (n *Node) CheckConfig(ctx context.Context, config state.Config) error {
	if len(startConfig(config)) == 0 {
		return nil
	}
	spec, _, err := n.spec(ctx, Instance{Name: "check", Config: config}, "/")
	if err != nil {
		return err
	}
	return n.cfg.Runtime.Check(ctx, spec)
}

// Try refuses a change after which the instance could not start (state.ErrInvalid), by
// starting a container of the same configuration up to where its init would begin. before
// is the instance as it was, or the zero Instance for a new one. An instance that could
// not start before may be changed: the change is not why.
func (n *Node) Try(ctx context.Context, before, after Instance) error {
	was, wanted := startConfig(before.Config), startConfig(after.Config)
	if len(wanted) == 0 || maps.Equal(was, wanted) {
		return nil
	}
	status, err := n.Status(ctx, after)
	if err != nil {
		return err
	}
	// The root of a running one is mounted for the ids it runs with, which a change of
	// security.privileged does not touch.
	ids := after
	if status != state.StatusStopped {
		ids = after.with(state.Config{"security.privileged": strconv.FormatBool(after.Config["volatile.last_state.idmap"] == "[]")})
	}
	pool, volume, err := n.volume(ctx, after)
	if err != nil {
		return err
	}
	mounted, err := pool.MountVolume(ctx, volume, n.storageIDs(ids))
	if err != nil {
		return err
	}
	defer func() {
		if err := pool.UnmountVolume(context.WithoutCancel(ctx), volume); err != nil {
			n.log.Warn("unmount after a trial", "instance", after.HostName(), "error", err)
		}
	}()
	try := func(config state.Config) error {
		tried := after
		tried.Config, tried.Devices = maps.Clone(config), state.Devices{}
		tried.Config["security.privileged"] = ids.Config["security.privileged"]
		spec, _, err := n.spec(ctx, tried, mounted.RootFS)
		if err != nil {
			return err
		}
		for i, name := range deviceNames(after.Devices) {
			if after.Devices[name]["type"] == "nic" {
				spec.NICs = append(spec.NICs, runtime.NIC{Name: cmp.Or(interfaceName(after, name), fmt.Sprintf("try%d", i))})
			}
		}
		return n.cfg.Runtime.Try(ctx, spec)
	}
	failed := try(after.Config)
	if failed == nil {
		return nil
	}
	without := maps.Clone(after.Config)
	for key := range wanted {
		delete(without, key)
	}
	maps.Copy(without, was)
	if err := try(without); err != nil {
		n.log.Warn("an instance can't start, before and after a change", "instance", after.HostName(), "error", failed)
		return ctx.Err()
	}
	var changed []string
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		if was[key] != wanted[key] {
			changed = append(changed, key)
		}
	}
	return state.Errorf(state.ErrInvalid, "config key %s: with it instance %q can't start: %w", strings.Join(changed, ", "), after.Name, failed)
}
