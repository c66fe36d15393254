package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func (a *app) clusterCommand() *cobra.Command {
	cmd := family("cluster", "Manage the members of a cluster", `  muster config set core.https_address 192.0.2.1:8443
  muster cluster enable m1
  muster cluster add m2
  muster cluster list`,
		a.clusterEnableCommand(), a.clusterListCommand(), a.clusterRemoveCommand(),
		a.clusterAddCommand(), a.clusterTokensCommand(), a.clusterRevokeCommand(), a.clusterGroupCommand(), a.clusterCertificateCommand(),
		a.simple(memberNoun, "show", "Show a cluster member as YAML", func(ctx context.Context, t thing) error {
			member, _, err := t.ClusterMember(ctx, t.name)
			if err != nil {
				return err
			}
			return a.yaml(member)
		}),
		a.simple(memberNoun, "info", "Show a cluster member and how its machine is doing", a.clusterInfo),
		a.simple(memberNoun, "edit", "Edit a cluster member as YAML", func(ctx context.Context, t thing) error {
			member, etag, err := t.ClusterMember(ctx, t.name)
			if err != nil {
				return err
			}
			return editYAML(ctx, a, member, func(changed api.ClusterMember) error {
				if changed.ServerName != "" && changed.ServerName != t.name {
					return errors.New("the name can't be edited: use `muster cluster rename`")
				}
				return t.UpdateClusterMember(ctx, t.name, changed.ClusterMemberPut, etag)
			})
		}),
		a.renaming(memberNoun, func(ctx context.Context, t thing, name string) error { return t.RenameClusterMember(ctx, t.name, name) }))
	cmd.AddCommand(a.keyCommands(keyed{
		noun: memberNoun, key: "user.rack", value: "r12",
		read: func(ctx context.Context, t thing) (map[string]string, error) {
			member, _, err := t.ClusterMember(ctx, t.name)
			return member.Config, err
		},
		change: func(ctx context.Context, t thing, changes map[string]string) error {
			return t.ChangeClusterMember(ctx, t.name, func(put *api.ClusterMemberPut) error {
				put.Config = apply(put.Config, changes)
				return nil
			})
		},
	})...)
	return cmd
}

// inCluster refuses a server that is in no cluster.
func inCluster(ctx context.Context, t thing) error {
	shown, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	if !shown.Enabled {
		return advise(errors.New("the server is in no cluster"),
			"Begin one with `muster cluster enable NAME`, or let the server join one: `muster cluster add NAME` on a member of that makes a token, and `muster init` here asks for it.")
	}
	return nil
}

// clusterOf takes an optional argument "remote:" for a server in a cluster.
func (a *app) clusterOf(cmd *cobra.Command, args []string) (thing, error) {
	t, rest, err := a.server(args)
	if err == nil && len(rest) > 0 {
		err = usagef(cmd, "%q is no remote: those end with a colon", rest[0])
	}
	if err == nil {
		err = inCluster(cmd.Context(), t)
	}
	return t, err
}

// after is the thing's server as an argument behind a command, for advice.
func (t thing) after(command string) string { return strings.TrimSpace(command + " " + t.full("")) }

func (a *app) clusterEnableCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "enable [REMOTE:] NAME",
		Short: "Make the server the first member of a new cluster",
		Long: `Make the server the first member of a new cluster, under the given name. It keeps
everything it has. The others reach it at its core.https_address, which has to be
set before, to an address of this machine and not to "any".`,
		Example: `  muster config set core.https_address 192.0.2.1:8443
  muster cluster enable m1`,
		Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, rest, err := a.server(args)
			if err != nil {
				return err
			}
			if len(rest) != 1 {
				return usagef(cmd, "say what the server is to be called in the cluster")
			}
			shown, err := t.Cluster(ctx)
			if err != nil {
				return err
			}
			if shown.Enabled {
				return advise(fmt.Errorf("the server is in a cluster already, as %s", shown.ServerName),
					"`muster cluster add NAME` lets another one in; `muster cluster rename` gives this one another name.")
			}
			if err := t.EnableCluster(ctx, rest[0]); err != nil {
				return adviseEnabling(ctx, t, err)
			}
			a.say("Clustering enabled")
			return nil
		},
	}
}

