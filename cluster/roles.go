package cluster

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"muster/cluster/coord"
	"muster/state"
	"muster/state/store"
)

// The roles of a member as the coordination log and clients name them.
const (
	roleDatabase = "database"
	roleStandby  = "database-standby"
	// These two follow from who leads; the log does not hold them.
	roleLeader      = "database-leader"
	roleCoordinator = "coordinator"
)

// Roles are all that a member can have; the cluster gives them.
var Roles = []string{roleDatabase, roleStandby, roleLeader, roleCoordinator}

// How many members vote and stand by unless the settings say otherwise
// (DESIGN.md §1).
const (
	defaultVoters  = 3
	defaultStandby = 4
)

// rolesEvery is how often the members' roles are looked at.
const rolesEvery = 300 * time.Millisecond

// decideRoles says which members vote, which stand by and which do neither. Those
// that vote go on doing so while they are online; one that is not is replaced as soon
// as another can be. The number of votes is odd and goes by all members, never by
// those that happen to be online: two of three are still a majority of three.
//
// Members that are leaving lose their part before they go, as long as others are left.
func decideRoles(members []coord.Member, leaving map[string]bool, maxVoters, maxStandby int) map[string]store.Role {
	decided := map[string]store.Role{}
	ranked := slices.DeleteFunc(slices.Clone(members), func(m coord.Member) bool { return leaving[m.ID] })
	if len(ranked) == 0 {
		ranked = slices.Clone(members)
	}
	for _, m := range members {
		decided[m.ID] = store.Spare
	}
	want := min(len(ranked), maxVoters)
	if want%2 == 0 {
		want--
	}
	rank := func(m coord.Member) int {
		online := m.Verdict != coord.Offline
		switch {
		case online && slices.Contains(m.Roles, roleDatabase):
			return 0
		case online && slices.Contains(m.Roles, roleStandby):
			return 1
		case online:
			return 2
		// Nobody can take its place.
		case slices.Contains(m.Roles, roleDatabase):
			return 3
		}
		return 4
	}
	slices.SortFunc(ranked, func(a, b coord.Member) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.ID, b.ID))
	})
	for i, m := range ranked {
		switch {
		case i < max(want, 1):
			decided[m.ID] = store.Voter
		case i < want+maxStandby && m.Verdict != coord.Offline:
			decided[m.ID] = store.Standby
		default:
			decided[m.ID] = store.Spare
		}
	}
	return decided
}

func rolesOf(role store.Role) []string {
	switch role {
	case store.Voter:
		return []string{roleDatabase}
	case store.Standby:
		return []string{roleStandby}
	}
	return nil
}

func roleOf(m coord.Member) store.Role {
	switch {
	case slices.Contains(m.Roles, roleDatabase):
		return store.Voter
	case slices.Contains(m.Roles, roleStandby):
		return store.Standby
	}
	return store.Spare
}

