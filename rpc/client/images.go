package client

import (
	"context"
	"net/http"
	"net/url"

	"muster/rpc/rest/api"
)

// Images lists the project's images; filter is in the API's filter language.
func (c *Client) Images(ctx context.Context, filter string) ([]api.Image, error) {
	query := url.Values{}
	if filter != "" {
		query.Set("filter", filter)
	}
	return list[api.Image](ctx, c, at("images"), query)
}

// Image finds one by its fingerprint or the start of it, with its ETag.
func (c *Client) Image(ctx context.Context, fingerprint string) (api.Image, string, error) {
	return getTagged[api.Image](ctx, c, at("images", fingerprint), nil)
}

// ResolveImage finds an image by alias or by fingerprint; an alias wins.
func (c *Client) ResolveImage(ctx context.Context, name string) (api.Image, string, error) {
	alias, _, err := c.ImageAlias(ctx, name)
	if err == nil {
		return c.Image(ctx, alias.Target)
	}
	if !IsNotFound(err) {
		return api.Image{}, "", err
	}
	return c.Image(ctx, name)
}

// CreateImage makes an image from an instance, a snapshot, a URL or another
// server; the operation's metadata has its "fingerprint".
func (c *Client) CreateImage(ctx context.Context, post api.ImagesPost) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPost, path: at("images"), body: post})
}

// UpdateImage replaces an image's properties; etag may be empty.
func (c *Client) UpdateImage(ctx context.Context, fingerprint string, put api.ImagePut, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at("images", fingerprint), body: put, etag: etag})
}

// ChangeImage is Change for an image.
func (c *Client) ChangeImage(ctx context.Context, fingerprint string, change func(*api.ImagePut) error) error {
	return untilWon(ctx, func() error {
		image, etag, err := c.Image(ctx, fingerprint)
		if err != nil {
			return err
		}
		if err := change(&image.ImagePut); err != nil {
			return err
		}
		return c.UpdateImage(ctx, image.Fingerprint, image.ImagePut, etag)
	})
}

// DeleteImage removes one.
func (c *Client) DeleteImage(ctx context.Context, fingerprint string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodDelete, path: at("images", fingerprint)})
}

// RefreshImage asks for a newer version from where the image came.
func (c *Client) RefreshImage(ctx context.Context, fingerprint string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPost, path: at("images", fingerprint, "refresh")})
}

// ImageSecret makes a token operation whose secret lets a stranger download a
// private image once.
func (c *Client) ImageSecret(ctx context.Context, fingerprint string) (*Operation, error) {
	return c.start(ctx, request{method: http.MethodPost, path: at("images", fingerprint, "secret")})
}

// ImageAliases lists aliases.
func (c *Client) ImageAliases(ctx context.Context) ([]api.ImageAliasesEntry, error) {
	return list[api.ImageAliasesEntry](ctx, c, at("images", "aliases"), nil)
}

// ImageAlias finds one, with its ETag.
func (c *Client) ImageAlias(ctx context.Context, name string) (api.ImageAliasesEntry, string, error) {
	return getTagged[api.ImageAliasesEntry](ctx, c, at("images", "aliases", name), nil)
}

// CreateImageAlias makes one.
func (c *Client) CreateImageAlias(ctx context.Context, post api.ImageAliasesPost) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("images", "aliases"), body: post})
}

// UpdateImageAlias points an alias elsewhere; etag may be empty.
func (c *Client) UpdateImageAlias(ctx context.Context, name string, put api.ImageAliasesEntryPut, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at("images", "aliases", name), body: put, etag: etag})
}

// RenameImageAlias renames one.
func (c *Client) RenameImageAlias(ctx context.Context, name, to string) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("images", "aliases", name), body: api.ImageAliasesEntryPost{Name: to}})
}

// DeleteImageAlias removes one; the image stays.
func (c *Client) DeleteImageAlias(ctx context.Context, name string) error {
	return c.send(ctx, request{method: http.MethodDelete, path: at("images", "aliases", name)})
}
