package rest

import (
	"fmt"
	"net/http"
	"strings"

	"muster/state"
)

// A route is one method on one path: who may use it, which member answers it,
// how it is documented, and the handler. The route table is the only place
// that says any of this.
type route struct {
	// pattern is "METHOD /path/{variable}" as net/http's ServeMux reads it.
	pattern string
	// access says who may call; a route without it is refused at start.
	access access
	// on says which member answers; the zero value is any.
	on policy

	// summary is one line for the reader of docs/openapi.yaml; description may
	// say more.
	summary     string
	description string
	// query names the parameters the route reads.
	query []parameter
	// body is a value of the type that the request's JSON body decodes into,
	// or rawBody, or nil for none.
	body any
	// returns is a value of the type of the answer's metadata, or nil.
	returns any
	// status is the HTTP status of success; zero means 200, or 202 when async.
	status int
	// async says that success is a background operation (202).
	async bool
	// streams says that the request or the answer has no natural end or size:
	// no deadline and no body limit apply.
	streams bool
	// registry says that the route reads the registry of operations.
	registry bool
	// tells says what lifecycle event a success is that changes nothing recorded; nil means
	// none. Changes make their own.
	tells *news
	// announces names the API extensions that are served because this route is.
	announces []string
	// tagged says that the answer carries an ETag, or that If-Match is heeded.
	tagged bool

	handle handler
}

// handler decodes, calls once, and encodes. The result is an answer (sync,
// created, started, …) or plain metadata of a synchronous one.
type handler func(*http.Request) (any, error)

// rawBody documents a body that is not JSON.
type rawBody struct{}

// parameter documents one query parameter.
type parameter struct{ name, kind, text string }

var (
	projectParameter   = parameter{"project", "string", "Project to look in; `default` when absent."}
	recursionParameter = parameter{"recursion", "integer", "0 lists URLs, 1 the objects themselves, 2 (instances) also their state and snapshots."}
	filterParameter    = parameter{"filter", "string", "Keep only objects that match, for example `name eq c1 and status eq Running`."}
	targetParameter    = parameter{"target", "string", "Name of the cluster member that is meant."}
	staleParameter     = parameter{"stale", "integer", "1 takes what the member has, as old as it may be, without asking the leader."}
	secretParameter    = parameter{"secret", "string", "Secret that stands in for a trusted certificate."}
)

func (r route) method() string { method, _, _ := strings.Cut(r.pattern, " "); return method }

func (r route) path() string { _, path, _ := strings.Cut(r.pattern, " "); return path }

// check refuses a route that would serve but not hold what the table promises.
func (r route) check() error {
	switch {
	case r.method() == "" || !strings.HasPrefix(r.path(), "/"):
		return fmt.Errorf("route %q: pattern is not METHOD /path", r.pattern)
	case r.access == unset:
		return fmt.Errorf("route %q: says nobody may call it", r.pattern)
	case r.handle == nil:
		return fmt.Errorf("route %q: has no handler", r.pattern)
	case r.summary == "":
		return fmt.Errorf("route %q: has no summary", r.pattern)
	}
	return nil
}

// instancePrefixes are the three names of the instances collection. Lists echo
// the one that the caller used.
var instancePrefixes = []string{"instances", "containers", "virtual-machines"}

// patterns returns the route's pattern, and for instance routes its aliases.
func (r route) patterns() []string {
	rest, ok := strings.CutPrefix(r.path(), "/1.0/instances")
	if !ok || (rest != "" && rest[0] != '/') {
		return []string{r.pattern}
	}
	var all []string
	for _, prefix := range instancePrefixes {
		all = append(all, r.method()+" /1.0/"+prefix+rest)
	}
	return all
}

// instancesPrefix returns the path under which the caller addressed instances:
// "/1.0/instances", "/1.0/containers" or "/1.0/virtual-machines".
func instancesPrefix(r *http.Request) string {
	for _, prefix := range instancePrefixes[1:] {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/1.0/"+prefix); ok && (rest == "" || rest[0] == '/') {
			return "/1.0/" + prefix
		}
	}
	return "/1.0/instances"
}

// onlyMachines reports whether the caller asks for virtual machines, of which
// there are none: lists are empty and creation is refused.
func onlyMachines(r *http.Request) bool {
	return instancesPrefix(r) == "/1.0/virtual-machines"
}

// errNoMachines answers whoever wants to create a virtual machine.
var errNoMachines = state.Errorf(state.ErrInvalid,
	"muster runs containers only; leave out the type virtual-machine (lxc: --vm)")
