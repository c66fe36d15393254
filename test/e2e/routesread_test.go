package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// look is one request to a GET route.
type look struct {
	// path has its parameters filled in. {n} is each member's number in turn; the others
	// are newStage's.
	path string
	// code is what is answered; 0 is 200.
	code int
	// moves says why answers may differ for a moment: then they are asked for again
	// until they don't.
	moves string
	// own says why some values differ for good, and without are their keys, "*" for all
	// and "." for the whole answer: only what kind of value they are is compared.
	own     string
	without []string
}

// Reasons why answers can't be compared as a whole, or not at once.
const (
	aCounter    = "it counts what is used at the moment"
	ownMachine  = "it is about the machine of whoever is asked"
	ownName     = "it says who was asked"
	theWorkings = "who leads and who is well is told around, and shown as last heard"
	theGuest    = "the guest is still starting: its addresses and its console come to rest by themselves"
	theClock    = "operations that have ended are forgotten after a while, by each member"
	replication = "the image is still being copied to its other holders"
)

var counters = []string{
	"usage", "usage_peak", "swap_usage", "swap_usage_peak", "processes", "used", "bytes_received", "bytes_sent",
	"packets_received", "packets_sent", "packets_dropped_inbound", "packets_dropped_outbound",
}

// reads has for every GET route how it is asked.
var reads = map[string][]look{
	"/": {{path: "/"}},
	"/1.0": {
		{path: "/1.0?target=m{n}"},
		{path: "/1.0", own: ownName, without: []string{"addresses", "server_name", "server_pid", "core.https_address", "Etag"}},
	},
	"/1.0/certificates":               {{path: "/1.0/certificates"}, {path: "/1.0/certificates?recursion=1"}},
	"/1.0/certificates/{fingerprint}": {{path: "/1.0/certificates/{certificate}"}},
	"/1.0/cluster":                    {{path: "/1.0/cluster", own: ownName, without: []string{"server_name"}}},
	"/1.0/cluster/groups":             {{path: "/1.0/cluster/groups"}, {path: "/1.0/cluster/groups?recursion=1"}},
	"/1.0/cluster/groups/{name}":      {{path: "/1.0/cluster/groups/default"}},
	"/1.0/cluster/members":            {{path: "/1.0/cluster/members"}, {path: "/1.0/cluster/members?recursion=1", moves: theWorkings}},
	"/1.0/cluster/members/{name}":     {{path: "/1.0/cluster/members/m{n}", moves: theWorkings}},
	"/1.0/cluster/members/{name}/state": {
		{path: "/1.0/cluster/members/m{n}/state", own: aCounter, without: []string{"*"}},
	},
	// Events are heard in routesockets_test.go.
	"/1.0/events":                      {{path: "/1.0/events", code: http.StatusBadRequest}},
	"/1.0/images":                      {{path: "/1.0/images"}, {path: "/1.0/images?recursion=1"}},
	"/1.0/images/aliases":              {{path: "/1.0/images/aliases"}, {path: "/1.0/images/aliases?recursion=1"}},
	"/1.0/images/aliases/{name}":       {{path: "/1.0/images/aliases/busybox"}},
	"/1.0/images/{fingerprint}":        {{path: "/1.0/images/{image}"}},
	"/1.0/images/{fingerprint}/export": {{path: "/1.0/images/{image}/export", moves: replication}},
	"/1.0/instances": {
		{path: "/1.0/instances"},
		{path: "/1.0/instances?recursion=1"},
		{path: "/1.0/instances?all-projects=true"},
		{path: "/1.0/instances?recursion=2", moves: theGuest, own: aCounter, without: counters},
		{path: "/1.0/instances?recursion=1&filter=status eq Running"},
	},
	"/1.0/instances/{name}": {
		{path: "/1.0/instances/c{n}"},
		{path: "/1.0/instances/c{n}?recursion=1", moves: theGuest, own: aCounter, without: counters},
	},
	"/1.0/instances/{name}/console": {{path: "/1.0/instances/c{n}/console", moves: theGuest}},
	"/1.0/instances/{name}/files":   {{path: "/1.0/instances/c{n}/files?path=/root/f"}, {path: "/1.0/instances/c{n}/files?path=/root"}},
	"/1.0/instances/{name}/logs":    {{path: "/1.0/instances/c{n}/logs"}},
	"/1.0/instances/{name}/logs/{log}": {
		{path: "/1.0/instances/c{last}/logs/{log}"},
		{path: "/1.0/instances/c{n}/logs/lxc.log", moves: theGuest},
	},
	// SFTP is spoken in routesockets_test.go.
	"/1.0/instances/{name}/sftp":                 {{path: "/1.0/instances/c{n}/sftp", code: http.StatusBadRequest}},
	"/1.0/instances/{name}/snapshots":            {{path: "/1.0/instances/c{n}/snapshots"}, {path: "/1.0/instances/c{n}/snapshots?recursion=1"}},
	"/1.0/instances/{name}/snapshots/{snapshot}": {{path: "/1.0/instances/c{n}/snapshots/s0"}},
	"/1.0/instances/{name}/state":                {{path: "/1.0/instances/c{n}/state", moves: theGuest, own: aCounter, without: counters}},
	"/1.0/networks": {
		{path: "/1.0/networks?filter=managed eq true"},
		{path: "/1.0/networks?recursion=1&filter=managed eq true"},
		{path: "/1.0/networks?target=m{n}", moves: theGuest},
		{path: "/1.0/networks?recursion=1&target=m{n}", moves: theGuest},
		{path: "/1.0/networks", own: ownMachine, without: []string{"*"}},
	},
	"/1.0/networks/{name}": {
		{path: "/1.0/networks/{bridge}"}, {path: "/1.0/networks/{bridge}?target=m{n}"},
	},
	"/1.0/networks/{name}/leases": {{path: "/1.0/networks/{bridge}/leases", moves: theGuest}},
	"/1.0/networks/{name}/state": {
		{path: "/1.0/networks/{bridge}/state?target=m{n}", moves: theGuest, own: aCounter, without: counters},
		{path: "/1.0/networks/{bridge}/state", own: ownMachine, without: []string{"*"}},
	},
	"/1.0/operations":                {{path: "/1.0/operations", moves: theClock}, {path: "/1.0/operations?recursion=1", moves: theClock}},
	"/1.0/operations/{id}":           {{path: "/1.0/operations/{operation}"}},
	"/1.0/operations/{id}/wait":      {{path: "/1.0/operations/{operation}/wait?timeout=0"}},
	"/1.0/operations/{id}/websocket": {{path: "/1.0/operations/{operation}/websocket?secret=x", code: http.StatusConflict}},
	"/1.0/profiles":                  {{path: "/1.0/profiles"}, {path: "/1.0/profiles?recursion=1"}},
	"/1.0/profiles/{name}":           {{path: "/1.0/profiles/default"}},
	"/1.0/projects":                  {{path: "/1.0/projects"}, {path: "/1.0/projects?recursion=1"}},
	"/1.0/projects/{name}":           {{path: "/1.0/projects/default"}},
	"/1.0/metadata/configuration": {
		{path: "/1.0/metadata/configuration"},
	},
	"/1.0/resources": {
		{path: "/1.0/resources?target=m{n}", moves: theGuest, own: aCounter, without: []string{"*"}},
		{path: "/1.0/resources", own: ownMachine, without: []string{"*"}},
	},
	"/1.0/storage-pools":                                    {{path: "/1.0/storage-pools"}, {path: "/1.0/storage-pools?recursion=1"}},
	"/1.0/storage-pools/{pool}":                             {{path: "/1.0/storage-pools/default"}, {path: "/1.0/storage-pools/default?target=m{n}"}},
	"/1.0/storage-pools/{pool}/resources":                   {{path: "/1.0/storage-pools/default/resources?target=m{n}", own: aCounter, without: counters}},
	"/1.0/storage-pools/{pool}/volumes":                     {{path: "/1.0/storage-pools/default/volumes"}, {path: "/1.0/storage-pools/default/volumes?recursion=1"}},
	"/1.0/storage-pools/{pool}/volumes/{type}":              {{path: "/1.0/storage-pools/default/volumes/container"}, {path: "/1.0/storage-pools/default/volumes/container?recursion=1"}},
	"/1.0/storage-pools/{pool}/volumes/{type}/{name}":       {{path: "/1.0/storage-pools/default/volumes/container/c{n}"}},
	"/1.0/storage-pools/{pool}/volumes/{type}/{name}/state": {{path: "/1.0/storage-pools/default/volumes/container/c{n}/state", own: aCounter, without: counters}},
	"/internal/images/{fingerprint}/{role}":                 {{path: "/internal/images/{image}/unified", code: http.StatusForbidden}},
	"/internal/states":                                      {{path: "/internal/states", own: ownMachine, without: []string{"."}}},
}