// adviseEnabling says what to do about an address at which no other machine reaches
// the server.
func adviseEnabling(ctx context.Context, t thing, err error) error {
	server, _, look := t.Server(ctx)
	if look != nil {
		return err
	}
	address, _ := server.Config["core.https_address"].(string)
	host, _, split := net.SplitHostPort(address)
	if ip := net.ParseIP(host); split == nil && ip != nil && !ip.IsUnspecified() {
		return err
	}
	return advise(err, "Set it with `muster config set core.https_address ADDRESS:8443`, and try again.")
}

func (a *app) clusterListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List the cluster members",
		Example: "  muster cluster list\n  muster cluster list --format csv",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.clusterOf(cmd, args)
			if err != nil {
				return err
			}
			members, err := t.ClusterMembers(cmd.Context())
			if err != nil {
				return err
			}
			d := table.Data{Header: []string{"NAME", "URL", "ROLES", "ARCHITECTURE", "FAILURE DOMAIN", "DESCRIPTION", "STATE", "MESSAGE"}, Values: members}
			between := "\n"
			if format == "csv" {
				between = "," // a record is one line
			}
			for _, m := range members {
				d.Rows = append(d.Rows, []string{
					m.ServerName, m.URL, strings.Join(m.Roles, between), m.Architecture, m.FailureDomain, m.Description, strings.ToUpper(m.Status), m.Message,
				})
			}
			table.SortRows(d.Rows)
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

// clusterInfo shows what there is to know of a member.
func (a *app) clusterInfo(ctx context.Context, t thing) error {
	member, _, err := t.ClusterMember(ctx, t.name)
	if err != nil {
		return err
	}
	server, _, err := t.Server(ctx)
	if err != nil {
		return err
	}
	report := memberReport{ClusterMember: member}
	// Of a member that can't be asked nothing is known of how its machine is doing.
	away := member.Status == "Offline" || member.Status == "Unreachable"
	if !away && client.Extensions(server.APIExtensions).Has("cluster_member_state") {
		state, err := t.ClusterMemberState(ctx, t.name)
		if err != nil {
			return fmt.Errorf("ask %s how it is doing: %w", t.name, err)
		}
		report.State = &state
	}
	return a.yaml(report)
}

// memberReport is what `cluster info` prints.
type memberReport struct {
	api.ClusterMember
	State *api.ClusterMemberState `json:"state,omitempty"`
}

func (a *app) clusterRemoveCommand() *cobra.Command {
	var force, yes bool
	cmd := a.simple(memberNoun, "remove", "Remove a member from the cluster for good", func(ctx context.Context, t thing) error {
		if force && !yes {
			if _, _, err := t.ClusterMember(ctx, t.name); err != nil {
				return err
			}
			question := fmt.Sprintf("Remove %s by force? What only it has is lost, and it must never come back as it is now.", t.name)
			if err := a.confirm(ctx, question); err != nil {
				return advise(err, "`muster cluster remove --force --yes %s` does not ask.", t.full(t.name))
			}
		}
		if err := t.RemoveClusterMember(ctx, t.name, force); err != nil {
			return adviseRemoval(ctx, t, err, force)
		}
		a.say("Member %s removed", t.name)
		return nil
	})
	cmd.Aliases = []string{"rm"}
	cmd.Long = `Remove a member from the cluster for good. It must have no instances, and be
online to be told; --force removes one that is lost, after a question.`
	cmd.Example = "  muster cluster remove m2\n  muster cluster remove --force --yes m2"
	cmd.Flags().BoolVarP(&force, "force", "f", false, "remove it even when it is offline or has the only copy of something")
	cmd.Flags().BoolVar(&yes, "yes", false, "with --force: don't ask")
	return cmd
}

// adviseRemoval says how a member that can't be removed could be.
func adviseRemoval(ctx context.Context, t thing, err error, force bool) error {
	if !client.IsConflict(err) || ctx.Err() != nil {
		return err
	}
	if member, _, look := t.ClusterMember(ctx, t.name); look == nil && member.Status == "Offline" && !force {
		return advise(err, "If it is lost: `muster cluster remove --force %s`.", t.full(t.name))
	}
	instances, look := t.Instances(ctx, client.InstancesQuery{AllProjects: true})
	if look == nil && slices.ContainsFunc(instances, func(i api.Instance) bool { return i.Location == t.name }) {
		return advise(err, "`%s --all-projects location=%s` shows them; `muster move NAME --target MEMBER` takes one elsewhere.", t.after("muster list"), t.name)
	}
	return err
}
