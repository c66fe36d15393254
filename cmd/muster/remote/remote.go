// Package remote keeps the list of servers that a person works with: their names,
// addresses and certificates, in a directory of that person's.
//
// It asks no questions, prints nothing and sends no request; connecting happens
// when the client it returns is used.
package remote

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"muster/rpc/client"
	"muster/rpc/client/yamldoc"
)

// Local is the name of the remote that every configuration has: the daemon of
// this machine, by its unix socket.
const Local = "local"

// Remote is one server. The keys in the file are those of LXD's client, so that
// an entry can be copied over.
type Remote struct {
	// Addr is https://host:port, unix:// for this machine's daemon, or
	// unix:///path/of/a/socket.
	Addr string `json:"addr"`
	// AuthType is "tls" or "".
	AuthType string `json:"auth_type,omitempty"`
	// Project is the one that commands use when they name none.
	Project string `json:"project,omitempty"`
	// Protocol is "lxd" or "".
	Protocol string `json:"protocol,omitempty"`
	// Public servers only hand out images, and know nobody.
	Public bool `json:"public"`
	// Static remotes can't be changed.
	Static bool `json:"-"`
}

// Config is the list and where it is kept.
type Config struct {
	// Default is the remote meant by names without one.
	Default string
	// Remotes are all of them, Local included.
	Remotes map[string]Remote
	// Aliases are command lines by the names that the user gave them.
	Aliases map[string]string

	dir    string
	socket string
}

type document struct {
	Default string            `json:"default-remote"`
	Remotes map[string]Remote `json:"remotes"`
	Aliases map[string]string `json:"aliases"`
}

// Load reads the configuration of a directory; one that does not exist is as
// good as an empty one. Socket is where Local is found.
func Load(dir, socket string) (*Config, error) {
	c := &Config{Default: Local, Remotes: map[string]Remote{}, Aliases: map[string]string{}, dir: dir, socket: socket}
	text, err := os.ReadFile(filepath.Join(dir, "config.yml"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var doc document
	if err := yamldoc.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "config.yml"), err)
	}
	maps.Copy(c.Remotes, doc.Remotes)
	maps.Copy(c.Aliases, doc.Aliases)
	// Only the project of Local is the user's to choose.
	c.Remotes[Local] = Remote{Addr: "unix://", Project: doc.Remotes[Local].Project, Static: true}
	if _, ok := c.Remotes[doc.Default]; ok {
		c.Default = doc.Default
	}
	return c, nil
}

// Save writes the configuration, whole or not at all.
func (c *Config) Save() error {
	doc := document{Default: c.Default, Remotes: map[string]Remote{}, Aliases: c.Aliases}
	for name, r := range c.Remotes {
		if !r.Static || r.Project != "" {
			doc.Remotes[name] = r
		}
	}
	text, err := yamldoc.Marshal(doc)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o750); err != nil {
		return err
	}
	return replace(filepath.Join(c.dir, "config.yml"), text, 0o600)
}

// replace writes a file so that readers see the old text or the new.
func replace(name string, text []byte, mode fs.FileMode) error {
	temporary, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	// After the rename there is nothing left to remove.
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(text)
	err = errors.Join(err, temporary.Chmod(mode), temporary.Close())
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), name)
}

// Names lists the remotes in order.
func (c *Config) Names() []string { return slices.Sorted(maps.Keys(c.Remotes)) }

// Split takes "remote:name" apart; without a colon, and when what stands before
// it is no remote but part of an address, the default remote is meant. An
// unknown remote is an error that names those there are.
func (c *Config) Split(arg string) (remote, name string, err error) {
	before, after, found := strings.Cut(arg, ":")
	if !found {
		return c.Default, arg, nil
	}
	if _, ok := c.Remotes[before]; !ok {
		return "", "", fmt.Errorf("there is no remote %q (there are: %s); see `muster remote add --help`", before, strings.Join(c.Names(), ", "))
	}
	return before, after, nil
}

// Add puts a remote on the list.
func (c *Config) Add(name string, r Remote) error {
	switch {
	case name == "" || strings.ContainsAny(name, ":/ "):
		return fmt.Errorf("%q can't be a remote's name: it is empty or has a colon, slash or space", name)
	case c.has(name):
		return fmt.Errorf("there is a remote %q already", name)
	}
	c.Remotes[name] = r
	return nil
}