// reads asks every GET route through every member.
func (s *stage) reads(t *testing.T) {
	s.caughtUp(t)
	for _, route := range documented(t) {
		pattern, isGet := strings.CutPrefix(route, "GET ")
		if !isGet {
			continue
		}
		for _, l := range reads[pattern] {
			for _, path := range s.paths(l.path) {
				t.Run(strings.ReplaceAll(path, "/", "|"), func(t *testing.T) { s.look(t, l, path) })
				// The other names of the same are routes too.
				if rest, ok := strings.CutPrefix(path, "/1.0/instances"); ok {
					t.Run("|1.0|containers"+strings.ReplaceAll(rest, "/", "|"), func(t *testing.T) { s.look(t, l, "/1.0/containers"+rest) })
					if !strings.HasPrefix(rest, "/") {
						t.Run("|1.0|virtual-machines"+rest, func(t *testing.T) { s.look(t, l, "/1.0/virtual-machines"+rest) })
					}
				}
			}
		}
	}
}

// paths are the path once, or once for every member.
func (s *stage) paths(path string) []string {
	path = fill(path, s.values).(string)
	if !strings.Contains(path, "{n}") {
		return []string{path}
	}
	var each []string
	for i := range s.members {
		each = append(each, strings.ReplaceAll(path, "{n}", fmt.Sprint(i+1)))
	}
	return each
}

