package setup

import (
	"context"
	"errors"
	"fmt"
	"net"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

// membership is what a person says about a cluster. The zero value is none.
type membership struct {
	// name is the server's in the cluster, address where the others reach it.
	name, address string
	// token leads to the cluster to join; "" begins one.
	token string
}

// membership asks whether the server is to be in a cluster, and in which.
func (q questions) membership(server api.Server, reachedAt func(from string) string) (membership, error) {
	var m membership
	if server.Environment.ServerClustered {
		fmt.Fprintf(q.out, "The server is in a cluster, as %s.\n", server.Environment.ServerName)
		return m, nil
	}
	if wanted, err := q.yes("Should the server be a member of a cluster?", false); err != nil || !wanted {
		return m, err
	}
	joins, err := q.yes("Is the cluster there already, for this server to join?", false)
	if err != nil {
		return m, err
	}
	peer := ""
	if joins {
		fmt.Fprintln(q.out, "A member of the cluster makes the token: `muster cluster add NAME`, with the name of this server.")
		var token api.ClusterMemberJoinToken
		m.token, err = q.ask("Join token", "", func(s string) (err error) {
			token, err = api.ParseClusterMemberJoinToken(s)
			return err
		})
		if err != nil {
			return m, err
		}
		m.name, peer = token.ServerName, token.Addresses[0]
	} else if m.name, err = q.ask("Name of this server in the cluster", server.Environment.ServerName, nil); err != nil {
		return m, err
	}
	m.address, err = q.ask("Address at which the other members reach this server, with the port", reachedAt(peer), memberAddress)
	return m, err
}

// memberAddress refuses what no other machine could reach.
func memberAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() || port == "" {
		return fmt.Errorf("%q is not one address of this server, such as 192.0.2.7:8443", s)
	}
	return nil
}

// reachedAt proposes the address at which another machine would reach the server:
// one that it listens on, or, when it runs here, the one from which this machine
// would speak to the other.
func reachedAt(server api.Server, local bool) func(from string) string {
	return func(from string) string {
		for _, address := range server.Environment.Addresses {
			if memberAddress(address) == nil {
				return address
			}
		}
		if !local {
			return ""
		}
		if from == "" {
			from = "192.0.2.1:8443" // any address far away: nothing is sent
		}
		conn, err := net.Dial("udp", from)
		if err != nil {
			return ""
		}
		defer conn.Close()
		host, _, err := net.SplitHostPort(conn.LocalAddr().String())
		if err != nil {
			return ""
		}
		return net.JoinHostPort(host, "8443")
	}
}

// join is what Interactive does for a server that is to join a cluster: everything
// else is the cluster's to say.
func (q questions) join(ctx context.Context, c *client.Client, m membership) (Result, error) {
	fmt.Fprintf(q.out, "\nThis server is going to join the cluster as %s, reachable at %s. What it has of its own is dropped: profiles, projects, settings and trusted clients are the cluster's.\n\n", m.name, m.address)
	switch yes, err := q.yes("Go ahead?", true); {
	case err != nil:
		return Result{}, err
	case !yes:
		return Result{}, errors.New("nothing was changed")
	}
	put := api.ClusterPut{ServerAddress: m.address, ClusterToken: m.token}
	put.ServerName = m.name
	if err := c.JoinCluster(ctx, put); err != nil {
		return Result{}, fmt.Errorf("join the cluster: %w", err)
	}
	return Result{Made: []string{fmt.Sprintf("this server the member %s of the cluster", m.name)}}, nil
}
