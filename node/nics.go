package node

import (
	"context"
	"errors"
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

// StartNetwork starts a network that may have been away, and plugs what runs into its bridge.
func (n *Node) StartNetwork(ctx context.Context, made state.Network) error {
	if err := n.cfg.Networks.Start(ctx, made); err != nil {
		return err
	}
	running, err := n.cfg.Runtime.List(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, info := range running {
		spec, err := n.cfg.Runtime.Spec(ctx, info.ID)
		if err != nil {
			n.log.Warn("read what a container runs with", "instance", info.ID, "error", err)
			continue
		}
		for _, nic := range spec.NICs {
			if nic.Kind == runtime.NICVeth && nic.Parent == made.Name && nic.HostName != "" {
				failed = append(failed, n.cfg.Networks.Plug(made.Name, nic.HostName))
			}
		}
	}
	return errors.Join(failed...)
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

// reservations are what the managed networks of this machine keep for the instance's nics.
func reservations(inst Instance) []network.Reservation {
	var wanted []network.Reservation
	for _, name := range deviceNames(inst.Devices) {
		device := inst.Devices[name]
		managed := managedNIC(inst, device)
		if device["type"] != "nic" || managed == "" {
			continue
		}
		hwaddr := HWAddr(inst.Config, name, device)
		if hwaddr == "" {
			continue // it gets one before its first start
		}
		wanted = append(wanted, network.Reservation{
			Network: managed, Device: name, Name: inst.Name, HWAddr: hwaddr,
			IPv4: device["ipv4.address"], IPv6: device["ipv6.address"],
		})
	}
	return wanted
}

// HWAddr is the hardware address that a nic has: its own, or the one that was made up.
func HWAddr(config state.Config, name string, device map[string]string) string {
	if device["hwaddr"] != "" {
		return device["hwaddr"]
	}
	return config["volatile."+name+".hwaddr"]
}

// KeepAddresses makes what the managed networks of this machine keep for the instance what
// its nics ask for: names, addresses, leases. It may be repeated.
func (n *Node) KeepAddresses(ctx context.Context, inst Instance) error {
	return n.cfg.Networks.Keep(ctx, inst.HostName(), reservations(inst))
}

// ReleaseAddresses takes back all that this machine's networks keep for an instance that
// is not here any more. It may be repeated, and is when the daemon starts.
func (n *Node) ReleaseAddresses(ctx context.Context, host string) error {
	return n.cfg.Networks.Keep(ctx, host, nil)
}

// keepAddresses is KeepAddresses for an instance that does not run: its next start fails
// if it can't be done.
func (n *Node) keepAddresses(ctx context.Context, inst Instance) {
	if err := n.KeepAddresses(ctx, inst); err != nil {
		n.log.Warn("keep the addresses of an instance", "instance", inst.HostName(), "error", err)
	}
}

// claimAddresses is keepAddresses that returns what can never be done: an address that is
// another's. A network that does not run is no reason to refuse.
func (n *Node) claimAddresses(ctx context.Context, inst Instance) error {
	err := n.KeepAddresses(ctx, inst)
	if err == nil || errors.Is(err, state.ErrInvalid) {
		return err
	}
	n.log.Warn("keep the addresses of an instance", "instance", inst.HostName(), "error", err)
	return nil
}

// releaseAddresses is ReleaseAddresses on the way out.
func (n *Node) releaseAddresses(ctx context.Context, host string) {
	if err := n.ReleaseAddresses(ctx, host); err != nil {
		n.log.Warn("release the addresses of an instance; it is tried again", "instance", host, "error", err)
	}
}

// AddressOwners are the instances, by their names on this host, that its networks keep
// addresses for.
func (n *Node) AddressOwners() ([]string, error) { return n.cfg.Networks.Owners() }
