package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

func (a *app) profileCommand() *cobra.Command {
	cmd := family("profile", "Manage profiles", `  muster profile create big
  muster profile set big limits.memory=8GiB
  muster profile add web big`,
		a.profileListCommand(), a.profileCreateCommand(), a.profileEditCommand(), a.profileCopyCommand(),
		a.simple(profileNoun, "show", "Show a profile as YAML", func(ctx context.Context, t thing) error {
			profile, _, err := t.Profile(ctx, t.name)
			if err != nil {
				return err
			}
			return a.yaml(profile)
		}),
		a.simple(profileNoun, "delete", "Delete a profile", func(ctx context.Context, t thing) error {
			err := t.DeleteProfile(ctx, t.name)
			if err == nil {
				a.say("Profile %s deleted", t.name)
			}
			return err
		}),
		a.renaming(profileNoun, func(ctx context.Context, t thing, name string) error { return t.RenameProfile(ctx, t.name, name) }), a.profileMembershipCommand("add"), a.profileMembershipCommand("remove"), a.profileAssignCommand(),
		a.deviceCommand(deviceOwner{"profile", profileNames, a.profileDevices}))
	cmd.AddCommand(a.keyCommands(keyed{
		noun: profileNoun, key: "limits.cpu", value: "4",
		read: func(ctx context.Context, t thing) (map[string]string, error) {
			profile, _, err := t.Profile(ctx, t.name)
			return profile.Config, err
		},
		change: func(ctx context.Context, t thing, changes map[string]string) error {
			return t.ChangeProfile(ctx, t.name, func(put *api.ProfilePut) error {
				put.Config = apply(put.Config, changes)
				return nil
			})
		},
	})...)
	return cmd
}

func (a *app) profileListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List profiles", Example: "  muster profile list",
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, _, err := a.server(args)
			if err != nil {
				return err
			}
			profiles, err := t.Profiles(cmd.Context())
			if err != nil {
				return err
			}
			d := table.Data{Header: []string{"NAME", "DESCRIPTION", "USED BY"}, Values: profiles}
			for _, p := range profiles {
				d.Rows = append(d.Rows, []string{p.Name, p.Description, strconv.Itoa(len(p.UsedBy))})
			}
			table.SortRows(d.Rows)
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) profileCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "create [REMOTE:]PROFILE",
		Short:   "Create a profile",
		Long:    "Create a profile. Its configuration in YAML may be given on standard input.",
		Example: "  muster profile create big\n  muster profile create big < big.yaml",
		Args:    between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "profile")
			if err != nil {
				return err
			}
			post := api.ProfilesPost{Name: t.name}
			post.Config, post.Devices = map[string]string{}, map[string]map[string]string{}
			text, err := a.optionalInput("the profile")
			if err != nil {
				return err
			}
			// `profile show` prints a name and users too; they are not this
			// profile's.
			var from api.Profile
			if err := yamldoc.Unmarshal(text, &from); err != nil {
				return err
			}
			post.Description = from.Description
			if from.Config != nil {
				post.Config = from.Config
			}
			if from.Devices != nil {
				post.Devices = from.Devices
			}
			err = t.CreateProfile(cmd.Context(), post)
			if err == nil {
				a.say("Profile %s created", t.name)
			}
			return err
		},
	}
}

func (a *app) profileEditCommand() *cobra.Command {
	return &cobra.Command{
		Use: "edit [REMOTE:]PROFILE", Short: "Edit a profile as YAML",
		Long:    "Edit a profile with $EDITOR; without a terminal, the whole new profile is read from standard input.",
		Example: "  muster profile edit big\n  muster profile edit big < big.yaml",
		Args:    between(1, 1), ValidArgsFunction: a.complete(profileNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := a.named(args[0], "profile")
			if err != nil {
				return err
			}
			profile, etag, err := t.Profile(ctx, t.name)
			if err != nil {
				return err
			}
			return editYAML(ctx, a, profile, func(changed api.Profile) error {
				if changed.Name != "" && changed.Name != t.name {
					return fmt.Errorf("the name can't be edited: use `muster profile rename`")
				}
				return t.UpdateProfile(ctx, t.name, changed.ProfilePut, etag)
			})
		},
	}
}

func (a *app) profileCopyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "copy [REMOTE:]PROFILE [REMOTE:]NAME", Aliases: []string{"cp"}, Short: "Copy a profile, also to another server",
		Example: "  muster profile copy default big",
		Args:    between(2, 2), ValidArgsFunction: a.complete(profileNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := a.named(args[0], "profile")
			if err != nil {
				return err
			}
			to, err := a.on(args[1])
			if err != nil {
				return err
			}
			profile, _, err := from.Profile(cmd.Context(), from.name)
			if err != nil {
				return err
			}
			return to.CreateProfile(cmd.Context(), api.ProfilesPost{Name: orElse(to.name, from.name), ProfilePut: profile.ProfilePut})
		},
	}
}

// profileMembershipCommand makes add and remove: profiles of an instance.
func (a *app) profileMembershipCommand(name string) *cobra.Command {
	preposition, past := "to", "added"
	if name == "remove" {
		preposition, past = "from", "removed"
	}
	return &cobra.Command{
		Use:     name + " [REMOTE:]INSTANCE PROFILE",
		Short:   strings.ToUpper(name[:1]) + name[1:] + " a profile " + preposition + " an instance",
		Example: "  muster profile " + name + " web big",
		Args:    between(2, 2), ValidArgsFunction: a.complete(instanceNames, profileNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			err = t.Change(cmd.Context(), t.name, func(put *api.InstancePut) error {
				has := slices.Contains(put.Profiles, args[1])
				if has == (name == "add") {
					return fmt.Errorf("the profile %s is %s %s already", args[1], past, preposition+" "+args[0])
				}
				if name == "add" {
					put.Profiles = append(put.Profiles, args[1])
				} else {
					put.Profiles = slices.DeleteFunc(put.Profiles, func(p string) bool { return p == args[1] })
				}
				return nil
			})
			if err == nil {
				a.say("Profile %s %s %s %s", args[1], past, preposition, args[0])
			}
			return err
		},
	}
}

func (a *app) profileAssignCommand() *cobra.Command {
	return &cobra.Command{
		Use: "assign [REMOTE:]INSTANCE PROFILES", Aliases: []string{"apply"}, Short: "Say which profiles an instance has",
		Long:    `Say which profiles an instance has, in their order, separated by commas; "" is none.`,
		Example: "  muster profile assign web default,big\n  muster profile assign web ''",
		Args:    between(2, 2), ValidArgsFunction: a.complete(instanceNames, profileNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			profiles := []string{}
			if args[1] != "" {
				profiles = strings.Split(args[1], ",")
			}
			err = t.Change(cmd.Context(), t.name, func(put *api.InstancePut) error {
				put.Profiles = profiles
				return nil
			})
			if err == nil {
				a.say("Profiles of %s: %s", args[0], orElse(strings.Join(profiles, ", "), "(none)"))
			}
			return err
		},
	}
}
