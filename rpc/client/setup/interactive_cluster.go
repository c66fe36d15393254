package setup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

// membership is what a person says about a cluster. The zero value is none.
type membership struct {
	// name is the server's in the cluster, address where the others reach it.
	name, address string
	// token leads to the cluster to join; "" begins one.
	token string
	// config is what differs on this server from the others.
	config []api.ClusterMemberConfigKey
}

// terms asks the cluster that a token leads to for the keys that may differ on this
// server, and whether it could join with those that were chosen. The token stays good.
type terms func(token string, chosen []api.ClusterMemberConfigKey) ([]api.ClusterMemberConfigKey, error)

// termsOf asks by way of the server, which is the one that has to reach the cluster.
func termsOf(ctx context.Context, c *client.Client) terms {
	return func(token string, chosen []api.ClusterMemberConfigKey) ([]api.ClusterMemberConfigKey, error) {
		keys, err := c.JoinTerms(ctx, api.ClusterPut{Cluster: api.Cluster{MemberConfig: chosen}, ClusterToken: token})
		if client.IsNotFound(err) {
			// It is LXD's: the join itself says whether it can be done.
			return nil, nil
		}
		return keys, err
	}
}

// membership asks whether the server is to be in a cluster, in which, and what is to
// differ on it there.
func (q questions) membership(server api.Server, reachedAt func(from string) string, ask terms) (membership, error) {
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
	var keys []api.ClusterMemberConfigKey
	if joins {
		fmt.Fprintln(q.out, "A member of the cluster makes the token: `muster cluster add NAME`, with the name of this server.")
		var token api.ClusterMemberJoinToken
		m.token, err = q.ask("Join token", "", func(s string) (err error) {
			if token, err = api.ParseClusterMemberJoinToken(s); err != nil {
				return err
			}
			keys, err = ask(s, nil)
			return badToken(err)
		})
		if err != nil {
			return m, err
		}
		m.name, peer = token.ServerName, token.Addresses[0]
	} else if m.name, err = q.ask("Name of this server in the cluster", server.Environment.ServerName, nil); err != nil {
		return m, err
	}
	m.address, err = q.ask("Address at which the other members reach this server, with the port", reachedAt(peer), memberAddress)
	if err != nil {
		return m, err
	}
	m.config, err = q.memberConfig(keys, m.token, ask)
	return m, err
}

// badToken tells a token that won't do, where another one may, from what no token
// mends.
func badToken(err error) error {
	if err == nil {
		return nil
	}
	switch client.StatusCode(err) {
	case http.StatusBadRequest, http.StatusForbidden:
		return err
	case http.StatusServiceUnavailable:
		return fmt.Errorf("%w: give the token again once a member is up at one of its addresses and no firewall on the way refuses the port", err)
	}
	return hopeless{err}
}

// memberConfig asks for each key that may differ on this server, and returns those
// that have a value.
func (q questions) memberConfig(keys []api.ClusterMemberConfigKey, token string, ask terms) ([]api.ClusterMemberConfigKey, error) {
	var chosen []api.ClusterMemberConfigKey
	for _, key := range keys {
		// A size is for what is made in the server's own directory.
		if key.Key == "size" && slices.ContainsFunc(chosen, func(c api.ClusterMemberConfigKey) bool {
			return c.Entity == key.Entity && c.Name == key.Name && c.Key == "source"
		}) {
			continue
		}
		thing := strings.ReplaceAll(key.Entity, "-", " ")
		var err error
		key.Value, err = q.ask(fmt.Sprintf("Choose %s for %s %s (empty for the default)", key.Key, thing, key.Name), "", func(s string) error {
			if s == "" {
				return nil
			}
			tried := key
			tried.Value = s
			_, err := ask(token, append(slices.Clone(chosen), tried))
			if err == nil {
				return nil
			}
			// It is this answer's fault if all is well without it.
			if _, err := ask(token, chosen); err != nil {
				return hopeless{err}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if key.Value != "" {
			chosen = append(chosen, key)
		}
	}
	return chosen, nil
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
	fmt.Fprintf(q.out, "\nThis server is going to join the cluster as %s, reachable at %s. What it has of its own is dropped: profiles, projects, settings and trusted clients are the cluster's.\n", m.name, m.address)
	for _, key := range m.config {
		fmt.Fprintf(q.out, "Its %s %s has %s %s.\n", strings.ReplaceAll(key.Entity, "-", " "), key.Name, key.Key, key.Value)
	}
	fmt.Fprintln(q.out)
	switch yes, err := q.yes("Go ahead?", true); {
	case err != nil:
		return Result{}, err
	case !yes:
		return Result{}, errors.New("nothing was changed")
	}
	put := api.ClusterPut{Cluster: api.Cluster{ServerName: m.name, MemberConfig: m.config}, ServerAddress: m.address, ClusterToken: m.token}
	if err := c.JoinCluster(ctx, put); err != nil {
		return Result{}, fmt.Errorf("join the cluster: %w", err)
	}
	return Result{Made: []string{fmt.Sprintf("this server the member %s of the cluster", m.name)}}, nil
}
