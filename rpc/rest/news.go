package rest

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"muster/cluster"
	"muster/rpc/rest/api"
)

// NewsTeller makes lifecycle events of what changes nothing that is recorded;
// *cluster.Cluster is one.
type NewsTeller interface {
	Tell(ctx context.Context, project string, event cluster.Lifecycle)
}

// news is the lifecycle event of a route (LXD 5.0.2's words: an audit depends on them).
type news struct {
	action string
	// source is the path of what it happens to, with variables as in the route's pattern.
	source string
	// whole says that it is of the whole server, not of a project.
	whole bool
	// when, if not nil, limits it to some of the answers.
	when func(value any) bool
	// context is what the event shows besides, or nil.
	context func(r *http.Request, value any) map[string]any
}

// onInstance is the event of something that was done in instance {name}.
func onInstance(action string, context func(r *http.Request, value any) map[string]any) *news {
	return &news{action: action, source: "/1.0/instances/{name}", context: context}
}

// tell tells that the route was answered with value.
func (s *Server) tell(rt route, r *http.Request, value any) {
	n := rt.tells
	if n == nil || s.cfg.News == nil || r.Method == http.MethodHead || n.when != nil && !n.when(value) {
		return
	}
	source, rest := "", n.source
	for {
		before, after, more := strings.Cut(rest, "{")
		source += before
		if !more {
			break
		}
		variable, behind, _ := strings.Cut(after, "}")
		source += url.PathEscape(r.PathValue(variable))
		rest = behind
	}
	project := projectName(r)
	if n.whole {
		project = ""
	}
	event := cluster.Lifecycle{Action: n.action, Source: inProject(source, project), Name: r.PathValue("name"), Project: project}
	if n.context != nil {
		event.Context = n.context(r, value)
	}
	s.cfg.News.Tell(r.Context(), project, event)
}

// filePath is the context of what is done to a file.
func filePath(r *http.Request, _ any) map[string]any {
	return map[string]any{"path": r.URL.Query().Get("path")}
}

// commandRun is the context of a command: the operation shows it.
func commandRun(_ *http.Request, value any) map[string]any {
	started, _ := value.(accepted202)
	op, _ := started.operation.(api.Operation)
	return map[string]any{"command": op.Metadata["command"]}
}

// consoleType is the context of a console.
func consoleType(*http.Request, any) map[string]any { return map[string]any{"type": "console"} }

// isToken reports whether an answer is an operation that shows a token.
func isToken(value any) bool {
	_, is := value.(accepted202)
	return is
}
