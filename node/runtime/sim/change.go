package sim

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"muster/node/runtime"
	"muster/state"
)

// change changes the spec of a running container, if what comes out is valid.
func (r *Runtime) change(id string, update func(*container, *runtime.Spec) error) error {
	defer r.hold(id)()
	return r.with(id, func(c *container) error {
		after := c.spec
		after.NICs = slices.Clone(after.NICs)
		after.Mounts = slices.Clone(after.Mounts)
		after.Devices = slices.Clone(after.Devices)
		after.Proxies = slices.Clone(after.Proxies)
		if err := update(c, &after); err != nil {
			return err
		}
		if err := after.Validate(); err != nil {
			return err
		}
		c.spec = after
		return nil
	})
}

// remove takes the first element that matches out of a list.
func remove[T any](list *[]T, what string, match func(T) bool) error {
	at := slices.IndexFunc(*list, match)
	if at < 0 {
		return state.Errorf(state.ErrNotFound, "the container has no %s", what)
	}
	*list = slices.Delete(*list, at, at+1)
	return nil
}

// Spec implements runtime.Runtime.
func (r *Runtime) Spec(_ context.Context, id string) (spec runtime.Spec, err error) {
	err = r.with(id, func(c *container) error {
		spec = c.spec
		spec.NICs = slices.Clone(spec.NICs)
		return nil
	})
	return spec, err
}

// SetLimits implements runtime.Runtime.
func (r *Runtime) SetLimits(_ context.Context, id string, limits runtime.Limits) error {
	return r.change(id, func(_ *container, spec *runtime.Spec) error {
		spec.Limits = limits
		return nil
	})
}

// AddNIC implements runtime.Runtime.
func (r *Runtime) AddNIC(_ context.Context, id string, nic runtime.NIC) error {
	return r.change(id, func(_ *container, spec *runtime.Spec) error {
		spec.NICs = append(spec.NICs, nic)
		return nil
	})
}

// RemoveNIC implements runtime.Runtime.
func (r *Runtime) RemoveNIC(_ context.Context, id, name string) error {
	return r.change(id, func(_ *container, spec *runtime.Spec) error {
		return remove(&spec.NICs, "interface "+name, func(n runtime.NIC) bool { return n.Name == name })
	})
}

// AddMount implements runtime.Runtime.
func (r *Runtime) AddMount(_ context.Context, id string, mount runtime.Mount) error {
	return r.change(id, func(_ *container, spec *runtime.Spec) error {
		if _, err := os.Stat(mount.Source); errors.Is(err, fs.ErrNotExist) && !mount.Optional {
			return state.Errorf(state.ErrInvalid, "disk source %s does not exist", mount.Source)
		}
		spec.Mounts = append(spec.Mounts, mount)
		return nil
	})
}

// RemoveMount implements runtime.Runtime.
func (r *Runtime) RemoveMount(_ context.Context, id, target string) error {
	return r.change(id, func(_ *container, spec *runtime.Spec) error {
		return remove(&spec.Mounts, "disk at "+target, func(m runtime.Mount) bool { return path.Clean(m.Path) == path.Clean(target) })
	})
}

// AddDevice implements runtime.Runtime.
func (r *Runtime) AddDevice(_ context.Context, id string, device runtime.Device) error {
	return r.change(id, func(_ *container, spec *runtime.Spec) error {
		spec.Devices = append(spec.Devices, device)
		return nil
	})
}

// RemoveDevice implements runtime.Runtime.
func (r *Runtime) RemoveDevice(_ context.Context, id, target string) error {
	return r.change(id, func(_ *container, spec *runtime.Spec) error {
		return remove(&spec.Devices, "device at "+target, func(d runtime.Device) bool { return path.Clean(d.Path) == path.Clean(target) })
	})
}

// AddProxy implements runtime.Runtime. Nothing listens.
func (r *Runtime) AddProxy(_ context.Context, id string, proxy runtime.Proxy) error {
	return r.change(id, func(c *container, spec *runtime.Spec) error {
		if slices.ContainsFunc(spec.Proxies, func(p runtime.Proxy) bool { return p.Name == proxy.Name }) {
			return state.Errorf(state.ErrExists, "container %s has a proxy %s already", id, proxy.Name)
		}
		if err := proxy.Validate(); err != nil {
			return err
		}
		spec.Proxies = append(spec.Proxies, proxy)
		c.proxies = append(c.proxies, proxy)
		return nil
	})
}

// RemoveProxy implements runtime.Runtime.
func (r *Runtime) RemoveProxy(_ context.Context, id, name string) error {
	return r.change(id, func(c *container, spec *runtime.Spec) error {
		named := func(p runtime.Proxy) bool { return p.Name == name }
		c.proxies = slices.DeleteFunc(c.proxies, named)
		return remove(&spec.Proxies, "proxy "+name, named)
	})
}

// Proxies implements runtime.Runtime.
func (r *Runtime) Proxies(_ context.Context, id string) ([]runtime.Proxy, error) {
	var proxies []runtime.Proxy
	err := r.with(id, func(c *container) error {
		proxies = slices.Clone(c.proxies)
		return nil
	})
	slices.SortFunc(proxies, func(a, b runtime.Proxy) int { return strings.Compare(a.Name, b.Name) })
	return proxies, err
}

// Figures of an idle busybox container.
const (
	idleMemory = 1 << 20
	bootCPU    = int64(10 * time.Millisecond)
)

// Usage implements runtime.Runtime: that of an idle container.
func (r *Runtime) Usage(_ context.Context, id string) (runtime.Usage, error) {
	var usage runtime.Usage
	err := r.with(id, func(c *container) error {
		usage = runtime.Usage{
			InitPID: c.info.InitPID, Memory: idleMemory, MemoryPeak: idleMemory, MemoryLimit: r.memory,
			CPU: bootCPU, Processes: int64(2 + len(c.commands)), SwapPeak: -1,
		}
		if limit := c.spec.Limits.Memory; limit.Limit > 0 && !limit.Soft {
			usage.MemoryLimit = min(limit.Limit, r.memory)
		}
		return nil
	})
	return usage, err
}

// Interfaces implements runtime.Runtime: those of the spec, without addresses but
// the ones given there.
func (r *Runtime) Interfaces(_ context.Context, id string) ([]runtime.Interface, error) {
	list := []runtime.Interface{{
		Name: "lo", MTU: 65536, Up: true, Type: "loopback",
		Addresses: []runtime.Address{{Family: "inet", Address: "127.0.0.1", Netmask: 8, Scope: "local"}},
	}}
	err := r.with(id, func(c *container) error {
		for _, nic := range c.spec.NICs {
			i := runtime.Interface{Name: nic.Name, HWAddr: nic.HWAddr, MTU: nic.MTU, Up: true, Type: "broadcast"}
			if nic.Kind == runtime.NICVeth {
				i.HostName = nic.HostName
			}
			if i.MTU == 0 {
				i.MTU = 1500
			}
			list = append(list, i)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}
