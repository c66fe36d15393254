package rest

import "muster/rpc/rest/password"

// table gathers the routes of every resource that cfg can serve.
func table(cfg Config) []route {
	view := cfg.View
	var all []route
	add := func(routes []route) { all = append(all, routes...) }

	if cfg.Events != nil {
		add(events{cfg.Events}.routes())
	}
	if cfg.Operations != nil {
		add(operations{cfg.Operations}.routes())
	}
	if cfg.Certificates != nil {
		add(certificates{view, cfg.Certificates, cfg.Operations, cfg.Host, &password.Damper{}}.routes())
	}
	if cfg.Profiles != nil {
		add(profiles{view, cfg.Profiles, cfg.Operations}.routes())
	}
	add(projects{view, cfg.Projects}.routes())
	add(hardware{cfg.Host}.routes())

	// Last, because it announces what the others serve.
	add(server{cfg: cfg, extensions: announced(all)}.routes())
	return all
}
