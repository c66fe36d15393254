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
	"muster/state/store"
)

// A cluster is upgraded one member at a time, while it serves. Members of neighbouring
// releases differ in what their API can do and in the schema that they can read: what all
// of them have is what clients may count on (DESIGN, Versions).

// releasesEvery is how often it is looked at what the others run, releaseTimeout how long
// one may take to say it, and schemaTimeout bounds a step of the schema.
const (
	releasesEvery  = time.Second
	releaseTimeout = 2 * time.Second
	schemaTimeout  = 10 * time.Second
)

// Release is what a member says of what it runs.
type Release struct {
	Extensions []string `json:"api_extensions"`
}

// releases is what is known of what the others run.
type releases struct {
	// heard are lists of API extensions by their hash. It is tendReleases' own, as waiting
	// is.
	heard map[string][]string
	// waiting is whom the schema was last said to wait for.
	waiting []string
	// others are the lists of members that differ from this one's.
	others atomic.Pointer[[][]string]
}

// ExtensionsHash is what the gossip tells of a list of API extensions.
func ExtensionsHash(extensions []string) string {
	sum := sha256.Sum256([]byte(strings.Join(extensions, "\n")))
	return hex.EncodeToString(sum[:8])
}

// SharedExtensions returns those of this member's API extensions that every other member
// serves too, as far as it has heard of them.
func (c *Cluster) SharedExtensions(own []string) []string {
	others := c.releases.others.Load()
	if others == nil || len(*others) == 0 {
		return own
	}
	return slices.DeleteFunc(slices.Clone(own), func(extension string) bool {
		return slices.ContainsFunc(*others, func(list []string) bool { return !slices.Contains(list, extension) })
	})
}

// tendReleases follows what the members run, until ctx ends.
func (c *Cluster) tendReleases(ctx context.Context) error {
	c.releases.heard = map[string][]string{}
	return every(ctx, releasesEvery, func() {
		told := map[string]gossip.Meta{}
		if g := c.gossip.Load(); g != nil {
			for _, m := range g.Members() {
				told[m.ID] = m.Meta
			}
		}
		c.hearExtensions(ctx, told)
		c.moveSchema(ctx, told)
	})
}

// hearExtensions asks members whose API differs for what it can do.
func (c *Cluster) hearExtensions(ctx context.Context, told map[string]gossip.Meta) {
	self, lists, seen := told[c.cfg.MemberID].Extensions, [][]string{}, map[string]bool{}
	for _, m := range c.store.View().Members() {
		hash := told[m.ID].Extensions
		if hash == "" || hash == self || seen[hash] || !c.Online(m.ID) {
			continue
		}
		if _, known := c.releases.heard[hash]; !known {
			release, err := c.askRelease(ctx, m.Name)
			if err != nil || ExtensionsHash(release.Extensions) != hash {
				c.log.Debug("ask a member what its API can do", "member", m.Name, "error", err)
				continue
			}
			c.releases.heard[hash] = release.Extensions
		}
		seen[hash] = true
		lists = append(lists, c.releases.heard[hash])
	}
	c.releases.others.Store(&lists)
}

func (c *Cluster) askRelease(ctx context.Context, member string) (release Release, err error) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	err = c.cfg.Remote.Request(ctx, member, http.MethodGet, "/internal/release", nil, &release)
	return release, err
}

// moveSchema has the database take the steps of its schema that this release knows, once
// every member does.
func (c *Cluster) moveSchema(ctx context.Context, told map[string]gossip.Meta) {
	view, newest := c.store.View(), c.store.KnownSchema().Newest
	if view.Schema() == 0 || view.Schema() >= newest {
		return
	}
	consent := store.Consent{Schema: newest}
	var waiting []string
	for _, m := range view.Members() {
		knows := told[m.ID].SchemaMax
		if m.ID == c.cfg.MemberID {
			knows = newest
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
	moving, cancel := context.WithTimeout(ctx, schemaTimeout)
	defer cancel()
	if err := c.store.MoveSchema(moving, consent); err != nil && ctx.Err() == nil {
		c.log.Error("take the next step of the database's schema", "schema", view.Schema(), "next", consent.Schema, "error", err)
	}
}
