package cluster

import (
	"context"
	"sync"
	"time"

	"muster/state"
	"muster/state/store"
)

// How a member becomes a control member and a worker again, while it runs. The role that
// the coordinator decides stands in the coordination log, which every member follows.
// A member that is to have the logs opens empty ones, and the leaders take it in when it
// says that they are there. One that is not to have them waits until the leaders have
// left it out, for certain, and removes them. Both logs go their own way, and each step
// goes on from what it finds on the member's disk and in the leader's log, so a crash
// between any two of them changes nothing.

// controlEvery is how often a member compares what it holds with its role, and doubtEvery
// how often one that holds what it should asks whether the log still has it: it may have
// been left out, and taken in again, while it was down.
const (
	controlEvery = 100 * time.Millisecond
	doubtEvery   = 5 * time.Second
)

// seating is what a member does about its own part and those of others.
type seating struct {
	// coord and database are held by a leader that changes who takes part in the log, or
	// says that somebody does not.
	coord, database sync.Mutex

	mu sync.Mutex
	// leaving says that this member is about to drop a log, so that nobody may take it
	// in. Guarded by mu.
	leaving map[state.Log]bool
}

// Parts says what this member holds of both logs, for leaders that would take it in.
func (c *Cluster) Parts(ctx context.Context) (state.Parts, error) {
	database, err := c.store.Part(ctx)
	if err != nil {
		return state.Parts{}, err
	}
	held := state.Parts{Coord: c.cfg.Coord.Part(), Database: database}
	// Who can't say knows of nobody.
	if seats, err := c.coordRoles(); err == nil && held.Coord == state.PartUsed {
		held.CoordVoters = voters(seats)
	}
	if nodes, err := c.store.Roles(ctx); err == nil && held.Database == state.PartUsed {
		held.DatabaseVoters = voters(nodes)
	}
	c.seating.mu.Lock()
	defer c.seating.mu.Unlock()
	if c.seating.leaving[state.LogCoord] {
		held.Coord = state.PartNone
	}
	if c.seating.leaving[state.LogDatabase] {
		held.Database = state.PartNone
	}
	return held, nil
}

// plan is what can be carried out now of the roles that are wanted. A member that is not
// in the log yet must have an empty one, and one that gets a vote must answer: a second
// vote that goes to a member which has just died costs the first one its majority, and
// the database's library then never lets the dead one vote when it is back, because it
// has not heard that it may. As long as one that is to vote can't, nobody loses a vote.
func (c *Cluster) plan(ctx context.Context, wanted, present map[string]store.Role, part func(state.Parts) state.Part) map[string]store.Role {
	plan := map[string]store.Role{}
	waiting := false
	for id, role := range wanted {
		if role == store.Worker {
			continue
		}
		before, there := present[id]
		switch {
		case id == c.cfg.MemberID || there && (role == before || role != store.Voter):
			plan[id] = role
		case there && c.partOf(ctx, id, part) == "":
			plan[id] = before
			waiting = true
		case there || c.partOf(ctx, id, part) == state.PartFresh:
			plan[id] = role
		default:
			waiting = waiting || role == store.Voter
		}
	}
	for id, role := range present {
		if waiting && role == store.Voter {
			plan[id] = role
		}
	}
	return plan
}

// partOf asks another member what it holds; "" when it does not say.
func (c *Cluster) partOf(ctx context.Context, id string, part func(state.Parts) state.Part) state.Part {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	held, err := c.cfg.Pinger.Parts(ctx, id)
	if err != nil {
		return ""
	}
	return part(held)
}

// Left answers another member: whether it is out of a log that this one leads, for
// certain. No one that was told so is taken in before it says that it has dropped what
// it had.
func (c *Cluster) Left(ctx context.Context, log state.Log, id string) (bool, error) {
	if log == state.LogCoord {
		c.seating.coord.Lock()
		defer c.seating.coord.Unlock()
		return c.cfg.Coord.Left(ctx, id)
	}
	c.seating.database.Lock()
	defer c.seating.database.Unlock()
	return c.store.Left(ctx, id)
}

// askLeft asks whoever leads a log whether a member is out of it.
func (c *Cluster) askLeft(ctx context.Context, log state.Log, id string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	leader := c.cfg.Coord.Leader()
	if log == state.LogDatabase {
		var err error
		if leader, err = c.store.Leader(ctx); err != nil {
			return false, err
		}
	}
	if leader == "" || leader == c.cfg.MemberID {
		return c.Left(ctx, log, id)
	}
	return c.cfg.Pinger.Left(ctx, leader, log, id)
}

// tendControl keeps what this member holds of the logs what its role asks for. It returns
// when ctx ends.
func (c *Cluster) tendControl(ctx context.Context) error {
	ticker := time.NewTicker(controlEvery)
	defer ticker.Stop()
	var doubted time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		self, known := c.cfg.Coord.Member(c.cfg.MemberID)
		if !known || !c.Clustered() {
			continue // it has no role yet, or none any more
		}
		role := roleOf(self)
		doubt := time.Since(doubted) > doubtEvery
		if doubt {
			doubted = time.Now()
		}
		for _, log := range []state.Log{state.LogCoord, state.LogDatabase} {
			if err := c.tendLog(ctx, log, role, doubt); err != nil && ctx.Err() == nil {
				c.log.Warn("take part in the consensus as the role says", "log", log, "role", role, "error", err)
			}
		}
	}
}

func (c *Cluster) tendLog(ctx context.Context, log state.Log, role store.Role, doubt bool) error {
	part := c.cfg.Coord.Part()
	if log == state.LogDatabase {
		var err error
		if part, err = c.store.Part(ctx); err != nil {
			return err
		}
	}
	switch {
	case part == state.PartNone && role != store.Worker:
		c.log.Info("this member takes part in the consensus", "log", log)
		if log == state.LogCoord {
			return c.cfg.Coord.TakePart(ctx)
		}
		return c.store.TakePart(ctx)
	case part != state.PartNone && role == store.Worker, part == state.PartUsed && doubt:
		return c.standAside(ctx, log)
	}
	return nil
}

// standAside drops a log that this member is out of.
func (c *Cluster) standAside(ctx context.Context, log state.Log) error {
	mark := func(leaving bool) {
		c.seating.mu.Lock()
		defer c.seating.mu.Unlock()
		if c.seating.leaving == nil {
			c.seating.leaving = map[state.Log]bool{}
		}
		c.seating.leaving[log] = leaving
	}
	mark(true)
	defer mark(false)
	if left, err := c.askLeft(ctx, log, c.cfg.MemberID); err != nil || !left {
		return nil // it is asked again soon
	}
	c.log.Info("this member stands aside from the consensus", "log", log)
	// From here on an empty disk must not be taken for a new server's.
	if err := c.cfg.Joined(); err != nil {
		return err
	}
	if log == state.LogCoord {
		return c.cfg.Coord.StandAside()
	}
	return c.store.StandAside() //nolint:contextcheck // a log is dropped whole once that has begun
}
