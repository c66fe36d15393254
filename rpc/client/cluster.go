package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"muster/rpc/rest/api"
)

// joinTimeout bounds how long a server may take to work as a member. It gives up itself
// before.
const joinTimeout = 4 * time.Minute

// Cluster says whether the server is in a cluster, and as whom.
func (c *Client) Cluster(ctx context.Context) (api.Cluster, error) {
	return get[api.Cluster](ctx, c, at("cluster"), nil)
}

// EnableCluster makes the server the first member of a new cluster, under that
// name. Its core.https_address must be one at which other machines reach it.
func (c *Client) EnableCluster(ctx context.Context, name string) error {
	put := api.ClusterPut{Cluster: api.Cluster{ServerName: name, Enabled: true, MemberConfig: []api.ClusterMemberConfigKey{}}}
	return c.send(ctx, request{method: http.MethodPut, path: at("cluster"), body: put})
}

// JoinTerms asks the server for the keys that may differ on it in the cluster that put
// would make it join, and whether it could join with those that put has. Nothing is
// changed, and a join token stays good. Servers of LXD know no such question.
func (c *Client) JoinTerms(ctx context.Context, put api.ClusterPut) ([]api.ClusterMemberConfigKey, error) {
	put.Enabled = true
	if put.MemberConfig == nil {
		put.MemberConfig = []api.ClusterMemberConfigKey{}
	}
	const path = "/internal/cluster/terms"
	envelope, _, err := c.call(ctx, request{method: http.MethodPost, path: path, body: put})
	if err != nil {
		return nil, err
	}
	var keys []api.ClusterMemberConfigKey
	if err := json.Unmarshal(envelope.Metadata, &keys); err != nil {
		return nil, fmt.Errorf("answer to POST %s: %w", path, err)
	}
	return keys, nil
}

// JoinCluster makes the server a member of the cluster that the token, or the
// address and the certificate, lead to. It returns when the server works as a member and
// has made its parts of storage pools and networks, or could not, which is an
// *OperationError: the server is a member all the same.
func (c *Client) JoinCluster(ctx context.Context, put api.ClusterPut) error {
	put.Enabled = true
	if put.MemberConfig == nil {
		put.MemberConfig = []api.ClusterMemberConfigKey{}
	}
	return c.send(ctx, request{method: http.MethodPut, path: at("cluster"), body: put, timeout: joinTimeout})
}

// ClusterMembers lists the members; a server that is in no cluster lists itself,
// or refuses.
func (c *Client) ClusterMembers(ctx context.Context) ([]api.ClusterMember, error) {
	return list[api.ClusterMember](ctx, c, at("cluster", "members"), nil)
}

// ClusterMemberNames lists names only.
func (c *Client) ClusterMemberNames(ctx context.Context) ([]string, error) {
	return c.names(ctx, at("cluster", "members"))
}

// ClusterMember finds one, with its ETag.
func (c *Client) ClusterMember(ctx context.Context, name string) (api.ClusterMember, string, error) {
	return getTagged[api.ClusterMember](ctx, c, at("cluster", "members", name), nil)
}

// ClusterMemberState is how a member's machine is doing. Servers with the extension
// cluster_member_state tell.
func (c *Client) ClusterMemberState(ctx context.Context, name string) (api.ClusterMemberState, error) {
	return get[api.ClusterMemberState](ctx, c, at("cluster", "members", name, "state"), nil)
}

// UpdateClusterMember replaces what may be changed of one; etag may be empty.
func (c *Client) UpdateClusterMember(ctx context.Context, name string, put api.ClusterMemberPut, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at("cluster", "members", name), body: put, etag: etag})
}

// ChangeClusterMember is Change for a cluster member.
func (c *Client) ChangeClusterMember(ctx context.Context, name string, change func(*api.ClusterMemberPut) error) error {
	return untilWon(ctx, func() error {
		member, etag, err := c.ClusterMember(ctx, name)
		if err != nil {
			return err
		}
		if err := change(&member.ClusterMemberPut); err != nil {
			return err
		}
		return c.UpdateClusterMember(ctx, name, member.ClusterMemberPut, etag)
	})
}

