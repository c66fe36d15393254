package main

import (
	"context"
	"fmt"
	"maps"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/client"
	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

// newInstance are the flags of launch and init.
type newInstance struct {
	config, devices, profiles  []string
	network, pool, target      string
	ephemeral, noProfiles      bool
	empty                      bool
	description, instanceClass string
}

func (n *newInstance) flags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&n.config, "config", "c", nil, "KEY=VALUE of the new instance's configuration")
	f.StringArrayVarP(&n.devices, "device", "d", nil, "DEVICE,KEY=VALUE of a device")
	f.StringArrayVarP(&n.profiles, "profile", "p", nil, "profile to apply (default: the image's)")
	f.BoolVar(&n.noProfiles, "no-profiles", false, "apply no profile")
	f.BoolVarP(&n.ephemeral, "ephemeral", "e", false, "delete the instance when it stops")
	f.StringVarP(&n.network, "network", "n", "", "network to connect to")
	f.StringVarP(&n.pool, "storage", "s", "", "storage pool to use")
	f.StringVarP(&n.instanceClass, "type", "t", "", "size by a cloud's name, such as t2.micro or c2-m4")
	f.BoolVar(&n.empty, "empty", false, "no image: an empty root file system")
	f.StringVar(&n.description, "description", "", "what the instance is for")
	a.targetFlag(cmd, &n.target)
	_ = cmd.RegisterFlagCompletionFunc("profile", a.complete(profileNames))
	_ = cmd.RegisterFlagCompletionFunc("network", a.complete(networkNames))
	_ = cmd.RegisterFlagCompletionFunc("storage", a.complete(poolNames))
}

func (a *app) launchCommand() *cobra.Command {
	var flags newInstance
	var console bool
	cmd := &cobra.Command{
		Use:   "launch [REMOTE:]IMAGE [REMOTE:][NAME]",
		Short: "Create an instance from an image and start it",
		Long: `Create an instance from an image and start it.

The image is an alias, or the start of a fingerprint; without a remote of its own
it is looked for on the instance's. Without a name, the server makes one up. Configuration in YAML (config, devices, profiles, description) may
be given on standard input; flags come on top of it.`,
		Example: `  muster launch busybox web
  muster launch busybox web -c limits.cpu=2 -c limits.memory=512MiB
  muster launch busybox web --device root,size=5GiB --profile default --profile big
  muster launch busybox web < web.yaml`,
		Args:              between(1, 2),
		ValidArgsFunction: a.complete(aliasNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.create(cmd, args, flags)
			if err != nil {
				return err
			}
			a.say("Starting %s", t.full(t.name))
			op, err := t.SetInstanceState(cmd.Context(), t.name, api.InstanceStatePut{Action: "start", Timeout: -1})
			if err := a.done(cmd.Context(), "Starting "+t.name, op, err); err != nil {
				return advise(err, "The instance was created; `muster info --show-log %s` may say more.", t.full(t.name))
			}
			if console {
				return a.attachConsole(cmd.Context(), t)
			}
			return nil
		},
	}
	flags.flags(a, cmd)
	cmd.Flags().BoolVar(&console, "console", false, "attach to the console at once")
	return cmd
}

// requested turns the arguments and flags of launch and init into a request, and
// finds the server that it is for.
func (a *app) requested(cmd *cobra.Command, args []string, flags newInstance) (t thing, post api.InstancesPost, err error) {
	ctx := cmd.Context()
	var image string
	if !flags.empty {
		image, args = args[0], args[1:]
	}
	if len(args) > 1 {
		return t, post, usagef(cmd, "too many arguments: with --empty, no image is named")
	}
	if t, err = a.on(strings.Join(args, "")); err != nil {
		return t, post, err
	}
	if len(args) == 0 && image != "" {
		// "far:busybox" alone means: there, from there.
		from, err := a.on(image)
		if err != nil {
			return t, post, err
		}
		t.Client, t.remote = from.Client, from.remote
	}
	asked := t
	if !strings.HasPrefix(flags.target, "@") {
		// What networks there are besides the cluster's is a member's own.
		asked = t.aimed(flags.target)
	}
	t = t.aimed(flags.target)
	post = api.InstancesPost{Name: t.name, InstanceType: flags.instanceClass, Type: api.InstanceTypeContainer}
	if err := a.configFromInput(&post.InstancePut); err != nil {
		return t, post, err
	}
	if err := a.fillInstance(ctx, asked, flags, &post); err != nil {
		return t, post, err
	}
	if flags.empty {
		post.Source.Type = "none"
		return t, post, nil
	}
	post.Source, err = a.imageSource(ctx, asked, image)
	return t, post, err
}

