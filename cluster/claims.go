package cluster

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"muster/node"
	"muster/state"
	"muster/state/store"
)

// claim is what a nic asks to have alone on a network: an address or a hardware address.
type claim struct {
	network string
	// option is "ipv4.address", "ipv6.address" or "hwaddr".
	option string
	// value is in the one way of writing that compares equal.
	value string
}

var claimOptions = []string{"hwaddr", "ipv4.address", "ipv6.address"}

// claimsOf are the claims of nics to managed networks, by the device that makes each. The
// options that people set count; with all, also hardware addresses that were made up.
func claimsOf(view *store.View, config state.Config, devices state.Devices, all bool) map[claim]string {
	claims := map[claim]string{}
	for name, device := range devices {
		if device["type"] != "nic" {
			continue
		}
		network := device["network"]
		if network == "" && device["nictype"] == "bridged" {
			network = device["parent"]
		}
		if _, err := view.Network(state.DefaultProject, network); err != nil {
			continue
		}
		for _, option := range claimOptions {
			value := device[option]
			if option == "hwaddr" && all {
				value = node.HWAddr(config, name, device)
			}
			if value != "" {
				claims[claim{network, option, canonical(value)}] = name
			}
		}
	}
	return claims
}

// claimsOfInstance are all claims of an instance as it is recorded.
func claimsOfInstance(view *store.View, inst *state.Instance) (map[claim]string, error) {
	config, devices, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
	if err != nil {
		return nil, err
	}
	return claimsOf(view, config, devices, true), nil
}

func canonical(value string) string {
	if address, err := netip.ParseAddr(value); err == nil {
		return address.String()
	}
	if hwaddr, err := net.ParseMAC(value); err == nil {
		return hwaddr.String()
	}
	return value
}

// checkClaims refuses an instance whose nics claim what they can't have: what another
// instance has, wherever that is, or the network itself, or what the network does not
// serve. Claims that are not new are left: those of a copy were its source's, and it is
// the start of one of the two that is refused.
func checkClaims(view *store.View, inst *state.Instance, before map[claim]string) error {
	claims, err := claimsOfInstance(view, inst)
	if err != nil {
		return err
	}
	maps.DeleteFunc(claims, func(c claim, _ string) bool { _, had := before[c]; return had })
	for _, c := range sortedClaims(claims) {
		network, err := view.Network(state.DefaultProject, c.network)
		if err != nil {
			return err
		}
		if err := c.serves(network); err != nil {
			return fmt.Errorf("device %q: %w", claims[c], err)
		}
	}
	holder := func(other *state.Instance) bool { return other.Project != inst.Project || other.Name != inst.Name }
	return taken(view, claims, holder)
}

// taken refuses claims of which an instance has one for which holder holds.
func taken(view *store.View, claims map[claim]string, holder func(*state.Instance) bool) error {
	if len(claims) == 0 {
		return nil
	}
	for _, other := range view.Instances("") {
		if !holder(other) {
			continue
		}
		theirs, err := claimsOfInstance(view, other)
		if err != nil {
			continue
		}
		for _, c := range sortedClaims(claims) {
			if _, clash := theirs[c]; clash {
				return fmt.Errorf("device %q: %w", claims[c], c.heldBy(other))
			}
		}
	}
	return nil
}

func (c claim) heldBy(other *state.Instance) error {
	return state.Errorf(state.ErrInvalid, "%s %s on network %q is that of instance %q (project %s, member %s): choose another",
		c.option, c.value, c.network, other.Name, other.Project, other.Location)
}

func sortedClaims(claims map[claim]string) []claim {
	return slices.SortedFunc(maps.Keys(claims), func(a, b claim) int {
		return strings.Compare(a.network+" "+a.option+" "+a.value, b.network+" "+b.option+" "+b.value)
	})
}

// serves refuses a claim that the network can't serve, or that is its own.
func (c claim) serves(network *state.Network) error {
	refuse := func(format string, args ...any) error {
		return state.Errorf(state.ErrInvalid, "%s %s: %s", c.option, c.value, fmt.Sprintf(format, args...))
	}
	if c.option == "hwaddr" {
		own := []string{network.Config["bridge.hwaddr"]}
		for _, local := range network.Locals {
			own = append(own, local.Config["volatile.bridge.hwaddr"])
		}
		if slices.ContainsFunc(own, func(value string) bool { return value != "" && canonical(value) == c.value }) {
			return refuse("it is the hardware address of network %q itself: choose another", network.Name)
		}
		return nil
	}
	family := strings.TrimSuffix(c.option, ".address")
	subnet, err := netip.ParsePrefix(network.Config[c.option])
	if err != nil {
		return refuse("network %q has no %s: leave the address out, or set %s of the network", network.Name, c.option, c.option)
	}
	address, err := netip.ParseAddr(c.value)
	switch {
	case err != nil || !subnet.Contains(address):
		return refuse("it is not in the subnet %s of network %q", subnet.Masked(), network.Name)
	case address == subnet.Addr():
		return refuse("it is the address of network %q itself, the gateway: choose another", network.Name)
	case address == subnet.Masked().Addr() || address.Is4() && address == lastOf(subnet):
		return refuse("it is no instance's address: the first and the last of the subnet %s of network %q have a meaning of their own", subnet.Masked(), network.Name)
	}
	if value := network.Config[family+".dhcp"]; value != "" {
		if on, _ := state.ParseBool(value); !on {
			return refuse("network %q hands out no addresses: set its %s.dhcp to true, or leave the address out", network.Name, family)
		}
	}
	if on, _ := state.ParseBool(network.Config["ipv6.dhcp.stateful"]); family == "ipv6" && !on {
		return refuse("guests on network %q make their own: set its ipv6.dhcp.stateful to true, or leave the address out", network.Name)
	}
	return nil
}

