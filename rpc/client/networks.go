package client

import (
	"context"
	"net/http"

	"muster/rpc/rest/api"
)

// Networks lists managed networks and the host's interfaces.
func (c *Client) Networks(ctx context.Context) ([]api.Network, error) {
	return list[api.Network](ctx, c, at("networks"), nil)
}

// NetworkNames lists names only.
func (c *Client) NetworkNames(ctx context.Context) ([]string, error) {
	return c.names(ctx, at("networks"))
}

// Network finds one, with its ETag.
func (c *Client) Network(ctx context.Context, name string) (api.Network, string, error) {
	return getTagged[api.Network](ctx, c, at("networks", name), nil)
}

// NetworkState is the network's interface on the host.
func (c *Client) NetworkState(ctx context.Context, name string) (api.NetworkState, error) {
	return get[api.NetworkState](ctx, c, at("networks", name, "state"), nil)
}

// NetworkLeases lists the addresses in use.
func (c *Client) NetworkLeases(ctx context.Context, name string) ([]api.NetworkLease, error) {
	return get[[]api.NetworkLease](ctx, c, at("networks", name, "leases"), nil)
}

// CreateNetwork makes one.
func (c *Client) CreateNetwork(ctx context.Context, post api.NetworksPost) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("networks"), body: post})
}

// UpdateNetwork replaces one; etag may be empty.
func (c *Client) UpdateNetwork(ctx context.Context, name string, put api.NetworkPut, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at("networks", name), body: put, etag: etag})
}

// ChangeNetwork is Change for a network.
func (c *Client) ChangeNetwork(ctx context.Context, name string, change func(*api.NetworkPut) error) error {
	return untilWon(ctx, func() error {
		network, etag, err := c.Network(ctx, name)
		if err != nil {
			return err
		}
		if err := change(&network.NetworkPut); err != nil {
			return err
		}
		return c.UpdateNetwork(ctx, name, network.NetworkPut, etag)
	})
}

// RenameNetwork renames one that nothing uses.
func (c *Client) RenameNetwork(ctx context.Context, name, to string) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("networks", name), body: api.NetworkPost{Name: to}})
}

// DeleteNetwork removes one that nothing uses.
func (c *Client) DeleteNetwork(ctx context.Context, name string) error {
	return c.send(ctx, request{method: http.MethodDelete, path: at("networks", name)})
}
