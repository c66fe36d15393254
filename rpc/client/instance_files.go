package client

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"path"

	"muster/rpc/rest/api"
)

// Metadata is the copy of its image's metadata that an instance keeps, with its
// ETag.
func (c *Client) Metadata(ctx context.Context, instance string) (api.ImageMetadata, string, error) {
	return getTagged[api.ImageMetadata](ctx, c, at("instances", instance, "metadata"), nil)
}

// UpdateMetadata replaces it; etag may be empty.
func (c *Client) UpdateMetadata(ctx context.Context, instance string, metadata api.ImageMetadata, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at("instances", instance, "metadata"), body: metadata, etag: etag})
}

// Templates lists the names of an instance's template files.
func (c *Client) Templates(ctx context.Context, instance string) ([]string, error) {
	return get[[]string](ctx, c, at("instances", instance, "metadata", "templates"), nil)
}

// Template reads one template file.
func (c *Client) Template(ctx context.Context, instance, name string) ([]byte, error) {
	return c.text(ctx, at("instances", instance, "metadata", "templates"), url.Values{"path": {name}})
}

// WriteTemplate creates a template file or replaces it.
func (c *Client) WriteTemplate(ctx context.Context, instance, name string, content []byte) error {
	return c.send(ctx, request{
		method: http.MethodPost, path: at("instances", instance, "metadata", "templates"),
		query: url.Values{"path": {name}}, raw: bytes.NewReader(content), length: int64(len(content)),
		header: http.Header{"Content-Type": {"application/octet-stream"}},
	})
}

// DeleteTemplate removes a template file.
func (c *Client) DeleteTemplate(ctx context.Context, instance, name string) error {
	return c.send(ctx, request{
		method: http.MethodDelete, path: at("instances", instance, "metadata", "templates"), query: url.Values{"path": {name}},
	})
}

// Logs lists the names of an instance's log files.
func (c *Client) Logs(ctx context.Context, instance string) ([]string, error) {
	return c.names(ctx, at("instances", instance, "logs"))
}

// Log reads one log file.
func (c *Client) Log(ctx context.Context, instance, name string) ([]byte, error) {
	return c.text(ctx, at("instances", instance, "logs", name), nil)
}

// ConsoleLog reads what an instance has written to its console.
func (c *Client) ConsoleLog(ctx context.Context, instance string) ([]byte, error) {
	return c.text(ctx, at("instances", instance, "console"), nil)
}

// ClearConsoleLog forgets it.
func (c *Client) ClearConsoleLog(ctx context.Context, instance string) error {
	return c.send(ctx, request{method: http.MethodDelete, path: at("instances", instance, "console")})
}

// text fetches an answer that is a file and small enough to hold.
func (c *Client) text(ctx context.Context, p string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	resp, err := c.open(ctx, request{method: http.MethodGet, path: p, query: query})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// names lists a collection and keeps the last part of each URL.
func (c *Client) names(ctx context.Context, p string) ([]string, error) {
	urls, err := get[[]string](ctx, c, p, nil)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(urls))
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		names = append(names, path.Base(u.Path))
	}
	return names, nil
}
