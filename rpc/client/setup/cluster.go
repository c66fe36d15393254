package setup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

// SeedCluster says which cluster the server is to be in: without a token and an
// address, one that it begins; with either, the one they lead to.
type SeedCluster struct {
	// ServerName is the server's name in the cluster; a token knows it.
	ServerName   string                       `json:"server_name"`
	Enabled      bool                         `json:"enabled"`
	MemberConfig []api.ClusterMemberConfigKey `json:"member_config,omitempty"`
	// ServerAddress is where the other members reach this one, as address:port;
	// "" is what core.https_address is set to.
	ServerAddress string `json:"server_address,omitempty"`
	// ClusterToken is a join token. It stands for the four below.
	ClusterToken string `json:"cluster_token,omitempty"`
	// ClusterAddress is address:port of a member of the cluster.
	ClusterAddress string `json:"cluster_address,omitempty"`
	// ClusterCertificate is the cluster's in PEM form, ClusterCertificatePath a
	// file with it.
	ClusterCertificate     string `json:"cluster_certificate,omitempty"`
	ClusterCertificatePath string `json:"cluster_certificate_path,omitempty"`
	// ClusterPassword is the cluster's trust password, a join token, or its secret.
	ClusterPassword string `json:"cluster_password,omitempty"`
}

// joins says whether the server is to join a cluster that is there.
func (s *SeedCluster) joins() bool {
	return s != nil && s.Enabled && (s.ClusterToken != "" || s.ClusterAddress != "")
}

// checkCluster refuses what can't be done, before anything is.
func (s Seed) checkCluster() error {
	switch {
	case s.Cluster == nil:
		return nil
	case !s.Cluster.Enabled:
		if s.Cluster.ClusterToken != "" || s.Cluster.ClusterAddress != "" {
			return errors.New("there is a cluster to join, and enabled is not true")
		}
		return nil
	case !s.Cluster.joins():
		if s.Cluster.ServerName == "" {
			return errors.New("server_name is missing: the server's name in the cluster")
		}
		return nil
	}
	if len(s.StoragePools)+len(s.Networks)+len(s.Profiles)+len(s.Projects)+len(s.Certificates) > 0 {
		return errors.New("a server that joins a cluster takes what the cluster has: leave out storage_pools, networks, profiles, projects and certificates")
	}
	if s.serverAddress() == "" {
		return errors.New("server_address is missing: where the other members reach this one, such as 192.0.2.7:8443")
	}
	if s.Cluster.ClusterToken != "" {
		if _, err := api.ParseClusterMemberJoinToken(s.Cluster.ClusterToken); err != nil {
			return fmt.Errorf("cluster_token: %w", err)
		}
		return nil
	}
	if _, err := api.ParseClusterMemberJoinToken(s.Cluster.ClusterPassword); err == nil {
		return nil
	}
	if s.Cluster.ServerName == "" || s.Cluster.ClusterCertificate+s.Cluster.ClusterCertificatePath == "" {
		return errors.New("without a cluster_token, server_name and cluster_certificate (or cluster_certificate_path) are needed")
	}
	if s.Cluster.ClusterPassword == "" {
		return errors.New("cluster_password is missing: the cluster's trust password, or a join token")
	}
	return nil
}

func (s Seed) serverAddress() string {
	return orDefault(s.Cluster.ServerAddress, s.Config["core.https_address"])
}

// join is Apply for a server that is to join a cluster. A server that has joined it
// already is left alone.
func (s Seed) join(ctx context.Context, c *client.Client) error {
	put := api.ClusterPut{
		Cluster:       api.Cluster{ServerName: s.Cluster.ServerName, MemberConfig: s.Cluster.MemberConfig},
		ServerAddress: s.serverAddress(), ClusterToken: s.Cluster.ClusterToken,
		ClusterAddress: s.Cluster.ClusterAddress, ClusterCertificate: s.Cluster.ClusterCertificate, ClusterPassword: s.Cluster.ClusterPassword,
	}
	if put.ServerName == "" {
		// The token was read by checkCluster.
		token, err := api.ParseClusterMemberJoinToken(orDefault(put.ClusterToken, put.ClusterPassword))
		if err != nil {
			return err
		}
		put.ServerName = token.ServerName
	}
	if already, err := memberAlready(ctx, c, put.ServerName); already || err != nil {
		return err
	}
	if path := s.Cluster.ClusterCertificatePath; put.ClusterCertificate == "" && path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("cluster: cluster_certificate_path: %w", err)
		}
		put.ClusterCertificate = string(text)
	}
	for _, key := range slices.Sorted(maps.Keys(s.Config)) {
		if key != "core.https_address" {
			c.Warn("a server that joins a cluster takes the cluster's configuration: %s of the preseed is not set", key)
		}
	}
	if err := c.JoinCluster(ctx, put); err != nil {
		return fmt.Errorf("join the cluster: %w", err)
	}
	return nil
}

// memberAlready says whether the server is in a cluster under that name; under
// another one is an error.
func memberAlready(ctx context.Context, c *client.Client, name string) (bool, error) {
	shown, err := c.Cluster(ctx)
	if err == nil && shown.Enabled && shown.ServerName != name {
		err = fmt.Errorf("the server is in a cluster already, as %q and not as %q", shown.ServerName, name)
	}
	return shown.Enabled, err
}

// cluster makes the server the first member of one. It comes last: it can't be taken
// back.
func (p *planter) cluster(ctx context.Context, s Seed) error {
	if s.Cluster == nil || !s.Cluster.Enabled {
		return nil
	}
	if already, err := memberAlready(ctx, p.c, s.Cluster.ServerName); already || err != nil {
		return err
	}
	if err := p.c.EnableCluster(ctx, s.Cluster.ServerName); err != nil {
		return fmt.Errorf("begin a cluster: %w", err)
	}
	return nil
}

// cluster is the last step of Auto, for the same reason.
func (a *auto) cluster(ctx context.Context) error {
	if a.opts.Cluster == "" {
		return nil
	}
	if already, err := memberAlready(ctx, a.c, a.opts.Cluster); already || err != nil {
		return err
	}
	if err := a.c.EnableCluster(ctx, a.opts.Cluster); err != nil {
		return fmt.Errorf("begin a cluster: %w", err)
	}
	a.made("a cluster with this server as its member %s", a.opts.Cluster)
	return nil
}
