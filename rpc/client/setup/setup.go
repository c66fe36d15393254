// Package setup makes a fresh server usable: a storage pool, a network, and a
// default profile that uses them. `muster init` and `musterd init` are both made
// of it.
//
// It does everything through the REST API, touches nothing of the host itself,
// and never deletes what it did not create in the same call.
package setup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

// Names that setup gives what it makes, unless told otherwise.
const (
	DefaultPool    = "default"
	DefaultNetwork = "musterbr0"
	DefaultProfile = "default"
)

// Options for Auto. The zero value is what `init --auto` does: make what is
// missing and leave the rest. A pool or a network that is named is what the
// profile uses afterwards, whatever it used before.
type Options struct {
	// Pool is the storage pool's name; "" is DefaultPool.
	Pool string
	// Driver is the pool's; "" is overlay if the server has it, else dir.
	Driver string
	// Source is where the pool is kept; "" is a directory of the server's.
	Source string
	// Size is that of the file which the pool is made in, such as 20GiB; "" leaves it
	// to the server.
	Size string
	// Network is the bridge's name; "" is DefaultNetwork, or the next free one
	// of that kind when somebody else on the host has it.
	Network string
	// NetworkConfig is the bridge's; nil lets the server choose the addresses.
	NetworkConfig map[string]string
	// NoNetwork makes no network.
	NoNetwork bool
	// Profile is the one that gets the devices; "" is DefaultProfile. It must
	// be there.
	Profile string
	// Address is what core.https_address is set to; "" leaves it.
	Address string
	// Cluster is the server's name as the first member of a cluster; "" begins
	// none. It needs an Address that other machines reach.
	Cluster string
	// TrustPassword is what core.trust_password is set to; "" leaves it.
	TrustPassword string
}

// Result says what there is now.
type Result struct {
	// Pool and Network are what the default profile uses; Network is "" when
	// it has none.
	Pool, Network string
	// Made lists what this call created or changed, for people.
	Made []string
}

// Auto makes a pool, a network and the default profile's devices, as far as
// they are not there yet: called twice, the second call changes nothing. When a
// step fails, what this call created is removed again.
func Auto(ctx context.Context, c *client.Client, opts Options) (Result, error) {
	server, _, err := c.Server(ctx)
	if err != nil {
		return Result{}, err
	}
	if server.Auth != "trusted" {
		return Result{}, fmt.Errorf("%s does not trust us: only a trusted client can set it up", c.Name())
	}
	a := auto{c: c, opts: opts, server: server}
	if err := a.run(ctx); err != nil {
		return Result{}, a.undo.roll(ctx, err)
	}
	return a.result, nil
}

type auto struct {
	c      *client.Client
	opts   Options
	server api.Server
	result Result
	undo   undo
}

func (a *auto) run(ctx context.Context) error {
	if err := a.settings(ctx); err != nil {
		return fmt.Errorf("configure the server: %w", err)
	}
	name := orDefault(a.opts.Profile, DefaultProfile)
	profile, _, err := a.c.Profile(ctx, name)
	if err != nil {
		return fmt.Errorf("look at the profile %q: %w", name, err)
	}
	if err := a.pool(ctx, profile); err != nil {
		return fmt.Errorf("make a storage pool: %w", err)
	}
	if err := a.network(ctx, profile); err != nil {
		return fmt.Errorf("make a network: %w", err)
	}
	if err := a.profile(ctx, name); err != nil {
		return err
	}
	return a.cluster(ctx)
}

func (a *auto) settings(ctx context.Context) error {
	config := map[string]any{}
	if a.opts.Address != "" && a.server.Config["core.https_address"] != a.opts.Address {
		config["core.https_address"] = a.opts.Address
		a.made("core.https_address %s", a.opts.Address)
	}
	if a.opts.TrustPassword != "" {
		config["core.trust_password"] = a.opts.TrustPassword
		a.made("core.trust_password")
	}
	if len(config) == 0 {
		return nil
	}
	a.undo.config(a.c, a.server.Config, config)
	return a.c.PatchServer(ctx, api.ServerPut{Config: config})
}

func (a *auto) pool(ctx context.Context, profile api.Profile) error {
	if root, ok := rootOf(profile.Devices); ok && a.opts.Pool == "" {
		a.result.Pool = profile.Devices[root]["pool"]
		return nil
	}
	pools, err := a.c.Pools(ctx)
	if err != nil {
		return err
	}
	want := orDefault(a.opts.Pool, DefaultPool)
	// With no name asked for, a pool that is there already will do.
	if a.opts.Pool == "" && len(pools) == 1 {
		want = pools[0].Name
	}
	a.result.Pool = want
	if slices.ContainsFunc(pools, func(p api.StoragePool) bool { return p.Name == want }) {
		return nil
	}
	driver := a.opts.Driver
	if driver == "" {
		driver = BestDriver(a.server)
	}
	post := api.StoragePoolsPost{Name: want, Driver: driver}
	post.Config = map[string]string{}
	if a.opts.Source != "" {
		post.Config["source"] = a.opts.Source
	}
	if a.opts.Size != "" {
		post.Config["size"] = a.opts.Size
	}
	if err := a.c.CreatePool(ctx, post); err != nil {
		return err
	}
	a.made("storage pool %s (%s)", want, driver)
	a.undo.add(func(ctx context.Context) error { return a.c.DeletePool(ctx, want) })
	return nil
}

