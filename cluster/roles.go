package cluster

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
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
	// roleWitness is a member's own choice.
	roleWitness = "witness"
)

// Roles are all that a member can have; the cluster gives them, and a member that is
// started as a witness is one.
var Roles = []string{roleDatabase, roleStandby, roleLeader, roleCoordinator, roleWitness}

// How many members vote and stand by unless the settings say otherwise
// (LXD: "Server configuration").
const (
	defaultVoters  = 3
	defaultStandby = 2
)

// rolesEvery is how often the members' roles are looked at.
const rolesEvery = 300 * time.Millisecond

// decideRoles says which members vote and which stand by; all others are workers. Those
// that vote go on doing so while they are online; one that is not is replaced as soon
// as another can be. The number of votes is odd and goes by all members, never by
// those that happen to be online: two of three are still a majority of three. One that
// stands by keeps its place while nobody else wants it, so that a member which starts
// anew need not begin with an empty log.
//
// A witness that is online votes before all others. The other votes are spread over
// failure domains, by member ID; members that are in none, or in the default one, fail on
// their own.
//
// The vote of one whose log can't be written (sick) goes to a member that is well.
//
// Members that are leaving lose their part before they go, as long as others are left.
func decideRoles(members []coord.Member, leaving, witnesses, sick map[string]bool, domains map[string]string, maxVoters, maxStandby int) map[string]store.Role {
	decided := map[string]store.Role{}
	ranked := slices.DeleteFunc(slices.Clone(members), func(m coord.Member) bool { return leaving[m.ID] })
	if len(ranked) == 0 {
		ranked = slices.Clone(members)
	}
	for _, m := range members {
		decided[m.ID] = store.Worker
	}
	want := min(len(ranked), maxVoters)
	if want%2 == 0 {
		want--
	}
	rank := func(m coord.Member) int {
		online := m.Verdict != coord.Offline && !sick[m.ID]
		switch role := roleOf(m); {
		case online && role == store.Voter:
			return 0
		case online && role == store.Standby:
			return 1
		case online:
			return 2
		// Nobody can take its place.
		case role == store.Voter:
			return 3
		case role == store.Standby:
			return 4
		}
		return 5
	}
	better := func(a, b coord.Member) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.ID, b.ID))
	}
	voting := map[string]int{} // by failure domain
	crowd := func(m coord.Member) int {
		if domain := domains[m.ID]; domain != "" && domain != state.DefaultDomain {
			return voting[domain]
		}
		return 0
	}
	first := func(a, b coord.Member) int {
		switch {
		case witnesses[a.ID] == witnesses[b.ID]:
			return 0
		case witnesses[a.ID]:
			return -1
		}
		return 1
	}
	for range max(want, 1) {
		// Whoever is there comes first, then witnesses, then who is alone in its domain.
		best := slices.MinFunc(ranked, func(a, b coord.Member) int {
			return cmp.Or(cmp.Compare(rank(a)/3, rank(b)/3), first(a, b), cmp.Compare(crowd(a), crowd(b)), better(a, b))
		})
		decided[best.ID] = store.Voter
		voting[domains[best.ID]]++
		ranked = slices.DeleteFunc(ranked, func(m coord.Member) bool { return m.ID == best.ID })
	}
	slices.SortFunc(ranked, better)
	for i, m := range ranked {
		if i < maxStandby && rank(m) < 5 {
			decided[m.ID] = store.Standby
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
	return store.Worker
}

// RoleOf is what the cluster has decided that a member does for both logs.
func RoleOf(m coord.Member) store.Role { return roleOf(m) }

// SeatRoles are the roles that say the same as who votes in the coordination log.
func SeatRoles(seats map[string]bool) map[string]store.Role {
	roles := map[string]store.Role{}
	for id, votes := range seats {
		roles[id] = store.Standby
		if votes {
			roles[id] = store.Voter
		}
	}
	return roles
}

// Controls reports whether the cluster has made a member one that has both logs.
func Controls(m coord.Member) bool { return roleOf(m) != store.Worker }

// tendRoles keeps both logs' members what they should be. The coordinator takes the
// list of members over from the state plane and decides their roles; whoever leads a
// log carries the decision out there. Each step goes on from what it finds, so it
// does not matter who began.
func (c *Cluster) tendRoles(ctx context.Context) error {
	ticker := time.NewTicker(rolesEvery)
	defer ticker.Stop()
	var joining joins
	for {
		if err := c.tendRolesOnce(ctx, &joining); err != nil && ctx.Err() == nil {
			c.log.Warn("bring the members' roles in order", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (c *Cluster) tendRolesOnce(ctx context.Context, joining *joins) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if !c.Clustered() {
		return nil
	}
	if _, leading := c.cfg.Coord.Leading(); leading {
		if err := joining.tend(ctx, c, c.store.View()); err != nil {
			return err
		}
		if err := c.decide(ctx); err != nil {
			return err
		}
	} else {
		joining.forget()
	}
	if part, err := c.store.Part(ctx); err != nil || part == state.PartNone {
		return err
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
	wanted := c.wantedRoles(view, members)
	for _, m := range members {
		if role := wanted[m.ID]; roleOf(m) != role {
			c.log.Info("a member's role changes", "member", m.Name, "role", role)
			if err := c.putMember(ctx, m, role, true); err != nil {
				return err
			}
		}
	}
	if err := c.assignCoord(ctx, wanted); err != nil {
		return err
	}
	if err := c.noteSettled(ctx); err != nil {
		return err
	}
	if wanted[c.cfg.MemberID] != store.Voter {
		return c.cfg.Coord.HandOver(ctx)
	}
	return nil
}

// wantedRoles is what decideRoles makes of what is known now.
func (c *Cluster) wantedRoles(view *store.View, members []coord.Member) map[string]store.Role {
	leaving, witnesses, domains := map[string]bool{}, map[string]bool{}, map[string]string{}
	for _, m := range view.Members() {
		domains[m.ID], witnesses[m.ID] = m.Domain, store.Witness(m)
		leaving[m.ID] = m.Config[store.LeavingKey] != "" || m.Config[store.LostKey] != ""
	}
	members = slices.Clone(members)
	for i := range members {
		if c.goers.has(members[i].ID) {
			members[i].Verdict = coord.Offline // as it soon will be
		}
	}
	return decideRoles(members, leaving, witnesses, c.sick(members), domains, c.setting(view, "cluster.max_voters", defaultVoters), c.setting(view, "cluster.max_standby", defaultStandby))
}

// putMember records a member's role; pending says that it is not carried out yet.
func (c *Cluster) putMember(ctx context.Context, m coord.Member, role store.Role, pending bool) error {
	_, err := c.cfg.Coord.Propose(ctx, coord.PutMember{
		ID: m.ID, Name: m.Name, Address: m.Address, Roles: rolesOf(role), Pending: pending, At: c.now(),
	})
	return err
}

// voters are those that vote, in order.
func voters(roles map[string]store.Role) []string {
	var ids []string
	for id, role := range roles {
		if role == store.Voter {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// agreed reports whether all members that are to vote and are online say of both logs
// that exactly they, and those of them that are offline, vote. Only then can the next one
// be lost: a change of the logs' members that their leader alone has may still count the
// dead, and the database's library lets nobody vote who has not heard that it may.
func (c *Cluster) agreed(ctx context.Context, members []coord.Member) bool {
	wanted := map[string]store.Role{}
	for _, m := range members {
		wanted[m.ID] = roleOf(m)
	}
	ids := voters(wanted)
	var asking sync.WaitGroup
	var differs atomic.Bool
	for _, m := range members {
		if roleOf(m) != store.Voter || m.Verdict == coord.Offline {
			continue
		}
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			ask := func() (state.Parts, error) { return c.cfg.Pinger.Parts(ctx, m.ID) }
			if m.ID == c.cfg.MemberID {
				ask = func() (state.Parts, error) { return c.Parts(ctx) }
			}
			if held, err := ask(); err != nil || !slices.Equal(held.CoordVoters, ids) || !slices.Equal(held.DatabaseVoters, ids) {
				differs.Store(true)
			}
		})
	}
	asking.Wait()
	return !differs.Load()
}

// noteSettled records whose role has been carried out in both logs, for all to see. One
// that becomes a voter has become one when all voters agree on who they are.
func (c *Cluster) noteSettled(ctx context.Context) error {
	seats, err := c.coordRoles()
	if err != nil {
		return err
	}
	nodes, err := c.store.Roles(ctx)
	if err != nil {
		return nil //nolint:nilerr // the database is not this member's now; its leader goes on
	}
	members := c.cfg.Coord.Members()
	agreed := sync.OnceValue(func() bool { return c.agreed(ctx, members) })
	for _, m := range members {
		role := roleOf(m)
		held := func(roles map[string]store.Role) bool {
			present, there := roles[m.ID]
			return there && present == role || !there && role == store.Worker
		}
		pending := !held(seats) || !held(nodes) || m.Pending && role == store.Voter && !agreed()
		if pending != m.Pending {
			if err := c.putMember(ctx, m, role, pending); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeOver makes the coordination log's list of members the state plane's.
func (c *Cluster) takeOver(ctx context.Context, view *store.View) error {
	var news []*state.Member
	for _, m := range view.Members() {
		known, found := c.cfg.Coord.Member(m.ID)
		if found && known.Name == m.Name && known.Address == m.Address {
			continue
		}
		if !found {
			news = append(news, m)
			continue
		}
		known.Name, known.Address = m.Name, m.Address
		if err := c.putMember(ctx, known, roleOf(known), known.Pending); err != nil {
			return err
		}
	}
	// What they are in the log is what they go on from: else a second member that joins before
	// the first is recorded would be as good a voter, and take its vote.
	seats, err := c.coordRoles()
	if err != nil {
		return err
	}
	// One that is not there yet would be declared offline at once.
	for _, m := range c.present(ctx, news) {
		role, there := seats[m.ID]
		if !there {
			role = store.Worker
		}
		if err := c.putMember(ctx, coord.Member{ID: m.ID, Name: m.Name, Address: m.Address}, role, true); err != nil {
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

// present returns those of the members that have joined which are up by now; they are
// asked all at once.
func (c *Cluster) present(ctx context.Context, members []*state.Member) []*state.Member {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	answers := make([]bool, len(members))
	var asking sync.WaitGroup
	for i, m := range members {
		asking.Go(func() { answers[i] = m.ID == c.cfg.MemberID || c.cfg.Pinger.Ping(ctx, m.ID) == nil })
	}
	asking.Wait()
	var up []*state.Member
	for i, m := range members {
		if answers[i] {
			up = append(up, m)
		}
	}
	return up
}

// coordRoles is what the members are in the coordination log, as this member has it.
func (c *Cluster) coordRoles() (map[string]store.Role, error) {
	seats, err := c.cfg.Coord.Seats()
	return SeatRoles(seats), err
}

// assignCoord carries the roles out in the coordination log.
func (c *Cluster) assignCoord(ctx context.Context, wanted map[string]store.Role) error {
	c.seating.coord.Lock()
	defer c.seating.coord.Unlock()
	present, err := c.coordRoles()
	if err != nil {
		return err
	}
	seats := map[string]bool{}
	for id, role := range c.plan(ctx, wanted, present, func(parts state.Parts) state.Part { return parts.Coord }) {
		seats[id] = role == store.Voter
	}
	return c.cfg.Coord.Assign(ctx, seats)
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
	c.seating.database.Lock()
	defer c.seating.database.Unlock()
	present, err := c.store.Roles(ctx)
	if err != nil {
		return err
	}
	plan := c.plan(ctx, wanted, present, func(parts state.Parts) state.Part { return parts.Database })
	if maps.Equal(present, plan) {
		return nil
	}
	if plan[c.cfg.MemberID] == store.Voter {
		return c.store.Assign(ctx, plan)
	}
	// Another must lead before this one can lose its vote, and have one for that.
	plan[c.cfg.MemberID] = store.Voter
	if err := c.store.Assign(ctx, plan); err != nil {
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