// lastOf is the last address of a subnet.
func lastOf(subnet netip.Prefix) netip.Addr {
	bytes := subnet.Masked().Addr().AsSlice()
	for i := subnet.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// mayStart refuses to start an instance that claims what another one has that runs or came
// first. Copies come with the claims of their source, and two members may record the same
// claim at once; of all that have it only one can ever run.
func mayStart(view *store.View, inst *state.Instance, expanded node.Instance) error {
	claims := claimsOf(view, expanded.Config, expanded.Devices, false)
	return taken(view, claims, func(other *state.Instance) bool {
		switch {
		case other.Project == inst.Project && other.Name == inst.Name:
			return false
		case other.Status != state.StatusStopped:
			return true
		}
		return earlier(other, inst)
	})
}

// earlier orders instances by when they were made, the same way on every member.
func earlier(a, b *state.Instance) bool {
	if at, bt := a.CreatedAt.Truncate(time.Microsecond), b.CreatedAt.Truncate(time.Microsecond); !at.Equal(bt) {
		return at.Before(bt)
	}
	return a.ID < b.ID
}

// checkProfileClaims refuses a profile that would give one address to two of its users, or
// one that another instance has.
func checkProfileClaims(view *store.View, profile, before *state.Profile) error {
	claims := claimsOf(view, nil, profile.Devices, false)
	had := claimsOf(view, nil, before.Devices, false)
	maps.DeleteFunc(claims, func(c claim, _ string) bool { _, there := had[c]; return there })
	if len(claims) == 0 {
		return nil
	}
	for _, c := range sortedClaims(claims) {
		network, err := view.Network(state.DefaultProject, c.network)
		if err != nil {
			return err
		}
		if err := c.serves(network); err != nil {
			return fmt.Errorf("device %q: %w", claims[c], err)
		}
	}
	users := map[string]*state.Instance{}
	holders := map[claim]*state.Instance{}
	var shared error
	for _, user := range view.ProfileUsers(profile.Project, profile.Name) {
		users[user.Project+"/"+user.Name] = user
		profiles, err := profilesOf(view, user, profile)
		if err != nil {
			return err
		}
		config, devices := state.Expand(profiles, user.Config, user.Devices)
		for _, c := range sortedClaims(claimsOf(view, config, devices, false)) {
			if holder := holders[c]; holder != nil && claims[c] != "" && shared == nil {
				shared = fmt.Errorf("device %q: %w", claims[c], state.Errorf(state.ErrInvalid,
					"instances %q and %q would both have %s %s: set it on the instances", holder.Name, user.Name, c.option, c.value))
			}
			holders[c] = user
		}
	}
	maps.DeleteFunc(claims, func(c claim, _ string) bool { return holders[c] == nil })
	if err := taken(view, claims, func(other *state.Instance) bool { return users[other.Project+"/"+other.Name] == nil }); err != nil {
		return err
	}
	return shared
}

// profilesOf are an instance's profiles, with one of them as it is to be.
func profilesOf(view *store.View, inst *state.Instance, changed *state.Profile) ([]*state.Profile, error) {
	profiles := make([]*state.Profile, 0, len(inst.Profiles))
	for _, name := range inst.Profiles {
		if name == changed.Name {
			profiles = append(profiles, changed)
			continue
		}
		other, err := view.Profile(inst.Project, name)
		if err != nil {
			return nil, err
		}
		profiles = append(profiles, other)
	}
	return profiles, nil
}

// checkNetworkClaims refuses a change of a network that takes away what an instance claims.
func checkNetworkClaims(view *store.View, before, after *state.Network) error {
	for _, inst := range view.Instances("") {
		config, devices, err := expand(view, inst.Project, inst.Profiles, inst.Config, inst.Devices)
		if err != nil {
			continue
		}
		claims := claimsOf(view, config, devices, false)
		for _, c := range sortedClaims(claims) {
			if c.network != after.Name || c.serves(before) != nil {
				continue
			}
			if err := c.serves(after); err != nil {
				return fmt.Errorf("device %q of instance %q: %w", claims[c], inst.Name, err)
			}
		}
	}
	return nil
}
