package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"muster/cluster/gossip"
	"muster/state"
	"muster/state/store"
)

// A cluster is upgraded one member at a time, while it serves. Members of neighbouring
// releases differ in what their API can do and in the schema that they can read: what all
// of them have is what clients may count on (DESIGN, Versions).

// releasesEvery is how often it is looked at what the others run, releaseTimeout how long
// one may take to say it, and schemaPause how long a step of the schema that failed is left
// alone.
const (
	releasesEvery  = time.Second
	releaseTimeout = 2 * time.Second
	schemaPause    = time.Minute
)

// Release is what a member says of what it runs.
type Release struct {
	Extensions []string `json:"api_extensions"`
}

// releases is what is known of what the others run.
type releases struct {
	// heard are lists of API extensions by their hash; waiting is whom the schema was last
	// said to wait for, and failed when a step of it failed. All are tendReleases' own.
	heard   map[string][]string
	waiting []string
	failed  time.Time
	// others is nil until the first look.
	others atomic.Pointer[otherReleases]
}

// otherReleases are the lists of API extensions that differ from this member's; all says
// that every member was heard of.
type otherReleases struct {
	lists [][]string
	all   bool
}

// ExtensionsHash is what the gossip tells of a list of API extensions.
func ExtensionsHash(extensions []string) string {
	sum := sha256.Sum256([]byte(strings.Join(extensions, "\n")))
	return hex.EncodeToString(sum[:8])
}

// SharedExtensions returns those of this member's API extensions that every other member
// serves too. Of one that was not heard of yet it assumes that it lacks what is fresh: what
// the release before does not serve.
func (c *Cluster) SharedExtensions(own, fresh []string) []string {
	others := c.releases.others.Load()
	if others == nil {
		others = &otherReleases{all: !c.Clustered()}
	}
	if others.all && len(others.lists) == 0 {
		return own
	}
	return slices.DeleteFunc(slices.Clone(own), func(extension string) bool {
		lacks := func(list []string) bool { return !slices.Contains(list, extension) }
		return !others.all && slices.Contains(fresh, extension) || slices.ContainsFunc(others.lists, lacks)
	})
}

// tendReleases follows what the members run, until ctx ends.
func (c *Cluster) tendReleases(ctx context.Context) error {
	c.releases.heard = map[string][]string{}
	return every(ctx, releasesEvery, func() {
		told := map[string]gossip.Member{}
		if g := c.gossip.Load(); g != nil {
			for _, m := range g.Members() {
				told[m.ID] = m
			}
		}
		c.hearExtensions(ctx, told)
		c.moveSchema(ctx, told)
	})
}

// hearExtensions asks members whose API differs for what it can do.
func (c *Cluster) hearExtensions(ctx context.Context, told map[string]gossip.Member) {
	self, others := told[c.cfg.MemberID].Meta.Extensions, &otherReleases{all: true}
	seen := map[string]bool{self: true}
	for _, m := range c.store.View().Members() {
		hash := told[m.ID].Meta.Extensions
		switch {
		case m.ID == c.cfg.MemberID:
			continue
		case hash == "":
			others.all = false
			continue
		case seen[hash]:
			continue
		}
		if _, known := c.releases.heard[hash]; !known {
			release, err := c.askRelease(ctx, m)
			if err != nil || ExtensionsHash(release.Extensions) != hash {
				c.log.Debug("ask a member what its API can do", "member", m.Name, "error", err)
				others.all = false
				continue
			}
			c.releases.heard[hash] = release.Extensions
		}
		seen[hash] = true
		others.lists = append(others.lists, c.releases.heard[hash])
	}
	c.releases.others.Store(others)
}

func (c *Cluster) askRelease(ctx context.Context, member *state.Member) (release Release, err error) {
	if !c.Online(member.ID) {
		return Release{}, state.Errorf(state.ErrUnavailable, "member %q is offline", member.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	err = c.cfg.Remote.Request(ctx, member.Name, http.MethodGet, "/internal/release", nil, &release)
	return release, err
}

// moveSchema has the database take the steps of its schema that this release knows, once
// every member that there is says that it does.
func (c *Cluster) moveSchema(ctx context.Context, told map[string]gossip.Member) {
	view, newest := c.store.View(), c.store.KnownSchema().Newest
	if view.Schema() == 0 || view.Schema() >= newest || time.Since(c.releases.failed) < schemaPause {
		return
	}
	consent := store.Consent{Schema: newest}
	var waiting []string
	for _, m := range view.Members() {
		knows := told[m.ID].Meta.SchemaMax
		switch {
		case m.ID == c.cfg.MemberID:
			knows = newest
		case told[m.ID].Status != gossip.Alive:
			knows = 0 // it may come back as something else
		}
		if knows <= view.Schema() {
			waiting = append(waiting, m.Name)
			continue
		}
		consent.Schema = min(consent.Schema, knows)
		consent.Members = append(consent.Members, m.ID)
	}
	if len(waiting) > 0 {
		if !slices.Equal(waiting, c.releases.waiting) {
			c.log.Warn("the database keeps its schema until every member runs a release that knows the next", "schema", view.Schema(), "next", newest, "members", waiting)
		}
		c.releases.waiting = waiting
		return
	}
	moving, cancel := context.WithTimeout(ctx, 2*store.StepPatience) // it may wait for its turn
	defer cancel()
	if err := c.store.MoveSchema(moving, consent); err != nil && ctx.Err() == nil {
		c.releases.failed = time.Now()
		c.log.Error("take the next step of the database's schema", "schema", view.Schema(), "next", consent.Schema, "error", err)
	}
}
