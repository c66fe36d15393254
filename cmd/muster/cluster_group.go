package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/client"
	"muster/rpc/client/yamldoc"
	"muster/rpc/rest/api"
)

var groupNoun = noun{family: "cluster group", what: "cluster group", argument: "GROUP", sample: "fast", names: groupNames, check: inCluster}

func (a *app) clusterGroupCommand() *cobra.Command {
	cmd := family("group", "Manage groups of cluster members", `  muster cluster group create fast
  muster cluster group add m2 fast
  muster launch busybox web --target @fast`,
		a.clusterGroupListCommand(), a.clusterGroupCreateCommand(), a.clusterGroupAssignCommand(),
		a.clusterGroupMembershipCommand("add"), a.clusterGroupMembershipCommand("remove"),
		a.simple(groupNoun, "show", "Show a cluster group as YAML", func(ctx context.Context, t thing) error {
			group, _, err := t.ClusterGroup(ctx, t.name)
			if err != nil {
				return err
			}
			return a.yaml(group)
		}),
		a.simple(groupNoun, "edit", "Edit a cluster group as YAML", func(ctx context.Context, t thing) error {
			group, etag, err := t.ClusterGroup(ctx, t.name)
			if err != nil {
				return err
			}
			return editYAML(ctx, a, group, func(changed api.ClusterGroup) error {
				if changed.Name != "" && changed.Name != t.name {
					return errors.New("the name can't be edited: use `muster cluster group rename`")
				}
				return t.UpdateClusterGroup(ctx, t.name, changed.ClusterGroupPut, etag)
			})
		}),
		a.simple(groupNoun, "delete", "Delete a cluster group that no member is in", func(ctx context.Context, t thing) error {
			if err := t.DeleteClusterGroup(ctx, t.name); err != nil {
				return adviseGroupDeletion(t, err)
			}
			a.say("Cluster group %s deleted", t.name)
			return nil
		}),
		a.renaming(groupNoun, func(ctx context.Context, t thing, name string) error { return t.RenameClusterGroup(ctx, t.name, name) }))
	cmd.Long = `Manage groups of cluster members. An instance is aimed at a group with --target
@GROUP: it gets a place on one of its members. Every member is in at least one group.`
	return cmd
}

// adviseGroupDeletion says how a group becomes empty.
func adviseGroupDeletion(t thing, err error) error {
	if !client.IsConflict(err) {
		return err
	}
	return advise(err, "`%s` shows its members; `%s` takes one out.",
		"muster cluster group show "+t.full(t.name), "muster cluster group remove "+t.full("MEMBER")+" "+t.name)
}

func (a *app) clusterGroupListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List the cluster groups",
		Example: "  muster cluster group list\n  muster cluster group list --format csv",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.clusterOf(cmd, args)
			if err != nil {
				return err
			}
			groups, err := t.ClusterGroups(cmd.Context())
			if err != nil {
				return err
			}
			d := table.Data{Header: []string{"NAME", "DESCRIPTION", "MEMBERS"}, Values: groups}
			for _, group := range groups {
				d.Rows = append(d.Rows, []string{group.Name, group.Description, strconv.Itoa(len(group.Members))})
			}
			table.SortRows(d.Rows)
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) clusterGroupCreateCommand() *cobra.Command {
	var description string
	cmd := &cobra.Command{
		Use:   "create [REMOTE:]GROUP",
		Short: "Create a cluster group",
		Long: `Create a cluster group. Its description and members in YAML may be given on
standard input.`,
		Example: "  muster cluster group create fast --description \"NVMe and many cores\"\n  muster cluster group create fast < fast.yaml",
		Args:    between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := a.named(args[0], groupNoun.what)
			if err == nil {
				err = inCluster(ctx, t)
			}
			if err != nil {
				return err
			}
			text, err := a.optionalInput("the cluster group")
			if err != nil {
				return err
			}
			// `cluster group show` prints a name too, which is not this group's.
			var from api.ClusterGroup
			if err := yamldoc.Unmarshal(text, &from); err != nil {
				return fmt.Errorf("the cluster group on standard input: %w", err)
			}
			post := api.ClusterGroupsPost{Name: t.name, ClusterGroupPut: from.ClusterGroupPut}
			if post.Members == nil {
				post.Members = []string{}
			}
			if description != "" {
				post.Description = description
			}
			if err := t.CreateClusterGroup(ctx, post); err != nil {
				return err
			}
			a.say("Cluster group %s created", t.name)
			return nil
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "what the group is for")
	return cmd
}

func (a *app) clusterGroupAssignCommand() *cobra.Command {
	cmd := a.groupsOfMember("assign", "GROUPS", "Say which cluster groups a member is in", "default,fast", func(ctx context.Context, t thing, list string) error {
		groups := strings.Split(list, ",")
		err := t.ChangeClusterMember(ctx, t.name, func(put *api.ClusterMemberPut) error {
			put.Groups = groups
			return nil
		})
		if err == nil {
			a.say("Cluster member %s is in %s", t.name, strings.Join(groups, ", "))
		}
		return err
	})
	cmd.Aliases = []string{"apply"}
	cmd.Long = "Say which cluster groups a member is in, separated by commas; it leaves all others."
	return cmd
}

// clusterGroupMembershipCommand makes add and remove: a member's part in one group.
func (a *app) clusterGroupMembershipCommand(name string) *cobra.Command {
	short, done := "Put a member into a cluster group", "Cluster member %s added to group %s"
	if name == "remove" {
		short, done = "Take a member out of a cluster group", "Cluster member %s removed from group %s"
	}
	return a.groupsOfMember(name, "GROUP", short, "fast", func(ctx context.Context, t thing, group string) error {
		err := t.ChangeClusterMember(ctx, t.name, func(put *api.ClusterMemberPut) error {
			has := slices.Contains(put.Groups, group)
			switch {
			case has && name == "add":
				return fmt.Errorf("%s is in the cluster group %s already", t.name, group)
			case !has && name == "remove":
				return fmt.Errorf("%s is not in the cluster group %s, but in %s", t.name, group, strings.Join(put.Groups, ", "))
			case has:
				put.Groups = slices.DeleteFunc(put.Groups, func(each string) bool { return each == group })
			default:
				put.Groups = append(put.Groups, group)
			}
			return nil
		})
		if err == nil {
			a.say(done, t.name, group)
		}
		return err
	})
}

// groupsOfMember makes a command about a member and one argument about its groups.
func (a *app) groupsOfMember(name, argument, short, sample string, run func(ctx context.Context, t thing, argument string) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " [REMOTE:]MEMBER " + argument, Short: short,
		Example: "  muster cluster group " + name + " m2 " + sample,
		Args:    between(2, 2), ValidArgsFunction: a.complete(memberNames, groupNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], memberNoun.what)
			if err == nil {
				err = inCluster(cmd.Context(), t)
			}
			if err != nil {
				return err
			}
			return run(cmd.Context(), t, args[1])
		},
	}
}
