package client

import (
	"context"
	"net/http"

	"muster/rpc/rest/api"
)

// Profiles lists the project's profiles.
func (c *Client) Profiles(ctx context.Context) ([]api.Profile, error) {
	return list[api.Profile](ctx, c, at("profiles"), nil)
}

// ProfileNames lists names only.
func (c *Client) ProfileNames(ctx context.Context) ([]string, error) {
	return c.names(ctx, at("profiles"))
}

// Profile finds one, with its ETag.
func (c *Client) Profile(ctx context.Context, name string) (api.Profile, string, error) {
	return getTagged[api.Profile](ctx, c, at("profiles", name), nil)
}

// CreateProfile makes one.
func (c *Client) CreateProfile(ctx context.Context, post api.ProfilesPost) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("profiles"), body: post})
}

// UpdateProfile replaces one; etag may be empty.
func (c *Client) UpdateProfile(ctx context.Context, name string, put api.ProfilePut, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at("profiles", name), body: put, etag: etag})
}

// ChangeProfile is Change for a profile.
func (c *Client) ChangeProfile(ctx context.Context, name string, change func(*api.ProfilePut) error) error {
	return untilWon(ctx, func() error {
		profile, etag, err := c.Profile(ctx, name)
		if err != nil {
			return err
		}
		if err := change(&profile.ProfilePut); err != nil {
			return err
		}
		return c.UpdateProfile(ctx, name, profile.ProfilePut, etag)
	})
}

// RenameProfile renames one.
func (c *Client) RenameProfile(ctx context.Context, name, to string) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("profiles", name), body: api.ProfilePost{Name: to}})
}

// DeleteProfile removes one that no instance uses.
func (c *Client) DeleteProfile(ctx context.Context, name string) error {
	return c.send(ctx, request{method: http.MethodDelete, path: at("profiles", name)})
}
