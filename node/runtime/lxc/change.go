package lxc

import (
	"context"
	"errors"
	"path"
	"slices"

	"muster/node/runtime"
	"muster/state"
)

// change is the one way in which a running container is changed: under its lock,
// with the container found and its spec read; what update makes of the spec is
// recorded once act has worked, so the container has it again after a reboot.
func (r *Runtime) change(ctx context.Context, id string, update func(*runtime.Spec) error, act func(*container, runtime.Spec) error) error {
	defer r.locks.lock(id)()
	c, err := r.find(ctx, id)
	if err != nil {
		return err
	}
	defer c.close()
	before, err := r.readSpec(id)
	if err != nil {
		return err
	}
	after, err := r.readSpec(id)
	if err != nil {
		return err
	}
	if err := update(&after); err != nil {
		return err
	}
	if err := after.Validate(); err != nil {
		return err
	}
	if err := act(c, before); err != nil {
		return err
	}
	return r.putSpec(after)
}

// Spec implements runtime.Runtime.
func (r *Runtime) Spec(ctx context.Context, id string) (runtime.Spec, error) {
	defer r.locks.lock(id)()
	c, err := r.find(ctx, id)
	if err != nil {
		return runtime.Spec{}, err
	}
	defer c.close()
	return r.readSpec(id)
}

// SetLimits implements runtime.Runtime.
func (r *Runtime) SetLimits(ctx context.Context, id string, limits runtime.Limits) error {
	return r.change(ctx, id, func(spec *runtime.Spec) error {
		spec.Limits = limits
		return nil
	}, func(*container, runtime.Spec) error {
		cpus := ""
		if limits.CPU.Count > 0 {
			var err error
			if cpus, err = r.chooseCPUs(id, limits.CPU.Count); err != nil {
				return err
			}
		}
		settings, err := r.groups.Settings(limits, cpus)
		if err != nil {
			return err
		}
		return r.group(id).Apply(settings)
	})
}

// AddNIC implements runtime.Runtime.
func (r *Runtime) AddNIC(ctx context.Context, id string, nic runtime.NIC) error {
	var intended runtime.Spec
	return r.change(ctx, id, func(spec *runtime.Spec) error {
		spec.NICs = append(spec.NICs, nic)
		intended = *spec
		return nil
	}, func(c *container, before runtime.Spec) error {
		// Recorded first: a daemon that is killed in between finds it by its record.
		if err := r.putSpec(intended); err != nil {
			return err
		}
		if err := addNIC(ctx, c, nic); err != nil {
			return errors.Join(err, r.putSpec(before))
		}
		return nil
	})
}

// RemoveNIC implements runtime.Runtime.
func (r *Runtime) RemoveNIC(ctx context.Context, id, name string) error {
	var nic runtime.NIC
	return r.change(ctx, id, func(spec *runtime.Spec) error {
		at := slices.IndexFunc(spec.NICs, func(n runtime.NIC) bool { return n.Name == name })
		if at < 0 {
			return state.Errorf(state.ErrNotFound, "container %s has no interface %s", id, name)
		}
		nic = spec.NICs[at]
		spec.NICs = slices.Delete(spec.NICs, at, at+1)
		return nil
	}, func(c *container, _ runtime.Spec) error { return removeNIC(ctx, c, nic) })
}

// AddMount implements runtime.Runtime.
func (r *Runtime) AddMount(ctx context.Context, id string, mount runtime.Mount) error {
	return r.change(ctx, id, func(spec *runtime.Spec) error {
		spec.Mounts = append(spec.Mounts, mount)
		return nil
	}, func(c *container, spec runtime.Spec) error { return addMount(c, spec, mount) })
}

// RemoveMount implements runtime.Runtime.
func (r *Runtime) RemoveMount(ctx context.Context, id, target string) error {
	return r.change(ctx, id, func(spec *runtime.Spec) error {
		at := slices.IndexFunc(spec.Mounts, func(m runtime.Mount) bool { return path.Clean(m.Path) == path.Clean(target) })
		if at < 0 {
			return state.Errorf(state.ErrNotFound, "container %s has no disk at %s", id, target)
		}
		spec.Mounts = slices.Delete(spec.Mounts, at, at+1)
		return nil
	}, func(c *container, _ runtime.Spec) error { return removeMount(c, target) })
}

// AddDevice implements runtime.Runtime.
func (r *Runtime) AddDevice(ctx context.Context, id string, device runtime.Device) error {
	return r.change(ctx, id, func(spec *runtime.Spec) error {
		spec.Devices = append(spec.Devices, device)
		return nil
	}, func(c *container, spec runtime.Spec) error { return r.addDevice(ctx, c, spec, device) })
}

// RemoveDevice implements runtime.Runtime.
func (r *Runtime) RemoveDevice(ctx context.Context, id, target string) error {
	var device runtime.Device
	return r.change(ctx, id, func(spec *runtime.Spec) error {
		at := slices.IndexFunc(spec.Devices, func(d runtime.Device) bool { return path.Clean(d.Path) == path.Clean(target) })
		if at < 0 {
			return state.Errorf(state.ErrNotFound, "container %s has no device at %s", id, target)
		}
		device = spec.Devices[at]
		spec.Devices = slices.Delete(spec.Devices, at, at+1)
		return nil
	}, func(c *container, spec runtime.Spec) error { return r.removeDevice(ctx, c, spec, device) })
}

// AddProxy implements runtime.Runtime.
func (r *Runtime) AddProxy(ctx context.Context, id string, proxy runtime.Proxy) error {
	return r.change(ctx, id, func(spec *runtime.Spec) error {
		if slices.ContainsFunc(spec.Proxies, func(p runtime.Proxy) bool { return p.Name == proxy.Name }) {
			return state.Errorf(state.ErrExists, "container %s has a proxy %s already", id, proxy.Name)
		}
		spec.Proxies = append(spec.Proxies, proxy)
		return nil
	}, func(_ *container, spec runtime.Spec) error { return r.startProxy(ctx, spec, proxy) })
}

// RemoveProxy implements runtime.Runtime.
func (r *Runtime) RemoveProxy(ctx context.Context, id, name string) error {
	return r.change(ctx, id, func(spec *runtime.Spec) error {
		at := slices.IndexFunc(spec.Proxies, func(p runtime.Proxy) bool { return p.Name == name })
		if at < 0 {
			return state.Errorf(state.ErrNotFound, "container %s has no proxy %s", id, name)
		}
		spec.Proxies = slices.Delete(spec.Proxies, at, at+1)
		return nil
	}, func(*container, runtime.Spec) error { return r.endProxy(ctx, id, name) })
}
