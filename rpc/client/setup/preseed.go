package setup

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"muster/rpc/client"
	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

// Seed is the document that Preseed reads and Dump writes: the preseed format of
// LXD's documentation.
type Seed struct {
	// Config is the server's configuration.
	Config       map[string]string      `json:"config"`
	Networks     []SeedNetwork          `json:"networks"`
	StoragePools []api.StoragePoolsPost `json:"storage_pools"`
	Profiles     []SeedProfile          `json:"profiles"`
	Projects     []api.ProjectsPost     `json:"projects"`
	Certificates []api.CertificatesPost `json:"certificates,omitempty"`
	Cluster      *SeedCluster           `json:"cluster,omitempty"`
}

// SeedNetwork is a network of a project; "" is the default one.
type SeedNetwork struct {
	api.NetworksPost
	Project string `json:"project,omitempty"`
}

// SeedProfile is a profile of a project; "" is the default one.
type SeedProfile struct {
	api.ProfilesPost
	Project string `json:"project,omitempty"`
}

// ParseSeed reads the document; unknown keys and nameless things are errors.
func ParseSeed(text []byte) (Seed, error) {
	var seed Seed
	if err := yamldoc.Unmarshal(text, &seed); err != nil {
		return seed, fmt.Errorf("preseed: %w", err)
	}
	if err := seed.checkCluster(); err != nil {
		return seed, fmt.Errorf("preseed: cluster: %w", err)
	}
	for i, network := range seed.Networks {
		if network.Name == "" {
			return seed, fmt.Errorf("preseed: networks[%d] has no name", i)
		}
	}
	for i, pool := range seed.StoragePools {
		if pool.Name == "" || pool.Driver == "" {
			return seed, fmt.Errorf("preseed: storage_pools[%d] needs a name and a driver", i)
		}
	}
	for i, profile := range seed.Profiles {
		if profile.Name == "" {
			return seed, fmt.Errorf("preseed: profiles[%d] has no name", i)
		}
	}
	for i, project := range seed.Projects {
		if project.Name == "" {
			return seed, fmt.Errorf("preseed: projects[%d] has no name", i)
		}
	}
	return seed, nil
}

// Preseed makes the server what the YAML document says: what is not there is
// created, and the named keys of what is there are changed. When a step fails,
// everything this call did is taken back. Applied twice, it changes nothing more.
func Preseed(ctx context.Context, c *client.Client, text []byte) error {
	seed, err := ParseSeed(text)
	if err != nil {
		return err
	}
	return seed.Apply(ctx, c)
}

// Apply is Preseed for a document that was read already.
func (s Seed) Apply(ctx context.Context, c *client.Client) error {
	if s.Cluster.joins() {
		return s.join(ctx, c)
	}
	p := planter{c: c}
	for _, step := range []func(context.Context, Seed) error{
		p.config, p.projects, p.pools, p.networks, p.profiles, p.certificates, p.cluster,
	} {
		if err := step(ctx, s); err != nil {
			return p.undo.roll(ctx, err)
		}
	}
	return nil
}

type planter struct {
	c    *client.Client
	undo undo
}

func (p *planter) config(ctx context.Context, s Seed) error {
	if len(s.Config) == 0 {
		return nil
	}
	server, _, err := p.c.Server(ctx)
	if err != nil {
		return err
	}
	changed := map[string]any{}
	for key, value := range s.Config {
		if server.Config[key] != value {
			changed[key] = value
		}
	}
	if len(changed) == 0 {
		return nil
	}
	p.undo.config(p.c, server.Config, changed)
	if err := p.c.PatchServer(ctx, api.ServerPut{Config: changed}); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

func (p *planter) projects(ctx context.Context, s Seed) error {
	for _, post := range s.Projects {
		name := post.Name
		old, _, err := p.c.FindProject(ctx, name)
		switch {
		case client.IsNotFound(err):
			if err = p.c.CreateProject(ctx, post); err == nil {
				p.undo.add(func(ctx context.Context) error { return p.c.DeleteProject(ctx, name) })
			}
		case err == nil:
			before := cloned(old.Config)
			put := api.ProjectPut{Config: overlay(old.Config, post.Config), Description: orDefault(post.Description, old.Description)}
			if maps.Equal(put.Config, before) && put.Description == old.Description {
				continue
			}
			if err = p.c.UpdateProject(ctx, name, put, ""); err == nil {
				p.undo.add(func(ctx context.Context) error { return p.c.UpdateProject(ctx, name, old.ProjectPut, "") })
			}
		}
		if err != nil {
			return fmt.Errorf("project %s: %w", name, err)
		}
	}
	return nil
}

func (p *planter) pools(ctx context.Context, s Seed) error {
	for _, post := range s.StoragePools {
		name := post.Name
		old, _, err := p.c.Pool(ctx, name)
		switch {
		case client.IsNotFound(err):
			if err = p.c.CreatePool(ctx, post); err == nil {
				p.undo.add(func(ctx context.Context) error { return p.c.DeletePool(ctx, name) })
			}
		case err == nil && old.Driver != post.Driver:
			err = fmt.Errorf("it is there already with the driver %q, which can't be changed to %q", old.Driver, post.Driver)
		case err == nil:
			put := api.StoragePoolPut{Config: overlay(old.Config, post.Config), Description: orDefault(post.Description, old.Description)}
			if maps.Equal(put.Config, old.Config) && put.Description == old.Description {
				continue
			}
			if err = p.c.UpdatePool(ctx, name, put, ""); err == nil {
				p.undo.add(func(ctx context.Context) error { return p.c.UpdatePool(ctx, name, old.StoragePoolPut, "") })
			}
		}
		if err != nil {
			return fmt.Errorf("storage pool %s: %w", name, err)
		}
	}
	return nil
}

func (p *planter) networks(ctx context.Context, s Seed) error {
	for _, each := range s.Networks {
		name, post, c := each.Name, each.NetworksPost, p.in(each.Project)
		old, _, err := c.Network(ctx, name)
		switch {
		case client.IsNotFound(err):
			if err = c.CreateNetwork(ctx, post); err == nil {
				p.undo.add(func(ctx context.Context) error { return c.DeleteNetwork(ctx, name) })
			}
		case err == nil && !old.Managed:
			err = errors.New("the host has an interface of that name that is not ours")
		case err == nil:
			put := api.NetworkPut{Config: overlay(old.Config, post.Config), Description: orDefault(post.Description, old.Description)}
			// "auto" was replaced by an address when the network was made.
			for key, value := range post.Config {
				if value == "auto" && old.Config[key] != "" {
					put.Config[key] = old.Config[key]
				}
			}
			if maps.Equal(put.Config, old.Config) && put.Description == old.Description {
				continue
			}
			if err = c.UpdateNetwork(ctx, name, put, ""); err == nil {
				p.undo.add(func(ctx context.Context) error { return c.UpdateNetwork(ctx, name, old.NetworkPut, "") })
			}
		}
		if err != nil {
			return fmt.Errorf("network %s: %w", name, err)
		}
	}
	return nil
}

func (p *planter) in(project string) *client.Client {
	if project == "" {
		return p.c
	}
	return p.c.WithProject(project)
}

// overlay returns the keys of over laid on those of under.
func overlay(under, over map[string]string) map[string]string {
	all := cloned(under)
	maps.Copy(all, over)
	return all
}

// cloned is maps.Clone that never returns nil.
func cloned(m map[string]string) map[string]string {
	all := make(map[string]string, len(m))
	maps.Copy(all, m)
	return all
}
