package node

import (
	"context"
	"fmt"
	"strconv"

	"muster/node/network"
	"muster/node/runtime"
	"muster/state"
)

// nic is a nic device as the runtime makes it. It fills in the volatile key of
// the host's end.
func (n *Node) nic(inst Instance, name string, device map[string]string, volatile state.Config) (runtime.NIC, error) {
	nic := runtime.NIC{Name: device["name"], HWAddr: device["hwaddr"]}
	if nic.Name == "" {
		nic.Name = inst.Config["volatile."+name+".name"]
	}
	if nic.Name == "" {
		nic.Name = freeInterface(inst)
		volatile["volatile."+name+".name"] = nic.Name
		inst.Config["volatile."+name+".name"] = nic.Name
	}
	if nic.HWAddr == "" {
		nic.HWAddr = inst.Config["volatile."+name+".hwaddr"]
	}
	if value := device["mtu"]; value != "" {
		mtu, err := strconv.Atoi(value)
		if err != nil {
			return nic, state.Errorf(state.ErrInvalid, "device %q: mtu %q is not a number", name, value)
		}
		nic.MTU = mtu
	}
	kind, parent, err := n.attachment(inst, name, device)
	if err != nil {
		return nic, err
	}
	nic.Kind, nic.Parent = kind, parent
	if kind == runtime.NICVeth {
		nic.HostName = device["host_name"]
		if nic.HostName == "" {
			host, err := n.cfg.Networks.NewHostName()
			if err != nil {
				return nic, fmt.Errorf("device %q: %w", name, err)
			}
			nic.HostName = host
			volatile["volatile."+name+".host_name"] = host
		}
	}
	return nic, nil
}

// attachment says what the nic hangs on.
func (n *Node) attachment(inst Instance, name string, device map[string]string) (runtime.NICKind, string, error) {
	if managed := device["network"]; managed != "" {
		if inst.Networks[managed] == nil {
			return "", "", state.Errorf(state.ErrInvalid, "device %q: network %q does not exist", name, managed)
		}
		return runtime.NICVeth, managed, nil
	}
	switch device["nictype"] {
	case "bridged":
		return runtime.NICVeth, device["parent"], n.parentExists(name, device["parent"])
	case "p2p":
		return runtime.NICVeth, "", nil
	case "macvlan":
		return runtime.NICMacvlan, device["parent"], n.parentExists(name, device["parent"])
	}
	return "", "", state.Errorf(state.ErrInvalid, "device %q: nictype %q: want bridged, macvlan or p2p, or name a network", name, device["nictype"])
}

func (n *Node) parentExists(device, parent string) error {
	if !network.InterfaceExists(parent) {
		return state.Errorf(state.ErrInvalid, "device %q: this member has no interface %q", device, parent)
	}
	return nil
}

// freeInterface is the first ethN that no nic of the instance claims.
func freeInterface(inst Instance) string {
	taken := map[string]bool{}
	for name, device := range inst.Devices {
		if device["type"] == "nic" {
			taken[device["name"]] = true
			taken[inst.Config["volatile."+name+".name"]] = true
		}
	}
	for i := 0; ; i++ {
		if name := "eth" + strconv.Itoa(i); !taken[name] {
			return name
		}
	}
}

// managedNIC returns the managed network a nic is on, or "".
func managedNIC(inst Instance, device map[string]string) string {
	if managed := device["network"]; managed != "" {
		return managed
	}
	if device["nictype"] == "bridged" && inst.Networks[device["parent"]] != nil {
		return device["parent"]
	}
	return ""
}

// reserveNICs tells the managed networks what the instance's interfaces are
// called and which addresses they are to have.
func (n *Node) reserveNICs(ctx context.Context, inst Instance) error {
	for _, name := range deviceNames(inst.Devices) {
		device := inst.Devices[name]
		if device["type"] != "nic" {
			continue
		}
		if err := n.reserveNIC(ctx, inst, name, device); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) reserveNIC(ctx context.Context, inst Instance, name string, device map[string]string) error {
	managed := managedNIC(inst, device)
	if managed == "" {
		return nil
	}
	hwaddr := device["hwaddr"]
	if hwaddr == "" {
		hwaddr = inst.Config["volatile."+name+".hwaddr"]
	}
	err := n.cfg.Networks.Reserve(ctx, managed, network.Reservation{
		ID: inst.HostName() + "." + name, Name: inst.Name, HWAddr: hwaddr,
		IPv4: device["ipv4.address"], IPv6: device["ipv6.address"],
	})
	if err != nil {
		return fmt.Errorf("device %q: %w", name, err)
	}
	return nil
}

// releaseNICs takes the reservations back.
func (n *Node) releaseNICs(ctx context.Context, inst Instance) {
	for _, name := range deviceNames(inst.Devices) {
		device := inst.Devices[name]
		if managed := managedNIC(inst, device); device["type"] == "nic" && managed != "" {
			if err := n.cfg.Networks.Release(ctx, managed, inst.HostName()+"."+name); err != nil {
				n.log.Warn("release address", "instance", inst.HostName(), "device", name, "error", err)
			}
		}
	}
}
