package setup

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"muster/rpc/client"
	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

// Dump writes the server's configuration, networks, pools, profiles and projects
// as a document that Preseed reads. Secrets are left out: the API does not tell
// them. A member of a cluster is written as one that begins it.
func Dump(ctx context.Context, c *client.Client) ([]byte, error) {
	seed := Seed{
		Config: map[string]string{}, Networks: []SeedNetwork{}, StoragePools: []api.StoragePoolsPost{},
		Profiles: []SeedProfile{}, Projects: []api.ProjectsPost{},
	}
	server, _, err := c.Server(ctx)
	if err != nil {
		return nil, err
	}
	for key, value := range server.Config {
		if key != "core.trust_password" {
			seed.Config[key] = fmt.Sprint(value)
		}
	}
	if server.Environment.ServerClustered {
		shown, err := c.Cluster(ctx)
		if err != nil {
			return nil, err
		}
		seed.Cluster = &SeedCluster{ServerName: shown.ServerName, Enabled: true}
	}
	projects, err := c.Projects(ctx)
	if err != nil {
		return nil, err
	}
	for _, project := range projects {
		seed.Projects = append(seed.Projects, api.ProjectsPost{Name: project.Name, ProjectPut: project.ProjectPut})
	}
	pools, err := c.Pools(ctx)
	if err != nil {
		return nil, err
	}
	for _, pool := range pools {
		pool.Config = lasting(pool.Config)
		seed.StoragePools = append(seed.StoragePools, api.StoragePoolsPost{
			Name: pool.Name, Driver: pool.Driver, StoragePoolPut: pool.StoragePoolPut,
		})
	}
	for _, project := range projects {
		if err := seed.dumpProject(ctx, c, project); err != nil {
			return nil, fmt.Errorf("project %s: %w", project.Name, err)
		}
	}
	return yamldoc.Marshal(seed)
}

func (s *Seed) dumpProject(ctx context.Context, c *client.Client, project api.Project) error {
	c = c.WithProject(project.Name)
	// A project without features of its own shows the default one's, which
	// must not be listed twice.
	own := func(feature string) bool {
		return project.Name == "default" || project.Config["features."+feature] == "true"
	}
	if own("networks") {
		networks, err := c.Networks(ctx)
		if err != nil {
			return err
		}
		for _, network := range networks {
			if network.Managed {
				network.Config = lasting(network.Config)
				post := api.NetworksPost{Name: network.Name, Type: network.Type, NetworkPut: network.NetworkPut}
				s.Networks = append(s.Networks, SeedNetwork{NetworksPost: post, Project: project.Name})
			}
		}
	}
	if own("profiles") {
		profiles, err := c.Profiles(ctx)
		if err != nil {
			return err
		}
		for _, profile := range profiles {
			post := api.ProfilesPost{Name: profile.Name, ProfilePut: profile.ProfilePut}
			s.Profiles = append(s.Profiles, SeedProfile{ProfilesPost: post, Project: project.Name})
		}
	}
	return nil
}

// lasting leaves out what the server found out by itself and would again.
func lasting(config map[string]string) map[string]string {
	kept := cloned(config)
	maps.DeleteFunc(kept, func(key, _ string) bool { return strings.HasPrefix(key, "volatile.") })
	return kept
}