// create makes an instance out of the arguments of launch and init.
func (a *app) create(cmd *cobra.Command, args []string, flags newInstance) (thing, error) {
	ctx := cmd.Context()
	t, post, err := a.requested(cmd, args, flags)
	if err != nil {
		return t, err
	}
	if t.name == "" {
		a.say("Creating the instance")
	} else {
		a.say("Creating %s", t.full(t.name))
	}
	op, err := t.CreateInstance(ctx, post)
	if err := a.done(ctx, "Creating "+t.name, op, err); err != nil {
		return t, a.adviseCreation(ctx, t, err)
	}
	if t.name == "" {
		if t.name = createdName(op); t.name == "" {
			return t, fmt.Errorf("the server does not say what it called the instance")
		}
		a.say("Instance name is: %s", t.name)
	}
	// A server alone says "none".
	if op.Location != "" && op.Location != "none" {
		a.say("%s is on cluster member %s", t.full(t.name), op.Location)
	}
	return t, nil
}

// fillInstance turns the flags into a request.
func (a *app) fillInstance(ctx context.Context, t thing, flags newInstance, post *api.InstancesPost) error {
	config, err := a.pairs(flags.config)
	if err != nil {
		return err
	}
	post.Config = apply(post.Config, config)
	post.Ephemeral = post.Ephemeral || flags.ephemeral
	if flags.description != "" {
		post.Description = flags.description
	}
	switch {
	case flags.noProfiles:
		post.Profiles = []string{}
	case len(flags.profiles) > 0:
		post.Profiles = flags.profiles
	}
	return a.fillDevices(ctx, t, flags, post)
}

// fillDevices applies --network, --storage and --device over what the profiles
// give.
func (a *app) fillDevices(ctx context.Context, t thing, flags newInstance, post *api.InstancesPost) error {
	changes, err := deviceChanges(flags.devices)
	if err != nil {
		return err
	}
	if post.Devices == nil {
		post.Devices = map[string]map[string]string{}
	}
	if len(changes) == 0 && flags.network == "" && flags.pool == "" {
		return nil
	}
	inherited, err := profileDevices(ctx, t.Client, post.Profiles)
	if err != nil {
		return err
	}
	if flags.network != "" {
		nic, err := nicFor(ctx, t.Client, flags.network)
		if err != nil {
			return err
		}
		nic["name"] = "eth0"
		post.Devices["eth0"] = nic
	}
	if flags.pool != "" {
		name := "root"
		for each, device := range inherited {
			if device["type"] == "disk" && device["path"] == "/" {
				name = each
			}
		}
		root := post.Devices[name]
		if root == nil {
			root = inherited[name]
		}
		post.Devices[name] = apply(root, map[string]string{"type": "disk", "path": "/", "pool": flags.pool})
	}
	for name, change := range changes {
		device := post.Devices[name]
		if device == nil {
			device = inherited[name]
		}
		post.Devices[name] = apply(device, change)
	}
	return nil
}

// profileDevices is what an instance would inherit.
func profileDevices(ctx context.Context, c *client.Client, profiles []string) (map[string]map[string]string, error) {
	if profiles == nil {
		profiles = []string{"default"}
	}
	devices := map[string]map[string]string{}
	for _, name := range profiles {
		profile, _, err := c.Profile(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("profile %s: %w", name, err)
		}
		maps.Copy(devices, profile.Devices)
	}
	return devices, nil
}

// nicFor is a device that connects to a network, managed or a bridge of the
// host's.
func nicFor(ctx context.Context, c *client.Client, name string) (map[string]string, error) {
	network, _, err := c.Network(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", name, err)
	}
	if network.Managed {
		return map[string]string{"type": "nic", "network": name}, nil
	}
	kind := "macvlan"
	if network.Type == "bridge" {
		kind = "bridged"
	}
	return map[string]string{"type": "nic", "nictype": kind, "parent": name}, nil
}

// configFromInput reads YAML from standard input, unless that is a terminal.
func (a *app) configFromInput(put *api.InstancePut) error {
	text, err := a.optionalInput("the instance's configuration")
	if err != nil {
		return err
	}
	if err := yamldoc.Unmarshal(text, put); err != nil {
		return fmt.Errorf("the configuration on standard input: %w", err)
	}
	return nil
}

// createdName reads the name of the instance that an operation made.
func createdName(op *client.Operation) string {
	for _, kind := range []string{"instances", "containers"} {
		for _, url := range op.Resources[kind] {
			name, _, _ := strings.Cut(path.Base(url), "?")
			return name
		}
	}
	return ""
}

// adviseCreation says what is missing on a server that was never set up.
func (a *app) adviseCreation(ctx context.Context, t thing, err error) error {
	if ctx.Err() != nil {
		return err
	}
	pools, look := t.PoolNames(ctx)
	if look == nil && len(pools) == 0 {
		return advise(err, "The server has no storage pool yet: set it up with `musterd init --auto` (or `muster init --auto`).")
	}
	return err
}
