package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/runtime/lxc/wire"
	"muster/state"
)

// killGrace is how long killed processes may take to be gone.
const killGrace = 5 * time.Second

// Cleanup implements runtime.Runtime.
func (r *Runtime) Cleanup(ctx context.Context, id string) error {
	if err := runtime.ValidateID(id); err != nil {
		return err
	}
	defer r.locks.lock(id)()
	c, between, err := r.look(id)
	if err != nil {
		return err
	}
	if c != nil {
		c.close()
	}
	if c != nil || between {
		return state.Errorf(state.ErrConflict, "container %s runs", id)
	}
	return r.cleanup(ctx, id)
}

// cleanup removes what a dead container left. The caller holds its lock.
func (r *Runtime) cleanup(ctx context.Context, id string) error {
	if err := r.endProxies(ctx, id); err != nil {
		return err
	}
	if err := r.removeGroups(ctx, id); err != nil {
		return err
	}
	if spec, err := r.readSpec(id); err == nil {
		for _, nic := range spec.NICs {
			if err := removeHostEnd(nic); err != nil {
				return err
			}
			if nic.Kind != runtime.NICPhys {
				continue
			}
			// One that was pulled out meanwhile is no reason to keep the rest.
			if err := bringBack(ctx, nic); err != nil {
				r.log.Warn("a physical interface is missing", "container", id, "interface", nic.Parent, "err", err)
			}
		}
	}
	if err := os.RemoveAll(r.nodes(id)); err != nil {
		return err
	}
	// liblxc's lock file, which it never removes itself.
	lock := filepath.Join(r.liblxcLocks(), "."+id)
	if err := os.Remove(lock); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// What it had is gone now, and need not be looked for again.
	if err := os.Remove(filepath.Join(r.run(id), specFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// removeGroups kills every process that is still in a group of the container and
// removes the groups.
func (r *Runtime) removeGroups(ctx context.Context, id string) error {
	group := r.all(id)
	if !group.Exists() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, killGrace)
	defer cancel()
	for {
		err := group.Remove()
		if err == nil {
			return nil
		}
		pids, perr := group.Processes()
		if perr != nil {
			return perr
		}
		for _, pid := range pids {
			if err := r.killMember(pid, id); err != nil {
				return err
			}
		}
		if len(pids) > 0 {
			if err := r.thaw(ctx, id); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove the control groups of container %s: %w", id, err)
		case <-time.After(pollEvery):
		}
	}
}

// killMember kills a process if it is in a group of the container: looked at
// again once it is held, since the number may mean another by now.
func (r *Runtime) killMember(pid int, id string) error {
	p, err := openProcess(wire.PID{Number: pid})
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = p.close() }()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !strings.Contains(string(groups), "/"+r.prefix+"/"+id+"/") {
		// A process that has gone is in no group.
		return nil
	}
	return p.signal(unix.SIGKILL)
}

// removeHostEnd removes the host's end of a veth. It goes by itself when the
// container's network namespace does, but that may be later.
func removeHostEnd(nic runtime.NIC) error {
	if nic.Kind != runtime.NICVeth {
		return nil
	}
	if _, err := os.Stat("/sys/class/net/" + nic.HostName); err != nil {
		return nil //nolint:nilerr // It is not there.
	}
	link, err := netlink.LinkByName(nic.HostName)
	if err != nil || link.Type() != "veth" {
		return nil //nolint:nilerr // It is not there, or another's.
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove interface %s: %w", nic.HostName, err)
	}
	return nil
}
