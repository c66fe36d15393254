package setup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"muster/rpc/client"
	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

// Interactive asks a person what the server should be like and makes it so. An
// empty answer takes the proposal in brackets. Nothing is changed before the
// last question.
func Interactive(ctx context.Context, c *client.Client, in io.Reader, out io.Writer) (Result, error) {
	server, _, err := c.Server(ctx)
	if err != nil {
		return Result{}, err
	}
	networks, err := c.Networks(ctx)
	if err != nil {
		return Result{}, err
	}
	pools, err := c.Pools(ctx)
	if err != nil {
		return Result{}, err
	}
	q := questions{in: bufio.NewReader(in), out: out}
	m, err := q.membership(server, reachedAt(server, c.Local()), termsOf(ctx, c))
	if err != nil {
		return Result{}, err
	}
	if m.token != "" {
		return q.join(ctx, c, m)
	}
	opts, err := q.options(m, server, networks, pools)
	if err != nil {
		return Result{}, err
	}
	plan, err := yamldoc.Marshal(planOf(opts))
	if err != nil {
		return Result{}, err
	}
	fmt.Fprintf(out, "\nThis is going to be made:\n%s\n", plan)
	switch yes, err := q.yes("Go ahead?", true); {
	case err != nil:
		return Result{}, err
	case !yes:
		return Result{}, errors.New("nothing was changed")
	}
	return Auto(ctx, c, opts)
}

// ErrNoAnswer means that the answers ended before the questions did.
var ErrNoAnswer = errors.New("no answer")

// planOf shows options to a person.
func planOf(opts Options) Seed {
	seed := Seed{Config: map[string]string{}, Networks: []SeedNetwork{}, Projects: []api.ProjectsPost{}}
	if opts.Address != "" {
		seed.Config["core.https_address"] = opts.Address
	}
	if opts.TrustPassword != "" {
		seed.Config["core.trust_password"] = "(as given)"
	}
	pool := api.StoragePoolsPost{Name: opts.Pool, Driver: opts.Driver}
	pool.Config = map[string]string{}
	if opts.Source != "" {
		pool.Config["source"] = opts.Source
	}
	seed.StoragePools = append(seed.StoragePools, pool)
	devices := map[string]map[string]string{"root": {"type": "disk", "path": "/", "pool": opts.Pool}}
	if !opts.NoNetwork {
		post := api.NetworksPost{Name: opts.Network, Type: "bridge", NetworkPut: api.NetworkPut{Config: opts.NetworkConfig}}
		seed.Networks = append(seed.Networks, SeedNetwork{NetworksPost: post})
		devices["eth0"] = map[string]string{"type": "nic", "name": "eth0", "network": opts.Network}
	}
	profile := api.ProfilesPost{Name: orDefault(opts.Profile, DefaultProfile), ProfilePut: api.ProfilePut{Config: map[string]string{}, Devices: devices}}
	seed.Profiles = append(seed.Profiles, SeedProfile{ProfilesPost: profile})
	if opts.Cluster != "" {
		seed.Cluster = &SeedCluster{ServerName: opts.Cluster, Enabled: true}
	}
	return seed
}

type questions struct {
	in  *bufio.Reader
	out io.Writer
}

func (q questions) options(m membership, server api.Server, networks []api.Network, pools []api.StoragePool) (Options, error) {
	opts := Options{Cluster: m.name, Address: m.address}
	var err error
	if opts.Pool, err = q.ask("Name of the storage pool", DefaultPool, nil); err != nil {
		return opts, err
	}
	if i := slices.IndexFunc(pools, func(p api.StoragePool) bool { return p.Name == opts.Pool }); i >= 0 {
		opts.Driver = pools[i].Driver
		fmt.Fprintf(q.out, "It is there already, with the driver %s, and will be used.\n", opts.Driver)
	} else if err := q.pool(&opts, server); err != nil {
		return opts, err
	}
	if err := q.network(&opts, networks); err != nil {
		return opts, err
	}
	if m.address != "" {
		return opts, nil
	}
	if reachable, err := q.yes("Should the server be reachable over the network?", false); err != nil || !reachable {
		return opts, err
	}
	opts.Address, err = q.ask("Address to listen on, with the port", "[::]:8443", func(s string) error {
		_, _, err := net.SplitHostPort(s)
		return err
	})
	if err != nil {
		return opts, err
	}
	fmt.Fprintln(q.out, "Clients are let in with `muster config trust add --name NAME`, which prints a token for each.")
	return opts, nil
}

func (q questions) pool(opts *Options, server api.Server) error {
	var names []string
	for _, driver := range server.Environment.StorageSupportedDrivers {
		names = append(names, driver.Name)
	}
	var err error
	question := fmt.Sprintf("Storage driver (%s)", strings.Join(names, ", "))
	opts.Driver, err = q.ask(question, BestDriver(server), func(s string) error {
		if !slices.Contains(names, s) {
			return fmt.Errorf("%q is none of %s", s, strings.Join(names, ", "))
		}
		return nil
	})
	if err != nil {
		return err
	}
	opts.Source, err = q.ask("Where it is kept (empty: below the server's directory)", "", nil)
	return err
}

func (q questions) network(opts *Options, networks []api.Network) error {
	if wanted, err := q.yes("Make a network bridge for the instances?", true); err != nil || !wanted {
		opts.NoNetwork = err == nil
		return err
	}
	var err error
	opts.Network, err = q.ask("Name of the bridge", FreeNetworkName(networks, DefaultNetwork), func(s string) error {
		for _, network := range networks {
			if network.Name == s && !network.Managed {
				return fmt.Errorf("the host has an interface %q already", s)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	opts.NetworkConfig = map[string]string{}
	for _, family := range []struct{ key, question string }{
		{"ipv4.address", "IPv4 address with prefix length (auto, none, or such as 10.20.30.1/24)"},
		{"ipv6.address", "IPv6 address with prefix length (auto or none)"},
	} {
		opts.NetworkConfig[family.key], err = q.ask(family.question, "auto", func(s string) error {
			if s == "auto" || s == "none" {
				return nil
			}
			_, _, err := net.ParseCIDR(s)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hopeless is a problem that no other answer to the question would mend.
type hopeless struct{ error }

// ask repeats the question until the answer passes.
func (q questions) ask(question, proposal string, check func(string) error) (string, error) {
	var problem error
	for {
		shown := question
		if proposal != "" {
			shown += " [" + proposal + "]"
		}
		fmt.Fprint(q.out, shown, ": ")
		line, err := q.in.ReadString('\n')
		if err != nil && (line == "" || !errors.Is(err, io.EOF)) {
			if problem != nil {
				return "", fmt.Errorf("%w to %q that would do: %w", ErrNoAnswer, question, problem)
			}
			return "", fmt.Errorf("%w to %q: %w", ErrNoAnswer, question, err)
		}
		answer := strings.TrimSpace(line)
		if answer == "" {
			answer = proposal
		}
		if check == nil {
			return answer, nil
		}
		problem = check(answer)
		if problem == nil {
			return answer, nil
		}
		if end, ok := errors.AsType[hopeless](problem); ok {
			return "", end.error
		}
		fmt.Fprintln(q.out, problem)
	}
}

func (q questions) yes(question string, proposal bool) (bool, error) {
	word := "no"
	if proposal {
		word = "yes"
	}
	answer, err := q.ask(question+" (yes/no)", word, func(s string) error {
		switch strings.ToLower(s) {
		case "y", "yes", "n", "no":
			return nil
		}
		return errors.New("yes or no?")
	})
	return strings.HasPrefix(strings.ToLower(answer), "y"), err
}
