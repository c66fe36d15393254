package rest

import "net/http"

// root serves /.
type root struct{}

func (x root) routes() []route {
	return []route{{
		pattern: "GET /{$}", access: public,
		summary: "List the versions of the API",
		returns: []string{},
		handle:  x.versions,
	}}
}

func (root) versions(*http.Request) (any, error) { return []string{"/1.0"}, nil }