func (a *auto) network(ctx context.Context, profile api.Profile) error {
	if a.opts.NoNetwork {
		return nil
	}
	if nic, ok := nicOf(profile.Devices); ok && a.opts.Network == "" {
		a.result.Network = orDefault(profile.Devices[nic]["network"], profile.Devices[nic]["parent"])
		return nil
	}
	networks, err := a.c.Networks(ctx)
	if err != nil {
		return err
	}
	for _, network := range networks {
		if network.Managed && network.Type == "bridge" && (a.opts.Network == "" || a.opts.Network == network.Name) {
			a.result.Network = network.Name
			return nil
		}
	}
	for tries := 0; ; tries++ {
		name := orDefault(a.opts.Network, FreeNetworkName(networks, DefaultNetwork))
		post := api.NetworksPost{Name: name, Type: "bridge"}
		post.Config = maps.Clone(a.opts.NetworkConfig)
		if post.Config == nil {
			post.Config = map[string]string{}
		}
		err := a.c.CreateNetwork(ctx, post)
		if client.IsConflict(err) && a.opts.Network == "" && tries < 20 {
			// Somebody was faster, another daemon of this host for one: the
			// name counts as taken and the next one is tried.
			networks = append(networks, api.Network{Name: name})
			continue
		}
		if err != nil {
			return err
		}
		a.result.Network = name
		a.made("network %s", name)
		a.undo.add(func(ctx context.Context) error { return a.c.DeleteNetwork(ctx, name) })
		return nil
	}
}

func (a *auto) profile(ctx context.Context, name string) error {
	err := a.c.ChangeProfile(ctx, name, func(put *api.ProfilePut) error {
		if put.Devices == nil {
			put.Devices = map[string]map[string]string{}
		}
		changed := false
		if root, ok := rootOf(put.Devices); !ok || put.Devices[root]["pool"] != a.result.Pool {
			put.Devices[root] = map[string]string{"type": "disk", "path": "/", "pool": a.result.Pool}
			changed = true
		}
		nic, ok := nicOf(put.Devices)
		connected := ok && (a.opts.Network == "" || put.Devices[nic]["network"] == a.opts.Network)
		if a.result.Network != "" && !connected {
			put.Devices[nic] = map[string]string{"type": "nic", "name": nic, "network": a.result.Network}
			changed = true
		}
		if !changed {
			return errUnchanged
		}
		return nil
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("change the profile %q: %w", name, err)
	}
	a.made("profile %s", name)
	return nil
}

// errUnchanged ends a read-change-write that has nothing to write.
var errUnchanged = errors.New("unchanged")

func (a *auto) made(format string, args ...any) {
	a.result.Made = append(a.result.Made, fmt.Sprintf(format, args...))
}

// rootOf finds the device that is the root file system, or says what to call it.
func rootOf(devices map[string]map[string]string) (name string, found bool) {
	for name, device := range devices {
		if device["type"] == "disk" && device["path"] == "/" {
			return name, true
		}
	}
	return "root", false
}

// nicOf finds the first network device, or says what to call it.
func nicOf(devices map[string]map[string]string) (name string, found bool) {
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if devices[name]["type"] == "nic" {
			return name, true
		}
	}
	return "eth0", false
}

// BestDriver is the storage driver to propose: overlay, which makes instances at
// once, or else dir, which every server has.
func BestDriver(server api.Server) string {
	for _, driver := range server.Environment.StorageSupportedDrivers {
		if driver.Name == "overlay" {
			return driver.Name
		}
	}
	return "dir"
}

// FreeNetworkName returns wish, or wish with another number at its end, so that
// no network or interface in the list has it.
func FreeNetworkName(networks []api.Network, wish string) string {
	taken := map[string]bool{}
	for _, network := range networks {
		taken[network.Name] = true
	}
	stem := wish
	for len(stem) > 0 && stem[len(stem)-1] >= '0' && stem[len(stem)-1] <= '9' {
		stem = stem[:len(stem)-1]
	}
	name := wish
	for n := 0; taken[name]; n++ {
		name = fmt.Sprintf("%s%d", stem, n)
	}
	return name
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
