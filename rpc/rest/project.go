package rest

import (
	"net/http"
	"strconv"

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
