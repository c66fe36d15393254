package main

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/rest/api"
)

// deviceOwner is a kind of thing that has devices.
type deviceOwner struct {
	kind  string
	names lister
	// of returns the doors to one owner's devices.
	of func(t thing) deviceDoors
}

// deviceDoors reads and changes the devices of one instance or profile.
type deviceDoors struct {
	// read returns the owner's own devices and, of an instance, those with
	// what the profiles give.
	read func(ctx context.Context) (own, expanded map[string]map[string]string, err error)
	// change edits the owner's own devices; it may run again.
	change func(ctx context.Context, edit func(own map[string]map[string]string) error) error
}

func (a *app) instanceDevices(t thing) deviceDoors {
	return deviceDoors{
		read: func(ctx context.Context) (own, expanded map[string]map[string]string, err error) {
			i, _, err := t.Instance(ctx, t.name)
			return i.Devices, i.ExpandedDevices, err
		},
		change: func(ctx context.Context, edit func(map[string]map[string]string) error) error {
			return t.Change(ctx, t.name, func(put *api.InstancePut) error {
				if put.Devices == nil {
					put.Devices = map[string]map[string]string{}
				}
				return edit(put.Devices)
			})
		},
	}
}

func (a *app) profileDevices(t thing) deviceDoors {
	return deviceDoors{
		read: func(ctx context.Context) (own, expanded map[string]map[string]string, err error) {
			p, _, err := t.Profile(ctx, t.name)
			return p.Devices, p.Devices, err
		},
		change: func(ctx context.Context, edit func(map[string]map[string]string) error) error {
			return t.ChangeProfile(ctx, t.name, func(put *api.ProfilePut) error {
				if put.Devices == nil {
					put.Devices = map[string]map[string]string{}
				}
				return edit(put.Devices)
			})
		},
	}
}

// deviceCommand is `config device` or `profile device`.
func (a *app) deviceCommand(owner deviceOwner) *cobra.Command {
	path := "config"
	if owner.kind == "profile" {
		path = "profile"
	}
	what := "[REMOTE:]" + strings.ToUpper(owner.kind)
	sub := func(use, short, example string, least, most int, run func(ctx context.Context, doors deviceDoors, args []string) error) *cobra.Command {
		word, rest, _ := strings.Cut(use, " ")
		return &cobra.Command{
			Use: strings.TrimSpace(word + " " + what + " " + rest), Short: short,
			Example: "  muster " + path + " device " + example,
			Args:    between(least, most), ValidArgsFunction: a.complete(owner.names, nothing),
			RunE: func(cmd *cobra.Command, args []string) error {
				t, err := a.named(args[0], owner.kind)
				if err != nil {
					return err
				}
				return run(cmd.Context(), owner.of(t), args[1:])
			},
		}
	}
	cmds := []*cobra.Command{
		sub("add DEVICE TYPE [KEY=VALUE...]", "Add a device", "add web data disk source=/srv path=/srv", 3, -1, a.addDevice),
		sub("get DEVICE KEY", "Print an option of a device", "get web eth0 network", 3, 3, a.getDevice),
		sub("list", "List devices", "list web", 1, 1, a.listDevices),
		sub("remove DEVICE...", "Remove devices", "remove web data", 2, -1, a.removeDevices),
		sub("set DEVICE KEY=VALUE...", "Set options of a device", "set web root size=10GiB", 3, -1, a.setDevice),
		sub("show", "Show devices as YAML", "show web", 1, 1, a.showDevices),
		sub("unset DEVICE KEY", "Remove an option of a device", "unset web root size", 3, 3, a.unsetDevice),
	}
	if owner.kind == "instance" {
		cmds = append(cmds, sub("override DEVICE [KEY=VALUE...]", "Copy a device from the profiles to change it here",
			"override web root size=10GiB", 2, -1, a.overrideDevice))
	}
	return family("device", "Manage the devices of a"+article(owner.kind), "  muster "+path+" device list web", cmds...)
}

func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "n " + noun
	}
	return " " + noun
}

func (a *app) addDevice(ctx context.Context, doors deviceDoors, args []string) error {
	options, err := a.pairs(args[2:])
	if err != nil {
		return err
	}
	name := args[0]
	options["type"] = args[1]
	err = doors.change(ctx, func(own map[string]map[string]string) error {
		if _, ok := own[name]; ok {
			return fmt.Errorf("there is a device %q already", name)
		}
		own[name] = options
		return nil
	})
	if err == nil {
		a.say("Device %s added", name)
	}
	return err
}

func (a *app) getDevice(ctx context.Context, doors deviceDoors, args []string) error {
	own, _, err := doors.read(ctx)
	if err != nil {
		return err
	}
	device, err := ownDevice(own, args[0])
	if err == nil {
		fmt.Fprintln(a.stdout, device[args[1]])
	}
	return err
}

func ownDevice(own map[string]map[string]string, name string) (map[string]string, error) {
	device, ok := own[name]
	if !ok {
		return nil, advise(fmt.Errorf("there is no device %q", name),
			"A device that comes from a profile is changed there, or made the instance's own with `muster config device override`.")
	}
	return device, nil
}

func (a *app) listDevices(ctx context.Context, doors deviceDoors, _ []string) error {
	own, _, err := doors.read(ctx)
	for _, name := range keysOf(own) {
		fmt.Fprintln(a.stdout, name)
	}
	return err
}

func (a *app) removeDevices(ctx context.Context, doors deviceDoors, args []string) error {
	err := doors.change(ctx, func(own map[string]map[string]string) error {
		for _, name := range args {
			if _, err := ownDevice(own, name); err != nil {
				return err
			}
			delete(own, name)
		}
		return nil
	})
	if err == nil {
		a.say("Device %s removed", strings.Join(args, ", "))
	}
	return err
}

func (a *app) setDevice(ctx context.Context, doors deviceDoors, args []string) error {
	changes, err := a.pairs(args[1:])
	if err != nil {
		return err
	}
	return doors.change(ctx, func(own map[string]map[string]string) error {
		device, err := ownDevice(own, args[0])
		if err == nil {
			own[args[0]] = apply(device, changes)
		}
		return err
	})
}

func (a *app) unsetDevice(ctx context.Context, doors deviceDoors, args []string) error {
	return doors.change(ctx, func(own map[string]map[string]string) error {
		device, err := ownDevice(own, args[0])
		if err == nil {
			delete(device, args[1])
		}
		return err
	})
}

func (a *app) showDevices(ctx context.Context, doors deviceDoors, _ []string) error {
	own, _, err := doors.read(ctx)
	if err != nil {
		return err
	}
	if own == nil {
		own = map[string]map[string]string{}
	}
	return a.yaml(own)
}

func (a *app) overrideDevice(ctx context.Context, doors deviceDoors, args []string) error {
	changes, err := a.pairs(args[1:])
	if err != nil {
		return err
	}
	name := args[0]
	_, expanded, err := doors.read(ctx)
	if err != nil {
		return err
	}
	inherited, ok := expanded[name]
	if !ok {
		return fmt.Errorf("no profile of the instance gives it a device %q", name)
	}
	err = doors.change(ctx, func(own map[string]map[string]string) error {
		if _, ok := own[name]; ok {
			return fmt.Errorf("the device %q is the instance's own already", name)
		}
		own[name] = apply(maps.Clone(inherited), changes)
		return nil
	})
	if err == nil {
		a.say("Device %s overridden", name)
	}
	return err
}
