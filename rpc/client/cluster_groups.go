package client

import (
	"context"
	"net/http"

	"muster/rpc/rest/api"
)

// ClusterGroups lists the groups of members.
func (c *Client) ClusterGroups(ctx context.Context) ([]api.ClusterGroup, error) {
	return list[api.ClusterGroup](ctx, c, at("cluster", "groups"), nil)
}

// ClusterGroupNames lists names only.
func (c *Client) ClusterGroupNames(ctx context.Context) ([]string, error) {
	return c.names(ctx, at("cluster", "groups"))
}

// ClusterGroup finds one, with its ETag.
func (c *Client) ClusterGroup(ctx context.Context, name string) (api.ClusterGroup, string, error) {
	return getTagged[api.ClusterGroup](ctx, c, at("cluster", "groups", name), nil)
}

// CreateClusterGroup makes one.
func (c *Client) CreateClusterGroup(ctx context.Context, post api.ClusterGroupsPost) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("cluster", "groups"), body: post})
}

// UpdateClusterGroup replaces one's description and members; etag may be empty.
func (c *Client) UpdateClusterGroup(ctx context.Context, name string, put api.ClusterGroupPut, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at("cluster", "groups", name), body: put, etag: etag})
}

// RenameClusterGroup gives one another name.
func (c *Client) RenameClusterGroup(ctx context.Context, name, to string) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("cluster", "groups", name), body: api.ClusterGroupPost{Name: to}})
}

// DeleteClusterGroup removes one that no member is in.
func (c *Client) DeleteClusterGroup(ctx context.Context, name string) error {
	return c.send(ctx, request{method: http.MethodDelete, path: at("cluster", "groups", name)})
}
