package rest

import "muster/rpc/rest/password"

// table gathers the routes of every resource that cfg can serve.
func table(cfg Config) []route {
	view := cfg.View
	var all []route
	add := func(routes []route) { all = append(all, routes...) }

	if cfg.Events != nil {
		add(events{cfg.Events, cfg.Resume}.routes())
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
	if cfg.Instances != nil {
		add(instances{view, cfg.Instances, cfg.Host, cfg.Placement, cfg.Peers, cfg.Log}.routes())
	}
	if cfg.Snapshots != nil {
		add(snapshots{view, cfg.Snapshots, cfg.Operations}.routes())
	}
	if cfg.Execs != nil {
		add(execs{cfg.Execs}.routes())
	}
	if cfg.Files != nil {
		add(files{cfg.Files}.routes())
	}
	if cfg.Images != nil {
		add(images{view, cfg.Images, cfg.Placement}.routes())
		add(aliases{view, cfg.Images}.routes())
	}
	if cfg.Transfers != nil {
		add(transfers{cfg.Transfers}.routes())
	}
	if cfg.Networks != nil {
		add(networks{view, cfg.Networks, cfg.Host}.routes())
	}
	if cfg.Daemon != nil {
		add(internal{cfg.Daemon}.routes())
	}
	if cfg.Members != nil {
		add(members{view, cfg.Members, cfg.Operations, cfg.Daemon, cfg.Host, cfg.Pools, &password.Damper{}}.routes())
	}
	if cfg.Groups != nil {
		add(groups{view, cfg.Groups}.routes())
	}
	if cfg.Pools != nil {
		add(pools{view, cfg.Pools, cfg.Host}.routes())
	}
	add(projects{view, cfg.Projects}.routes())
	add(hardware{cfg.Host}.routes())

	// Last, because it announces what the others serve.
	add(server{cfg: cfg, extensions: announced(all)}.routes())
	return all
}
