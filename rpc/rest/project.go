package rest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"muster/state"
)

// projectName is the project that the request names; state.DefaultProject when
// it names none.
func projectName(r *http.Request) string {
	if name := r.URL.Query().Get("project"); name != "" {
		return name
	}
	return state.DefaultProject
}

// allProjects reports whether a list is asked for over all projects.
func allProjects(r *http.Request) bool {
	all, _ := strconv.ParseBool(r.URL.Query().Get("all-projects"))
	return all
}

// inProject adds ?project= to a URL for every project but the default.
func inProject(path, project string) string {
	if project == "" || project == state.DefaultProject {
		return path
	}
	return path + "?project=" + url.QueryEscape(project)
}

// path joins a URL of the API from its parts, escaping each.
func path(parts ...string) string {
	var joined strings.Builder
	joined.WriteString("/1.0")
	for _, part := range parts {
		joined.WriteString("/" + url.PathEscape(part))
	}
	return joined.String()
}
