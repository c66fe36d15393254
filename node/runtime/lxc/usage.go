package lxc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"muster/node/network/dump"
	"muster/node/runtime"
	"muster/node/runtime/lxc/cgroup"
	"muster/state"
)

// Usage implements runtime.Runtime. It reads a dozen small files.
func (r *Runtime) Usage(ctx context.Context, id string) (runtime.Usage, error) {
	c, err := r.find(ctx, id)
	if err != nil {
		return runtime.Usage{}, err
	}
	defer c.close()
	usage := r.group(id).Usage()
	usage.InitPID = c.init.pid
	return usage, nil
}

// CPUs implements runtime.Runtime.
func (r *Runtime) CPUs() ([]int, error) { return r.groups.CPUs() }

// chooseCPUs picks processors for a container, away from those that others are
// confined to.
func (r *Runtime) chooseCPUs(id string, count int) (string, error) {
	var others []cgroup.Group
	for _, other := range r.groups.Group(r.prefix).Children() {
		if other != id {
			others = append(others, r.group(other))
		}
	}
	return r.groups.ChooseCPUs(count, others)
}

// inNetwork opens a netlink connection in the container's network namespace: the
// socket keeps to the namespace that it was made in.
func inNetwork(c *container) (handle *netlink.Handle, namespace netns.NsHandle, err error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", c.init.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, -1, err
	}
	namespace = netns.NsHandle(fd)
	// Still alive, so the path was its own.
	if c.init.ended() {
		return nil, -1, errors.Join(os.ErrProcessDone, unix.Close(fd))
	}
	handle, err = netlink.NewHandleAt(namespace, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, -1, errors.Join(err, unix.Close(fd))
	}
	return handle, namespace, nil
}

// Interfaces implements runtime.Runtime.
func (r *Runtime) Interfaces(ctx context.Context, id string) ([]runtime.Interface, error) {
	c, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	defer c.close()
	handle, namespace, err := inNetwork(c)
	if errors.Is(err, os.ErrProcessDone) {
		return nil, state.Errorf(state.ErrNotFound, "container %s does not run", id)
	}
	if err != nil {
		return nil, fmt.Errorf("enter the network of container %s: %w", id, err)
	}
	defer handle.Close()
	defer func() { _ = namespace.Close() }()
	links, err := dump.Whole(handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the interfaces of container %s: %w", id, err)
	}
	addresses, err := dump.Whole(func() ([]netlink.Addr, error) { return handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses of container %s: %w", id, err)
	}
	// By the index inside, which the host's end knows: a guest may call its end otherwise.
	hostNames := map[int]string{}
	if spec, err := r.readSpec(id); err == nil {
		for _, nic := range spec.NICs {
			if nic.Kind != runtime.NICVeth {
				continue
			}
			if host, err := netlink.LinkByName(nic.HostName); err == nil {
				hostNames[host.Attrs().ParentIndex] = nic.HostName
			}
		}
	}
	var list []runtime.Interface
	for _, link := range links {
		i := interfaceOf(link.Attrs(), addresses)
		i.HostName = hostNames[link.Attrs().Index]
		list = append(list, i)
	}
	return list, nil
}

func interfaceOf(attrs *netlink.LinkAttrs, addresses []netlink.Addr) runtime.Interface {
	i := runtime.Interface{
		Name: attrs.Name, HWAddr: attrs.HardwareAddr.String(), MTU: attrs.MTU,
		Up: attrs.Flags&net.FlagUp != 0, Type: "broadcast",
	}
	switch {
	case attrs.Flags&net.FlagLoopback != 0:
		i.Type = "loopback"
	case attrs.Flags&net.FlagPointToPoint != 0:
		i.Type = "point-to-point"
	}
	if s := attrs.Statistics; s != nil {
		i.Counters = runtime.Counters{
			BytesReceived: int64(s.RxBytes), BytesSent: int64(s.TxBytes),
			PacketsReceived: int64(s.RxPackets), PacketsSent: int64(s.TxPackets),
			ErrorsReceived: int64(s.RxErrors), ErrorsSent: int64(s.TxErrors),
			PacketsDroppedInbound: int64(s.RxDropped), PacketsDroppedOutbound: int64(s.TxDropped),
		}
	}
	for _, address := range addresses {
		if address.LinkIndex != attrs.Index || address.IPNet == nil {
			continue
		}
		ones, _ := address.Mask.Size()
		a := runtime.Address{Family: "inet", Address: address.IP.String(), Netmask: ones, Scope: scopeOf(address.Scope)}
		if address.IP.To4() == nil {
			a.Family = "inet6"
		}
		i.Addresses = append(i.Addresses, a)
	}
	return i
}

// scopeOf names an address's scope as ip(8) does.
func scopeOf(scope int) string {
	switch netlink.Scope(scope) {
	case netlink.SCOPE_LINK:
		return "link"
	case netlink.SCOPE_HOST:
		return "local"
	}
	return "global"
}
