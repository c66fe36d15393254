package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/client"
)

func (a *app) clusterAddCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "add [REMOTE:]MEMBER",
		Short: "Make a token with which a server can join",
		Long: `Make a token with which one server can join the cluster, once, as the member of
that name. The new server is to be fresh: without pools, networks and instances.`,
		Example: `  muster cluster add m2
  muster cluster add --name m2
  musterd init --token "$(ssh root@192.0.2.1 muster --quiet cluster add m2)" --address 192.0.2.2:8443`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			t, err := a.on(strings.Join(args, ""))
			if err != nil {
				return err
			}
			if t.name != "" && name != "" && t.name != name {
				return usagef(cmd, "the member is called %s or %s, not both", t.name, name)
			}
			member := cmp.Or(t.name, name)
			if member == "" {
				return usagef(cmd, "say what the new member is to be called")
			}
			if err := inCluster(ctx, t); err != nil {
				return err
			}
			token, err := t.CreateJoinToken(ctx, member)
			if err != nil {
				return adviseToken(t, member, err)
			}
			a.say("Member %s join token:", member)
			fmt.Fprintln(a.stdout, token)
			if !a.quiet {
				fmt.Fprintf(a.stderr, "It is good for one server until %s: there, `musterd init` asks for it.\n", moment(token.ExpiresAt))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "what the new member is to be called, instead of the argument")
	return cmd
}

// adviseToken says what to do when the name is taken, by a member or by a token.
func adviseToken(t thing, member string, err error) error {
	if !client.IsConflict(err) {
		return err
	}
	return advise(err, "`%s` shows the members, `%s` the tokens; `muster cluster revoke-token %s` withdraws one.",
		t.after("muster cluster list"), t.after("muster cluster list-tokens"), t.full(member))
}

func (a *app) clusterTokensCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list-tokens [REMOTE:]", Short: "List join tokens that nobody has used yet", Example: "  muster cluster list-tokens",
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.clusterOf(cmd, args)
			if err != nil {
				return err
			}
			tokens, err := t.JoinTokens(cmd.Context())
			if err != nil {
				return err
			}
			slices.SortFunc(tokens, func(x, y client.JoinToken) int { return table.Natural(x.ServerName, y.ServerName) })
			d := table.Data{Header: []string{"NAME", "TOKEN", "EXPIRES AT"}, Values: tokens}
			for _, token := range tokens {
				d.Rows = append(d.Rows, []string{token.ServerName, token.String(), moment(token.ExpiresAt)})
			}
			return a.render(format, d)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) clusterRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke-token [REMOTE:]MEMBER", Short: "Withdraw a join token", Example: "  muster cluster revoke-token m2",
		Args: between(1, 1), ValidArgsFunction: a.complete(joinTokenNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "cluster member")
			if err == nil {
				err = inCluster(cmd.Context(), t)
			}
			if err != nil {
				return err
			}
			if err := t.RevokeJoinToken(cmd.Context(), t.name); err != nil {
				return advise(err, "`%s` shows those that do.", t.after("muster cluster list-tokens"))
			}
			a.say("Join token for %s withdrawn", t.name)
			return nil
		},
	}
}
