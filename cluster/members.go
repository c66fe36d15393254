package cluster

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// MemberInfo is a member as users see it: what is recorded of it, and how it is.
type MemberInfo struct {
	*state.Member
	// Roles are database, database-standby, database-leader and coordinator, as far
	// as they apply.
	Roles []string
	// Status is "Online", "Offline" or "Evacuated"; Message says more.
	Status  string
	Message string
}

// Clustered reports whether this member is in a cluster, be it alone.
func (c *Cluster) Clustered() bool {
	self, err := c.store.View().MemberByID(c.cfg.MemberID)
	return err == nil && self.Address != ""
}

// Host is the member that has the storage pools, the networks and so the instances:
// the one that began the cluster.
func (c *Cluster) Host() string {
	members := c.store.View().Members()
	first := slices.MinFunc(members, func(a, b *state.Member) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return first.Name
}

// hosts reports whether this member is the Host.
func (c *Cluster) hosts() bool { return c.Host() == c.Self() }

// errNoHost refuses to put something on a member that has no storage.
func (c *Cluster) errNoHost() error {
	return state.Errorf(state.ErrConflict, "member %q has no storage pools and networks: instances, images, pools and networks are on member %q only, until those of a cluster can differ from member to member", c.Self(), c.Host())
}

// Needed reports whether this member has to run even when no client calls: it is
// reachable over the network, in a cluster, or has instances that run or are to be
// started.
func (c *Cluster) Needed() bool {
	view := c.store.View()
	if c.Clustered() || view.Setting(c.Self(), "core.https_address") != "" {
		return true
	}
	return slices.ContainsFunc(view.InstancesOn(c.Self()), func(inst *state.Instance) bool {
		expanded, err := nodeInstance(view, inst)
		autostart, set := "", false
		if err == nil {
			autostart, set = expanded.Config["boot.autostart"]
		}
		start, _ := state.ParseBool(autostart)
		return inst.Status != state.StatusStopped || start || !set && inst.Config["volatile.last_state.power"] == "RUNNING"
	})
}

// Members returns all members, ordered by name.
func (c *Cluster) Members(context.Context) []MemberInfo {
	members := c.store.View().Members()
	infos := make([]MemberInfo, len(members))
	for i, m := range members {
		infos[i] = c.memberInfo(m)
	}
	return infos
}

// Member returns the member of that name.
func (c *Cluster) Member(ctx context.Context, name string) (MemberInfo, error) {
	m, err := found(ctx, c, func(v *store.View) (*state.Member, error) { return v.Member(name) })
	if err != nil {
		return MemberInfo{}, err
	}
	return c.memberInfo(m), nil
}

func (c *Cluster) memberInfo(m *state.Member) MemberInfo {
	info := MemberInfo{Member: m, Roles: []string{}, Status: "Online", Message: "Fully operational"}
	known, found := c.cfg.Coord.Member(m.ID)
	if !found {
		info.Status, info.Message = "Offline", "It is joining"
		return info
	}
	if c.store.LeaderSeen() == m.ID {
		info.Roles = append(info.Roles, roleLeader)
	}
	info.Roles = append(info.Roles, known.Roles...)
	if c.cfg.Coord.Coordinator().Member == m.ID {
		info.Roles = append(info.Roles, roleCoordinator)
	}
	switch known.Verdict {
	case coord.Offline:
		info.Status = "Offline"
		info.Message = fmt.Sprintf("No answer since %s", known.Since.Local().Format(time.DateTime))
	case coord.Evacuated:
		info.Status, info.Message = "Evacuated", "Unavailable due to maintenance"
	case coord.Online:
	}
	return info
}

// Online reports whether the cluster takes the member for alive. One that has not
// been judged yet is.
func (c *Cluster) Online(memberID string) bool {
	known, found := c.cfg.Coord.Member(memberID)
	return !found || known.Verdict != coord.Offline
}

// EnableCluster makes this server the first member of a cluster, in place: it keeps
// what it has and runs. The API must listen on an address that others can use.
func (c *Cluster) EnableCluster(ctx context.Context, name string) error {
	if c.Clustered() {
		return state.Errorf(state.ErrConflict, "this server is in a cluster already, as member %q", c.Self())
	}
	if err := state.ValidateMemberName(name); err != nil {
		return err
	}
	address := c.cfg.Address()
	if err := usable(address); err != nil {
		return err
	}
	if self := c.Self(); self != name {
		if err := c.apply(ctx, store.RenameMember{Name: self, NewName: name}); err != nil {
			return err
		}
	}
	self, err := c.store.View().MemberByID(c.cfg.MemberID)
	if err != nil {
		return err
	}
	return c.apply(ctx, store.UpdateMember{
		Name: name, Address: address, Architecture: hostArchitecture(), Description: self.Description, Config: self.Config,
		Certificate: string(c.cfg.Identity.Member().CertificatePEM),
	})
}

// usable refuses addresses at which no other member could reach this one.
func usable(address string) error {
	host, _, err := net.SplitHostPort(address)
	if address == "" || err != nil {
		return state.Errorf(state.ErrInvalid, "the API listens on no address: set core.https_address to one that the other members can reach, such as 192.0.2.7:8443")
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		return state.Errorf(state.ErrInvalid, "core.https_address is %q: the members of a cluster need the very address at which they reach each other, such as 192.0.2.7:8443", address)
	}
	return nil
}

// UpdateMember replaces a member's description and configuration; see
// UpdateInstance for expect.
func (c *Cluster) UpdateMember(ctx context.Context, name, description string, config state.Config, expect state.Revision) error {
	m, err := found(ctx, c, func(v *store.View) (*state.Member, error) { return v.Member(name) })
	if err != nil {
		return err
	}
	if err := state.ValidateMemberConfig(config); err != nil {
		return err
	}
	return c.apply(ctx, store.UpdateMember{
		Name: name, Address: m.Address, Architecture: m.Architecture, Description: description, Config: config,
		Certificate: m.Certificate, ExpectRevision: expect,
	})
}

// RenameMember gives a member another name.
func (c *Cluster) RenameMember(ctx context.Context, name, newName string) error {
	if !c.Clustered() {
		return errAlone()
	}
	if err := state.ValidateMemberName(newName); err != nil {
		return err
	}
	return c.apply(ctx, store.RenameMember{Name: name, NewName: newName})
}

// RemoveMember takes a member out of the cluster for good: it loses its vote, its
// connections are cut and it is refused from then on. It must have no instances. One
// that is offline is removed with force only, because it cannot be told.
func (c *Cluster) RemoveMember(ctx context.Context, name string, force bool) error {
	if !c.Clustered() {
		return errAlone()
	}
	m, err := found(ctx, c, func(v *store.View) (*state.Member, error) { return v.Member(name) })
	if err != nil {
		return err
	}
	view := c.store.View()
	if len(view.Members()) == 1 {
		return state.Errorf(state.ErrConflict, "member %q is the only one: a cluster keeps at least one", name)
	}
	if !force && !c.Online(m.ID) {
		return state.Errorf(state.ErrConflict, "member %q is offline and can't be told: use force to remove it all the same", name)
	}
	if instances := view.InstancesOn(name); len(instances) > 0 {
		return state.Errorf(state.ErrConflict, "member %q has %d instances, %q among them: move or delete them first", name, len(instances), instances[0].Name)
	}
	for _, image := range view.Images("") {
		if len(image.Members) == 1 && slices.Contains(image.Members, name) && !force {
			return state.Errorf(state.ErrConflict, "image %.12s is on member %q only: delete it, or use force to lose it", image.Fingerprint, name)
		}
	}
	return c.apply(ctx, store.DeleteMember{Name: name})
}
