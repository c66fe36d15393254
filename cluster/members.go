package cluster

import (
	"context"
	"fmt"
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
	// Database says that it votes, or stands by to do so: one that is offline does not, once
	// another has its vote.
	Database bool
	// Status is "Online", "Offline", "Evacuated", "Unreachable" or "Blocked"; Message says
	// more.
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
func (c *Cluster) Member(_ context.Context, name string) (MemberInfo, error) {
	m, err := c.store.View().Member(name)
	if err != nil {
		return MemberInfo{}, err
	}
	return c.memberInfo(m), nil
}

func (c *Cluster) memberInfo(m *state.Member) MemberInfo {
	info := c.judged(m)
	if c.Clustered() {
		c.judge(&info, m)
		c.ail(&info)
	}
	return info
}

// judged is a member as the coordinator's last verdict has it.
func (c *Cluster) judged(m *state.Member) MemberInfo {
	info := MemberInfo{Member: m, Roles: []string{}, Status: "Online", Message: "Fully operational"}
	known, found := c.cfg.Coord.Member(m.ID)
	if m.Config[store.LostKey] != "" {
		info.Status = "Offline"
		info.Message = "It was given up when the cluster was recovered: remove it with force, which forgets its instances"
		return info
	}
	// Whoever says this is there, whatever is recorded of it.
	self := m.ID == c.cfg.MemberID
	if !found && self && !store.Joining(m) {
		info.Message = "It is becoming a database member"
		return info
	}
	if !found {
		info.Status, info.Message = "Offline", "It is joining"
		if store.Joining(m) {
			info.Message = fmt.Sprintf("It was admitted and has not come yet: its join is taken back when it stays silent for %v", joinPatience)
		}
		return info
	}
	if c.store.LeaderSeen() == m.ID {
		info.Roles = append(info.Roles, roleLeader)
	}
	info.Roles = append(info.Roles, known.Roles...)
	role := roleOf(known)
	info.Database = role == store.Voter || role == store.Standby && known.Verdict != coord.Offline
	if c.cfg.Coord.Coordinator().Member == m.ID {
		info.Roles = append(info.Roles, roleCoordinator)
	}
	if store.Witness(m) {
		info.Roles = append(info.Roles, roleWitness)
	}
	verdict := known.Verdict
	if verdict == coord.Offline && self {
		verdict = coord.Online
	}
	switch verdict {
	case coord.Offline:
		info.Status = "Offline"
		info.Message = fmt.Sprintf("No answer since %s", known.Since.Local().Format(time.DateTime))
		if known.Pending && !Controls(known) {
			info.Message += "; another takes its part of the database"
		}
	case coord.Evacuated:
		info.Status, info.Message = "Evacuated", "Unavailable due to maintenance"
	case coord.Online:
		if known.Pending && Controls(known) {
			info.Message = "It is becoming a database member"
		} else if known.Pending {
			info.Message = "It gives its part of the database up"
		}
		if err := partsFailed(c.store.View(), m.Name); err != nil {
			info.Message = "Not fully operational: " + err.Error()
		}
		if store.Joining(m) {
			info.Message = "It is joining: it makes its storage pools and networks"
		}
		if mark, _ := store.Leaving(m); mark != "" {
			info.Message = "It is being removed"
		}
	}
	return info
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
	if set := c.store.View().Setting(c.Self(), addressKey); named(set) {
		leads, err := ReachableAddress(ctx, set)
		if err != nil {
			return err
		}
		// A name may lead to several addresses.
		if err := c.cfg.Listen(ctx, leads); err != nil {
			return fmt.Errorf("%s: %w", addressKey, err)
		}
		address = leads
	}
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

// MemberChange is what users may edit of a member; it replaces all of it but an empty
// Domain and nil Groups.
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
	if change.Groups != nil && len(change.Groups) == 0 {
		return state.Errorf(state.ErrInvalid, "field \"groups\" is empty: a member is in one cluster group at least, %q if in no other", state.DefaultGroup)
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
