package lxc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/state"
)

// A physical interface goes back to the host when its container ends. liblxc's
// monitor moves those back that it was started with, and the runtime those that
// were added later, whenever it ends the container itself. What nobody moved the
// kernel gives back if it is hardware, under the name that it had inside; a second
// name, which it keeps all the way, says what it was called before.

// returnGrace is how long the kernel may take to give an interface back.
const returnGrace = 2 * time.Second

// altName is the second name of a physical interface that is in a container.
func altName(nic runtime.NIC) string { return "muster-" + nic.Parent }

// markPhys gives a physical interface its second name.
func markPhys(nic runtime.NIC) error {
	link, err := netlink.LinkByName(nic.Parent)
	if err != nil {
		return state.Errorf(state.ErrInvalid, "interface %s: parent %s: %w", nic.Name, nic.Parent, err)
	}
	if err := netlink.LinkAddAltName(link, altName(nic)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("mark interface %s: %w", nic.Parent, err)
	}
	return nil
}

// physNICs returns the physical interfaces of a spec.
func physNICs(spec runtime.Spec) []runtime.NIC {
	var list []runtime.NIC
	for _, nic := range spec.NICs {
		if nic.Kind == runtime.NICPhys {
			list = append(list, nic)
		}
	}
	return list
}

// holdPhys keeps the network of a container that is about to end until release is
// called; once init has ended, that moves back what physical interfaces are still
// in it.
func (r *Runtime) holdPhys(c *container) (release func()) {
	spec, err := r.readSpec(c.id)
	nics := physNICs(spec)
	if err != nil || len(nics) == 0 {
		return func() {}
	}
	inside, namespace, err := inNetwork(c)
	if err != nil {
		r.log.Warn("physical interfaces can't be moved back", "container", c.id, "err", err)
		return func() {}
	}
	return func() {
		defer inside.Close()
		defer func() { _ = namespace.Close() }()
		if !c.init.ended() {
			return
		}
		for _, nic := range nics {
			if err := moveBack(inside, nic); err != nil {
				r.log.Warn("a physical interface can't be moved back", "container", c.id, "interface", nic.Parent, "err", err)
			}
		}
	}
}

// moveBack moves a physical interface back to the host, under its own name. One
// that is not there has gone back already.
func moveBack(inside *netlink.Handle, nic runtime.NIC) error {
	link, err := inside.LinkByName(nic.Name)
	if err != nil {
		// It is not there.
		return nil
	}
	if err := inside.LinkSetDown(link); err != nil {
		return err
	}
	if err := inside.LinkSetName(link, nic.Parent); err != nil {
		return err
	}
	own, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(own) }()
	return inside.LinkSetNsFd(link, own)
}

// bringBack renames a physical interface that has come back, and waits for it to
// do so. One that is no longer there at all, or was never marked, is left.
func bringBack(ctx context.Context, nic runtime.NIC) error {
	ctx, cancel := context.WithTimeout(ctx, returnGrace)
	defer cancel()
	for {
		link, err := netlink.LinkByName(nic.Parent)
		if err == nil {
			// liblxc has renamed it.
			_ = netlink.LinkDelAltName(link, altName(nic))
			return nil
		}
		link, err = netlink.LinkByName(altName(nic))
		if err == nil {
			return errors.Join(netlink.LinkSetDown(link), netlink.LinkSetName(link, nic.Parent), netlink.LinkDelAltName(link, altName(nic)))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("interface %s has not come back from the container: %w", nic.Parent, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}