func (c *Config) has(name string) bool {
	_, ok := c.Remotes[name]
	return ok
}

// Remove takes a remote off the list and forgets its certificate.
func (c *Config) Remove(name string) error {
	if err := c.changeable(name); err != nil {
		return err
	}
	if c.Default == name {
		return fmt.Errorf("%q is the default remote; `muster remote switch` to another one first", name)
	}
	delete(c.Remotes, name)
	err := os.Remove(c.certificateFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Rename gives a remote another name.
func (c *Config) Rename(name, to string) error {
	if err := c.changeable(name); err != nil {
		return err
	}
	if err := c.Add(to, c.Remotes[name]); err != nil {
		return err
	}
	delete(c.Remotes, name)
	if c.Default == name {
		c.Default = to
	}
	err := os.Rename(c.certificateFile(name), c.certificateFile(to))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// SetURL gives a remote another address.
func (c *Config) SetURL(name, address string) error {
	if err := c.changeable(name); err != nil {
		return err
	}
	r := c.Remotes[name]
	r.Addr = address
	c.Remotes[name] = r
	return nil
}

func (c *Config) changeable(name string) error {
	if !c.has(name) {
		return fmt.Errorf("there is no remote %q", name)
	}
	if c.Remotes[name].Static {
		return fmt.Errorf("the remote %q can't be changed", name)
	}
	return nil
}

// Options for Connect.
type Options struct {
	// Project overrides the remote's.
	Project string
	Log     *slog.Logger
	// Stale and Warn are as in client.Config.
	Stale func(old time.Duration)
	Warn  func(warning string)
}

// Connect returns a client for a remote.
func (c *Config) Connect(name string, opts Options) (*client.Client, error) {
	r, ok := c.Remotes[name]
	if !ok {
		return nil, fmt.Errorf("there is no remote %q", name)
	}
	cfg := client.Config{Project: opts.Project, Log: opts.Log, Stale: opts.Stale, Warn: opts.Warn}
	if cfg.Project == "" {
		cfg.Project = r.Project
	}
	if path, ok := strings.CutPrefix(r.Addr, "unix:"); ok {
		cfg.Socket = strings.TrimPrefix(path, "//")
		if cfg.Socket == "" {
			cfg.Socket = c.socket
		}
		return client.New(cfg)
	}
	cfg.URL = r.Addr
	pinned, err := c.ServerCertificate(name)
	if err != nil {
		return nil, err
	}
	cfg.ServerCertificate = pinned
	if !r.Public {
		if cfg.Certificate, err = c.Identity(); err != nil {
			return nil, err
		}
	}
	return client.New(cfg)
}

// ServerCertificate is the certificate pinned for a remote, or nil.
func (c *Config) ServerCertificate(name string) (*x509.Certificate, error) {
	text, err := os.ReadFile(c.certificateFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", c.certificateFile(name))
	}
	return x509.ParseCertificate(block.Bytes)
}

// Pin makes a certificate the only one that a remote may show.
func (c *Config) Pin(name string, certificate *x509.Certificate) error {
	file := c.certificateFile(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	return replace(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}), 0o644)
}

func (c *Config) certificateFile(name string) string {
	return filepath.Join(c.dir, "servercerts", name+".crt")
}

// DefaultPort is where muster listens.
const DefaultPort = "8443"

// Address completes what a person typed to https://host:port: the scheme and
// the port may be left out.
func Address(typed string) (string, error) {
	if strings.HasPrefix(typed, "unix:") {
		return typed, nil
	}
	if !strings.Contains(typed, "://") {
		typed = "https://" + typed
	}
	u, err := url.Parse(typed)
	if err != nil {
		// A bare IPv6 address is no URL yet.
		host := strings.TrimPrefix(typed, "https://")
		if net.ParseIP(host) == nil {
			return "", fmt.Errorf("%q is no address: want host, host:port or https://host:port", typed)
		}
		return "https://" + net.JoinHostPort(host, DefaultPort), nil
	}
	if u.Scheme != "https" || u.Hostname() == "" {
		return "", fmt.Errorf("%q is no address: want host, host:port or https://host:port", typed)
	}
	port := u.Port()
	if port == "" {
		port = DefaultPort
	}
	return "https://" + net.JoinHostPort(u.Hostname(), port), nil
}