func (s *stage) look(t *testing.T, l look, path string) {
	once := func() string {
		said := s.ask(t, http.MethodGet, path, nil)
		for i := range said {
			if want := max(l.code, http.StatusOK); said[i].Code != want {
				return fmt.Sprintf("m%d answers %d %q; want %d", i+1, said[i].Code, said[i].Error, want)
			}
			if l.own != "" {
				said[i].blur(l.without)
			}
		}
		return differ(said)
	}
	if l.moves != "" {
		eventually(t, once)
	} else if problem := once(); problem != "" {
		t.Error(problem)
	}
}

// blur leaves of the values under the keys only what kind of value they are, of all
// values when the key is "*", and of the whole when it is ".".
func (s *told) blur(keys []string) {
	if slices.Contains(keys, ".") {
		s.Metadata = fmt.Sprintf("a %T", s.Metadata)
	}
	all := slices.Contains(keys, "*")
	for name := range s.Header {
		if slices.Contains(keys, name) || name == "Content-Length" || all && name == "Etag" {
			delete(s.Header, name)
		}
	}
	var blurred func(value any, here bool) any
	blurred = func(value any, here bool) any {
		switch inside := value.(type) {
		case object:
			for key := range inside {
				inside[key] = blurred(inside[key], here || slices.Contains(keys, key))
			}
			return inside
		case []any:
			if here {
				return "a list"
			}
			for i := range inside {
				inside[i] = blurred(inside[i], false)
			}
			return inside
		}
		if here {
			return fmt.Sprintf("a %T", value)
		}
		return value
	}
	s.Metadata = blurred(s.Metadata, all)
}
