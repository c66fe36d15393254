package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

// nicOwner is what can be connected to a network: an instance or a profile.
type nicOwner struct {
	// suffix is what its commands end in, kind what it is called in them.
	suffix, kind string
	names        lister
	change       func(ctx context.Context, c *client.Client, name string, edit func(devices map[string]map[string]string) error) error
}

// nicOwners are the two of them.
var nicOwners = []nicOwner{
	{"", "instance", instanceNames, func(ctx context.Context, c *client.Client, name string, edit func(map[string]map[string]string) error) error {
		return c.Change(ctx, name, func(put *api.InstancePut) error { return edit(devicesOf(&put.Devices)) })
	}},
	{"-profile", "profile", profileNames, func(ctx context.Context, c *client.Client, name string, edit func(map[string]map[string]string) error) error {
		return c.ChangeProfile(ctx, name, func(put *api.ProfilePut) error { return edit(devicesOf(&put.Devices)) })
	}},
}

// devicesOf makes the map of devices when there is none.
func devicesOf(devices *map[string]map[string]string) map[string]map[string]string {
	if *devices == nil {
		*devices = map[string]map[string]string{}
	}
	return *devices
}

// networkAttachCommands are attach, attach-profile, detach and detach-profile.
func (a *app) networkAttachCommands() []*cobra.Command {
	var commands []*cobra.Command
	for _, owner := range nicOwners {
		commands = append(commands, a.networkAttachCommand(owner), a.networkDetachCommand(owner))
	}
	return commands
}

func (a *app) networkAttachCommand(owner nicOwner) *cobra.Command {
	use := "attach" + owner.suffix
	return &cobra.Command{
		Use:     fmt.Sprintf("%s [REMOTE:]NETWORK %s [DEVICE [INTERFACE]]", use, strings.ToUpper(owner.kind)),
		Short:   fmt.Sprintf("Connect %s %s to a network", article(owner.kind), owner.kind),
		Example: fmt.Sprintf("  muster network %s lab web\n  muster network %s lab web nic1 eth1", use, use),
		Args:    between(2, 4), ValidArgsFunction: a.complete(networkNames, owner.names, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "network")
			if err != nil {
				return err
			}
			nic, err := nicFor(cmd.Context(), t.Client, t.name)
			if err != nil {
				return err
			}
			device := t.name
			if len(args) > 2 {
				device = args[2]
			}
			if len(args) > 3 {
				nic["name"] = args[3]
			}
			return owner.change(cmd.Context(), t.Client, args[1], func(devices map[string]map[string]string) error {
				if _, ok := devices[device]; ok {
					return fmt.Errorf("%s has a device %q already", args[1], device)
				}
				devices[device] = nic
				return nil
			})
		},
	}
}

func (a *app) networkDetachCommand(owner nicOwner) *cobra.Command {
	use := "detach" + owner.suffix
	return &cobra.Command{
		Use:     fmt.Sprintf("%s [REMOTE:]NETWORK %s [DEVICE]", use, strings.ToUpper(owner.kind)),
		Short:   fmt.Sprintf("Disconnect %s %s from a network", article(owner.kind), owner.kind),
		Example: fmt.Sprintf("  muster network %s lab web", use),
		Args:    between(2, 3), ValidArgsFunction: a.complete(networkNames, owner.names, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "network")
			if err != nil {
				return err
			}
			return owner.change(cmd.Context(), t.Client, args[1], func(devices map[string]map[string]string) error {
				var found []string
				for _, name := range keysOf(devices) {
					device := devices[name]
					if device["type"] == "nic" && (device["network"] == t.name || device["parent"] == t.name) && (len(args) < 3 || args[2] == name) {
						found = append(found, name)
					}
				}
				switch len(found) {
				case 0:
					return fmt.Errorf("%s has no device of its own on %s", args[1], t.name)
				case 1:
					delete(devices, found[0])
					return nil
				}
				return fmt.Errorf("%s has several devices on %s (%s): name one", args[1], t.name, strings.Join(found, ", "))
			})
		},
	}
}