// tendRoles keeps both logs' members what they should be. The coordinator takes the
// list of members over from the state plane and decides their roles; whoever leads a
// log carries the decision out there. Each step goes on from what it finds, so it
// does not matter who began.
func (c *Cluster) tendRoles(ctx context.Context) error {
	ticker := time.NewTicker(rolesEvery)
	defer ticker.Stop()
	for {
		if err := c.tendRolesOnce(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("bring the members' roles in order", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (c *Cluster) tendRolesOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if !c.Clustered() {
		return nil
	}
	if _, leading := c.cfg.Coord.Leading(); leading {
		if err := c.decide(ctx); err != nil {
			return err
		}
	}
	leader, err := c.store.Leader(ctx)
	if err != nil || leader != c.cfg.MemberID {
		return nil // an election is under way, or its winner does it
	}
	// A member that dies while it is made a voter blocks the database's list of members
	// for a while; the coordination log's must not wait for that.
	ctx, cancel = context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c.assignDatabase(ctx)
}

// decide makes the log's members those of the state plane, and gives them roles.
func (c *Cluster) decide(ctx context.Context) error {
	view := c.store.View()
	if err := c.takeOver(ctx, view); err != nil {
		return err
	}
	members := c.cfg.Coord.Members()
	leaving := map[string]bool{}
	for _, m := range view.Members() {
		leaving[m.ID] = m.Config[store.LeavingKey] != "" || m.Config[store.LostKey] != ""
	}
	wanted := map[string]bool{}
	for id, role := range decideRoles(members, leaving, c.setting(view, "cluster.max_voters", defaultVoters), c.setting(view, "cluster.max_standby", defaultStandby)) {
		wanted[id] = role == store.Voter
		i := slices.IndexFunc(members, func(m coord.Member) bool { return m.ID == id })
		if m := members[i]; roleOf(m) != role {
			c.log.Info("a member's role changes", "member", m.Name, "role", role)
			if _, err := c.cfg.Coord.Propose(ctx, coord.PutMember{ID: id, Name: m.Name, Address: m.Address, Roles: rolesOf(role), At: c.now()}); err != nil {
				return err
			}
		}
	}
	if err := c.cfg.Coord.Assign(ctx, wanted); err != nil {
		return err
	}
	if !wanted[c.cfg.MemberID] {
		return c.cfg.Coord.HandOver(ctx)
	}
	return nil
}

// takeOver makes the coordination log's list of members the state plane's.
func (c *Cluster) takeOver(ctx context.Context, view *store.View) error {
	for _, m := range view.Members() {
		known, found := c.cfg.Coord.Member(m.ID)
		if found && known.Name == m.Name && known.Address == m.Address {
			continue
		}
		if !found && m.ID != c.cfg.MemberID && !c.answers(ctx, m.ID) {
			// A vote for one that is not there would be one against all others.
			continue
		}
		if _, err := c.cfg.Coord.Propose(ctx, coord.PutMember{ID: m.ID, Name: m.Name, Address: m.Address, Roles: known.Roles, At: c.now()}); err != nil {
			return err
		}
	}
	for _, m := range c.cfg.Coord.Members() {
		if _, err := view.MemberByID(m.ID); err == nil {
			continue
		}
		// A View that is behind must not throw anybody out.
		if err := c.store.Barrier(ctx); err != nil {
			return err
		}
		if _, err := c.store.View().MemberByID(m.ID); err == nil {
			continue
		}
		if _, err := c.cfg.Coord.Propose(ctx, coord.RemoveMember{ID: m.ID, At: c.now()}); err != nil {
			return err
		}
	}
	return nil
}

// answers reports whether a member that has joined is up by now.
func (c *Cluster) answers(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return c.cfg.Pinger.Ping(ctx, id) == nil
}

// assignDatabase carries the roles out in the database's log.
func (c *Cluster) assignDatabase(ctx context.Context) error {
	wanted := map[string]store.Role{}
	for _, m := range c.cfg.Coord.Members() {
		wanted[m.ID] = roleOf(m)
	}
	if len(wanted) == 0 {
		return nil
	}
	present, err := c.store.Roles(ctx)
	if err != nil || maps.Equal(present, wanted) {
		return err
	}
	if wanted[c.cfg.MemberID] == store.Voter {
		return c.store.Assign(ctx, wanted)
	}
	// Another must lead before this one can lose its vote, and have one for that.
	wanted[c.cfg.MemberID] = store.Voter
	if err := c.store.Assign(ctx, wanted); err != nil {
		return err
	}
	return c.store.HandOver(ctx)
}

// setting reads a number from the cluster's settings.
func (c *Cluster) setting(view *store.View, key string, otherwise int) int {
	if number, err := strconv.Atoi(view.Setting("", key)); err == nil {
		return number
	}
	return otherwise
}

// errAlone is what a member without others answers to what needs a cluster.
func errAlone() error {
	return state.Errorf(state.ErrInvalid, "this server is not clustered: \"lxc cluster enable NAME\" makes it the first member of a cluster")
}
