package client

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"muster/rpc/rest/api"
)

// Server tells about the server and its configuration, with the ETag of the
// configuration.
func (c *Client) Server(ctx context.Context) (api.Server, string, error) {
	return getTagged[api.Server](ctx, c, at(), nil)
}

// UpdateServer replaces the server's configuration; etag may be empty.
func (c *Client) UpdateServer(ctx context.Context, put api.ServerPut, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at(), body: put, etag: etag})
}

// PatchServer changes the named keys of the server's configuration.
func (c *Client) PatchServer(ctx context.Context, put api.ServerPut) error {
	return c.send(ctx, request{method: http.MethodPatch, path: at(), body: put})
}

// Resources is the hardware of the member that answers.
func (c *Client) Resources(ctx context.Context) (api.Resources, error) {
	return get[api.Resources](ctx, c, at("resources"), nil)
}

// Extensions are the names of the API extensions that the server announces.
type Extensions []string

// Has says whether the server announces the extension.
func (e Extensions) Has(name string) bool { return slices.Contains(e, name) }

// Certificates lists the trust store.
func (c *Client) Certificates(ctx context.Context) ([]api.Certificate, error) {
	return list[api.Certificate](ctx, c, at("certificates"), nil)
}

// Certificate finds an entry of the trust store, with its ETag.
func (c *Client) Certificate(ctx context.Context, fingerprint string) (api.Certificate, string, error) {
	return getTagged[api.Certificate](ctx, c, at("certificates", fingerprint), nil)
}

// AddCertificate trusts a certificate. A stranger that gives the password or a
// token's secret adds the certificate it connected with.
func (c *Client) AddCertificate(ctx context.Context, post api.CertificatesPost) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("certificates"), body: post})
}

// CertificateToken makes a trust token: the operation's metadata is what goes
// into an api.CertificateAddToken.
func (c *Client) CertificateToken(ctx context.Context, post api.CertificatesPost) (*Operation, error) {
	post.Token = true
	return c.start(ctx, request{method: http.MethodPost, path: at("certificates"), body: post})
}

// UpdateCertificate replaces an entry of the trust store; etag may be empty.
func (c *Client) UpdateCertificate(ctx context.Context, fingerprint string, put api.CertificatePut, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at("certificates", fingerprint), body: put, etag: etag})
}

// DeleteCertificate stops trusting a certificate.
func (c *Client) DeleteCertificate(ctx context.Context, fingerprint string) error {
	return c.send(ctx, request{method: http.MethodDelete, path: at("certificates", fingerprint)})
}

// Projects lists the projects.
func (c *Client) Projects(ctx context.Context) ([]api.Project, error) {
	return list[api.Project](ctx, c, at("projects"), nil)
}

// FindProject finds one, with its ETag.
func (c *Client) FindProject(ctx context.Context, name string) (api.Project, string, error) {
	return getTagged[api.Project](ctx, c, at("projects", name), nil)
}

// CreateProject makes one.
func (c *Client) CreateProject(ctx context.Context, post api.ProjectsPost) error {
	if post.Config == nil {
		// LXD gives null another meaning than nothing: no features at all.
		post.Config = map[string]string{}
	}
	return c.send(ctx, request{method: http.MethodPost, path: at("projects"), body: post})
}

// UpdateProject replaces one; etag may be empty.
func (c *Client) UpdateProject(ctx context.Context, name string, put api.ProjectPut, etag string) error {
	return c.send(ctx, request{method: http.MethodPut, path: at("projects", name), body: put, etag: etag})
}

// ChangeProject is Change for a project.
func (c *Client) ChangeProject(ctx context.Context, name string, change func(*api.ProjectPut) error) error {
	return untilWon(ctx, func() error {
		project, etag, err := c.FindProject(ctx, name)
		if err != nil {
			return err
		}
		if err := change(&project.ProjectPut); err != nil {
			return err
		}
		return c.UpdateProject(ctx, name, project.ProjectPut, etag)
	})
}

// RenameProject renames one and waits for it.
func (c *Client) RenameProject(ctx context.Context, name, to string) error {
	return c.send(ctx, request{method: http.MethodPost, path: at("projects", name), body: api.ProjectPost{Name: to}})
}

// DeleteProject removes an empty one.
func (c *Client) DeleteProject(ctx context.Context, name string) error {
	return c.send(ctx, request{method: http.MethodDelete, path: at("projects", name)})
}

// ProjectState is what a project uses of its limits.
func (c *Client) ProjectState(ctx context.Context, name string) (api.ProjectState, error) {
	return get[api.ProjectState](ctx, c, at("projects", name, "state"), nil)
}

// Raw sends any request and returns the envelope, for tools that let people
// talk to the API by hand. The path starts with "/" and is escaped already,
// query included; body may be nil.
func (c *Client) Raw(ctx context.Context, method, path string, body []byte) (api.Response, error) {
	u, err := url.Parse(path)
	if err != nil {
		return api.Response{}, err
	}
	r := request{method: method, path: u.EscapedPath(), query: u.Query()}
	if body != nil {
		r.body = rawJSON(body)
	}
	envelope, _, err := c.call(ctx, r)
	return envelope, err
}

// rawJSON is sent as it is.
type rawJSON []byte

// MarshalJSON implements json.Marshaler.
func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

// ServerKeys lists the keys of the server's configuration, by name.
func (c *Client) ServerKeys(ctx context.Context) (map[string]api.MetadataConfigurationKey, error) {
	all, err := get[api.MetadataConfiguration](ctx, c, at("metadata", "configuration"), nil)
	if err != nil {
		return nil, err
	}
	keys := map[string]api.MetadataConfigurationKey{}
	for _, group := range all.Configs["server"] {
		for _, each := range group.Keys {
			maps.Copy(keys, each)
		}
	}
	return keys, nil
}
