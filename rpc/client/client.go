// Package client talks to the REST API of muster, or of LXD 5.0, for programs
// written in Go: typed calls, operations that can be waited for, commands run
// over websockets, files, images and events.
//
// It never guesses what a user meant, prints nothing, keeps no state on disk,
// and imports no other room of muster but rpc/rest/api.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"
)

// RequestTimeout bounds every request that is not a wait, an upload, a download
// or a stream, unless the caller's context ends sooner.
const RequestTimeout = 60 * time.Second

const dialTimeout = 10 * time.Second

// Config says which server to talk to, and as whom.
type Config struct {
	// Socket is the path of the server's unix socket. When it is set, the URL
	// and the certificates are not used.
	Socket string
	// URL is https://host:port.
	URL string
	// Certificate proves who we are; nil stays a stranger.
	Certificate *tls.Certificate
	// ServerCertificate is the only certificate the server may show; nil
	// accepts what the system's authorities signed for the host's name.
	ServerCertificate *x509.Certificate
	// Project is asked for in every request; "" is the server's default.
	Project string
	// Target names the cluster member that new things should be placed on.
	Target string
	// UserAgent identifies the program; "" is "muster".
	UserAgent string
	// Log gets every request and answer at debug level; nil drops them.
	Log *slog.Logger
	// Stale, if not nil, is told of each answer that may be so old, because the server has
	// no majority of its cluster.
	Stale func(old time.Duration)
	// Warn, if not nil, is told what the server warns of although it did what it was asked
	// for.
	Warn func(warning string)
}

// Client is a connection to one server. It may be used by many goroutines.
type Client struct {
	http      *http.Client
	transport *http.Transport
	dialTLS   *tls.Config
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	base      url.URL
	name      string
	project   string
	target    string
	agent     string
	log       *slog.Logger
	stale     func(old time.Duration)
	warn      func(warning string)
}

// New checks the configuration; it connects to nothing yet.
func New(cfg Config) (*Client, error) {
	c := &Client{
		project: cfg.Project, target: cfg.Target,
		agent: cfg.UserAgent, log: cfg.Log, stale: cfg.Stale, warn: cfg.Warn,
	}
	if c.agent == "" {
		c.agent = "muster"
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	switch {
	case cfg.Socket != "":
		// The host name is never resolved; it fills the Host header.
		c.base = url.URL{Scheme: "http", Host: "unix.socket"}
		c.name = cfg.Socket
		c.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", cfg.Socket)
		}
	case cfg.URL != "":
		base, err := url.Parse(cfg.URL)
		if err != nil || base.Scheme != "https" || base.Host == "" {
			return nil, fmt.Errorf("server address %q: want https://host:port", cfg.URL)
		}
		c.base = url.URL{Scheme: base.Scheme, Host: base.Host}
		c.name = c.base.String()
		c.dial = dialer.DialContext
		c.dialTLS = tlsConfig(cfg)
	default:
		return nil, errors.New("no server: a socket or a URL is needed")
	}
	c.transport = &http.Transport{
		DialContext:           c.dial,
		TLSClientConfig:       c.dialTLS,
		TLSHandshakeTimeout:   dialTimeout,
		IdleConnTimeout:       30 * time.Second,
		ExpectContinueTimeout: time.Second,
		// A compressed answer would hide a file's true length.
		DisableCompression: true,
	}
	c.http = &http.Client{Transport: c.transport}
	return c, nil
}

// Warn tells whoever made the client what deserves attention and is no failure.
func (c *Client) Warn(format string, args ...any) {
	if c.warn != nil {
		c.warn(fmt.Sprintf(format, args...))
	}
}

// Close drops idle connections. A Client made with WithProject or WithTarget
// shares them with its origin.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// WithProject returns a client that asks for another project.
func (c *Client) WithProject(project string) *Client {
	other := *c
	other.project = project
	return &other
}

// WithTarget returns a client that places new things on the named member, or
// on a member of the group when the name starts with "@".
func (c *Client) WithTarget(member string) *Client {
	other := *c
	other.target = member
	return &other
}

// Name is the socket's path or the server's URL.
func (c *Client) Name() string { return c.name }

// Project is the project that requests name; "" is the server's default.
func (c *Client) Project() string { return c.project }

// Local says that the server is reached by a unix socket.
func (c *Client) Local() bool { return c.dialTLS == nil }
