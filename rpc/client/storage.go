package client

import (
	"context"
	"net/http"

	"muster/rpc/rest/api"
)

// Pools lists the storage pools.
func (c *Client) Pools(ctx context.Context) ([]api.StoragePool, error) {
	return list[api.StoragePool](ctx, c, at("storage-pools"), nil)
}

// PoolNames lists names only.
func (c *Client) PoolNames(ctx context.Context) ([]string, error) {
	return c.names(ctx, at("storage-pools"))
}

// Pool finds one, with its ETag.
func (c *Client) Pool(ctx context.Context, name string) (api.StoragePool, string, error) {
	return getTagged[api.StoragePool](ctx, c, at("storage-pools", name), nil)
}

// PoolResources says how full a pool is.
func (c *Client) PoolResources(ctx context.Context, name string) (api.ResourcesStoragePool, error) {
	return get[api.ResourcesStoragePool](ctx, c, at("storage-pools", name, "resources"), nil)
}

// CreatePool makes one.
func (c *Client) CreatePool(ctx context.Context, post api.StoragePoolsPost) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("storage-pools"), body: post})
}

// UpdatePool replaces one; etag may be empty.
func (c *Client) UpdatePool(ctx context.Context, name string, put api.StoragePoolPut, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at("storage-pools", name), body: put, etag: etag})
}

// ChangePool is Change for a pool.
func (c *Client) ChangePool(ctx context.Context, name string, change func(*api.StoragePoolPut) error) error {
	return untilWon(ctx, func() error {
		pool, etag, err := c.Pool(ctx, name)
		if err != nil {
			return err
		}
		if err := change(&pool.StoragePoolPut); err != nil {
			return err
		}
		return c.UpdatePool(ctx, name, pool.StoragePoolPut, etag)
	})
}

// DeletePool removes an empty one.
func (c *Client) DeletePool(ctx context.Context, name string) error {
	return c.send(ctx, request{method: http.MethodDelete, path: at("storage-pools", name)})
}

// Volumes lists a pool's volumes of all types.
func (c *Client) Volumes(ctx context.Context, pool string) ([]api.StorageVolume, error) {
	return list[api.StorageVolume](ctx, c, at("storage-pools", pool, "volumes"), nil)
}

// Volume finds one, with its ETag. Kind is "container", "image" or "custom".
func (c *Client) Volume(ctx context.Context, pool, kind, name string) (api.StorageVolume, string, error) {
	return getTagged[api.StorageVolume](ctx, c, at("storage-pools", pool, "volumes", kind, name), nil)
}

// CreateVolume makes a volume of the kind "custom".
func (c *Client) CreateVolume(ctx context.Context, pool string, post api.StorageVolumesPost) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("storage-pools", pool, "volumes", post.Type), body: post})
}

// UpdateVolume replaces one; etag may be empty.
func (c *Client) UpdateVolume(ctx context.Context, pool, kind, name string, put api.StorageVolumePut, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at("storage-pools", pool, "volumes", kind, name), body: put, etag: etag})
}

// DeleteVolume removes one that nothing uses.
func (c *Client) DeleteVolume(ctx context.Context, pool, kind, name string) error {
	return c.send(ctx, request{method: http.MethodDelete, path: at("storage-pools", pool, "volumes", kind, name)})
}
