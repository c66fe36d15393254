package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
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
	if m.Config[store.LostKey] != "" {
		info.Status = "Offline"
		info.Message = "It was given up when the cluster was recovered: remove it with force, which forgets its instances"
		return info
	}
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
		if known.Pending && Controls(known) {
			info.Message = "It is becoming a database member"
		} else if known.Pending {
			info.Message = "It gives its part of the database up"
		}
	}
	return info
}

// Online reports whether the cluster takes the member for alive. One that has not
// been judged yet is.
func (c *Cluster) Online(memberID string) bool {
	if c.cfg.Coord == nil {
		return true // alone
	}
	if m, err := c.store.View().MemberByID(memberID); err == nil && m.Config[store.LostKey] != "" {
		return false
	}
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
	return c.apply(ctx, store.SetMemberFacts{
		Name: name, Address: address, Architecture: hostArchitecture(), Capacity: c.node.Capacity(),
		Certificate: string(c.cfg.Identity.Member().CertificatePEM), Hint: store.Hint{Action: "cluster-enabled"},
	})
}

// tellFacts records what this machine is, when that has changed since it was recorded.
// It returns when ctx ends.
func (c *Cluster) tellFacts(ctx context.Context) error {
	ticker := time.NewTicker(factsEvery)
	defer ticker.Stop()
	for {
		if err := c.tellFactsOnce(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("record what this machine has to give", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// factsEvery is how often a machine is looked at for processors, memory or disk space
// that came or went.
const factsEvery = time.Minute

func (c *Cluster) tellFactsOnce(ctx context.Context) error {
	self, err := c.store.View().MemberByID(c.cfg.MemberID)
	if err != nil {
		return err
	}
	capacity, architecture := c.node.Capacity(), hostArchitecture()
	if self.Capacity == capacity && self.Architecture == architecture {
		return nil
	}
	return c.apply(ctx, store.SetMemberFacts{Name: self.Name, Architecture: architecture, Capacity: capacity})
}

// UsableAddress refuses addresses at which no other member could reach this one.
func UsableAddress(address string) error { return usable(address) }

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

// MemberChange is what users may edit of a member; it replaces all of it but an empty
// Domain and Groups.
type MemberChange struct {
	Description string
	Config      state.Config
	Domain      string
	Groups      []string
}

// UpdateMember replaces what users may edit of a member; see UpdateInstance for expect.
func (c *Cluster) UpdateMember(ctx context.Context, name string, change MemberChange, expect state.Revision) error {
	if err := state.ValidateMemberConfig(change.Config); err != nil {
		return err
	}
	if change.Domain != "" {
		if err := state.ValidateDomainName(change.Domain); err != nil {
			return err
		}
	}
	return c.apply(ctx, store.UpdateMember{
		Name: name, Description: change.Description, Config: change.Config, Domain: change.Domain, Groups: change.Groups, ExpectRevision: expect,
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
// that is online gives up its parts of pools and networks first, and becomes a server of
// its own again; one that is offline is removed with force only, because it can't be
// told.
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
	if m.ID == c.cfg.MemberID {
		return c.removeThroughAnother(ctx, view, name, force)
	}
	online, lost := c.Online(m.ID), m.Config[store.LostKey] != ""
	if lost && force {
		return c.apply(ctx, store.DeleteMember{Name: name, Instances: true})
	}
	if !force && !online {
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
	if !online {
		return c.apply(ctx, store.DeleteMember{Name: name})
	}
	if err := c.clear(ctx, m); err != nil {
		if !force {
			c.stay(ctx, name)
			return err
		}
		c.log.Warn("a member is removed with what it has", "member", name, "error", err)
	}
	forget := c.cfg.Remember(m.ID)
	defer forget()
	if err := c.apply(ctx, store.DeleteMember{Name: name}); err != nil {
		return err
	}
	if err := c.tellRemoved(ctx, name); err != nil {
		c.log.Warn("tell a member that it was removed: delete its directory before it joins again", "member", name, "error", err)
	}
	return nil
}

// tellRemoved tells a member that it was removed. The connections to it are being cut at
// this moment, so it may take more than one.
func (c *Cluster) tellRemoved(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for {
		err := c.cfg.Remote.Request(ctx, name, "POST", "/internal/leave", struct{}{}, nil)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// removeThroughAnother lets another member remove this one.
func (c *Cluster) removeThroughAnother(ctx context.Context, view *store.View, name string, force bool) error {
	for _, other := range view.Members() {
		if other.ID == c.cfg.MemberID || !c.Online(other.ID) {
			continue
		}
		path := resource("", "cluster", "members", name)
		if force {
			path += "?force=1"
		}
		return c.cfg.Remote.Request(ctx, other.Name, "DELETE", path, nil, nil)
	}
	return state.Errorf(state.ErrUnavailable, "no other member is online to remove member %q", name)
}

// clear waits until a member takes no part in the consensus and has given up its parts
// of all pools and networks.
func (c *Cluster) clear(ctx context.Context, m *state.Member) error {
	name := m.Name
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.apply(ctx, store.ClearMember{Name: name}); err != nil {
		return err
	}
	var failed string
	err := c.until(ctx, func(view *store.View) bool {
		left := false
		look := func(what string, locals state.Locals) {
			local, there := locals[name]
			left = left || there
			if local.Message != "" {
				failed = fmt.Sprintf("%s: %s", what, local.Message)
			}
		}
		for _, pool := range view.Pools() {
			look(poolSubject(pool.Name), pool.Locals)
		}
		for _, network := range view.Networks("") {
			look(networkSubject(network.Name), network.Locals)
		}
		return !left || failed != ""
	})
	if failed != "" {
		return state.Errorf(state.ErrConflict, "member %q can't give up what it has: %s; use force to remove it all the same", name, failed)
	}
	if err != nil {
		return err
	}
	for {
		out, err := c.askLeft(ctx, state.LogCoord, m.ID)
		if out && err == nil {
			out, err = c.askLeft(ctx, state.LogDatabase, m.ID)
		}
		if out && err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return state.Errorf(state.ErrUnavailable, "member %q still takes part in the consensus: %w", name, cmp.Or(err, ctx.Err()))
		}
	}
}

// stay takes the mark back from a member whose removal failed.
func (c *Cluster) stay(ctx context.Context, name string) {
	m, err := c.store.View().Member(name)
	if err == nil {
		config := maps.Clone(m.Config)
		delete(config, store.LeavingKey)
		err = c.finish(ctx, store.UpdateMember{Name: name, Description: m.Description, Config: config, Hint: store.Hint{Action: store.NoEvent}})
	}
	if err != nil {
		c.log.Error("take back the removal of a member", "member", name, "error", err)
	}
}