// RenameClusterMember gives one another name.
func (c *Client) RenameClusterMember(ctx context.Context, name, to string) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("cluster", "members", name), body: api.ClusterMemberPost{ServerName: to}})
}

// RemoveClusterMember takes one out of the cluster for good. With force, one that is
// offline goes too, and what only it had is lost.
func (c *Client) RemoveClusterMember(ctx context.Context, name string, force bool) error {
	var query url.Values
	if force {
		query = url.Values{"force": {"1"}}
	}
	return c.send(ctx, request{method: http.MethodDelete, path: at("cluster", "members", name), query: query})
}

// CreateJoinToken makes a token with which one machine can join under that name.
func (c *Client) CreateJoinToken(ctx context.Context, member string) (api.ClusterMemberJoinToken, error) {
	op, err := c.start(ctx, request{method: http.MethodPost, path: at("cluster", "members"), body: api.ClusterMembersPost{ServerName: member}})
	if err != nil {
		return api.ClusterMemberJoinToken{}, err
	}
	return joinTokenOf(op.Operation)
}

// JoinToken is a join token that waits to be used.
type JoinToken struct {
	api.ClusterMemberJoinToken
	// Operation is the ID of the operation whose end withdraws the token.
	Operation string `json:"-"`
}

// JoinTokens lists the join tokens that nobody has used yet.
func (c *Client) JoinTokens(ctx context.Context) ([]JoinToken, error) {
	// Members belong to no project, so their tokens may be in any.
	operations, err := c.Operations(ctx, true)
	if err != nil {
		return nil, err
	}
	tokens := []JoinToken{}
	for _, op := range operations {
		if op.Class != api.OperationClassToken || op.StatusCode != api.Running {
			continue
		}
		// Other token operations, of clients for one, name no member.
		if token, err := joinTokenOf(op); err == nil {
			tokens = append(tokens, JoinToken{token, op.ID})
		}
	}
	return tokens, nil
}

// RevokeJoinToken withdraws the token that waits for a member of that name.
func (c *Client) RevokeJoinToken(ctx context.Context, member string) error {
	tokens, err := c.JoinTokens(ctx)
	if err != nil {
		return err
	}
	for _, token := range tokens {
		if token.ServerName == member {
			return c.CancelOperation(ctx, token.Operation)
		}
	}
	return fmt.Errorf("no join token for a member %q waits to be used", member)
}

// joinTokenOf makes the token out of what its operation says, whose words are not
// the token's.
func joinTokenOf(op api.Operation) (api.ClusterMemberJoinToken, error) {
	var said struct {
		ServerName  string    `json:"serverName"`
		Secret      string    `json:"secret"`
		Fingerprint string    `json:"fingerprint"`
		Addresses   []string  `json:"addresses"`
		ExpiresAt   time.Time `json:"expiresAt"`
	}
	text, err := json.Marshal(op.Metadata)
	if err == nil {
		err = json.Unmarshal(text, &said)
	}
	if err != nil {
		return api.ClusterMemberJoinToken{}, fmt.Errorf("operation %s: %w", op.ID, err)
	}
	if said.ServerName == "" || said.Secret == "" {
		return api.ClusterMemberJoinToken{}, fmt.Errorf("operation %s holds no join token", op.ID)
	}
	return api.ClusterMemberJoinToken{
		ServerName: said.ServerName, Secret: said.Secret, Fingerprint: said.Fingerprint, Addresses: said.Addresses, ExpiresAt: said.ExpiresAt,
	}, nil
}

// UpdateClusterCertificate replaces the certificate that all members show to clients, given
// with its key in PEM form.
func (c *Client) UpdateClusterCertificate(ctx context.Context, certificate, key string) error {
	put := api.ClusterCertificatePut{ClusterCertificate: certificate, ClusterCertificateKey: key}
	return c.send(ctx, request{method: http.MethodPut, path: at("cluster", "certificate"), body: put})
}
