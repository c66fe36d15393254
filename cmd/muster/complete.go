package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/rpc/client"
)

// completionTimeout keeps a shell from freezing at a key press.
const completionTimeout = time.Second

// lister finds the names that could stand in an argument.
type lister func(ctx context.Context, c *client.Client) ([]string, error)

func instanceNames(ctx context.Context, c *client.Client) ([]string, error) {
	return c.InstanceNames(ctx)
}

func profileNames(ctx context.Context, c *client.Client) ([]string, error) {
	return c.ProfileNames(ctx)
}

func networkNames(ctx context.Context, c *client.Client) ([]string, error) {
	return c.NetworkNames(ctx)
}
func poolNames(ctx context.Context, c *client.Client) ([]string, error) { return c.PoolNames(ctx) }

func memberNames(ctx context.Context, c *client.Client) ([]string, error) {
	return c.ClusterMemberNames(ctx)
}

func groupNames(ctx context.Context, c *client.Client) ([]string, error) {
	return c.ClusterGroupNames(ctx)
}

// targetNames are what --target takes: members, and groups behind an @.
func targetNames(ctx context.Context, c *client.Client) ([]string, error) {
	names, err := c.ClusterMemberNames(ctx)
	if err != nil {
		return nil, err
	}
	groups, err := c.ClusterGroupNames(ctx)
	if client.IsNotFound(err) {
		return names, nil // an older server has none
	}
	for _, group := range groups {
		names = append(names, "@"+group)
	}
	return names, err
}

func joinTokenNames(ctx context.Context, c *client.Client) ([]string, error) {
	tokens, err := c.JoinTokens(ctx)
	var names []string
	for _, token := range tokens {
		names = append(names, token.ServerName)
	}
	return names, err
}

func projectNames(ctx context.Context, c *client.Client) ([]string, error) {
	projects, err := c.Projects(ctx)
	var names []string
	for _, project := range projects {
		names = append(names, project.Name)
	}
	return names, err
}

func aliasNames(ctx context.Context, c *client.Client) ([]string, error) {
	aliases, err := c.ImageAliases(ctx)
	var names []string
	for _, alias := range aliases {
		names = append(names, alias.Name)
	}
	return names, err
}

func operationIDs(ctx context.Context, c *client.Client) ([]string, error) {
	operations, err := c.Operations(ctx, false)
	var ids []string
	for _, op := range operations {
		ids = append(ids, op.ID)
	}
	return ids, err
}

// nothing stands in an argument that has no list of names.
func nothing(context.Context, *client.Client) ([]string, error) { return nil, nil }

// complete proposes names for arguments: the nth lister for the nth argument,
// the last one for all after it. A server that does not answer at once proposes
// nothing.
func (a *app) complete(listers ...lister) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		ctx := cmd.Context()
		if ctx == nil {
			return nil, cobra.ShellCompDirectiveError
		}
		ctx, cancel := context.WithTimeout(ctx, completionTimeout)
		defer cancel()
		config, err := a.config()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var proposals []string
		prefix := ""
		if before, _, found := strings.Cut(typed, ":"); found {
			prefix = before + ":"
		} else {
			for _, name := range config.Names() {
				if name != config.Default && strings.HasPrefix(name, typed) {
					proposals = append(proposals, name+":")
				}
			}
		}
		t, err := a.on(prefix)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, err := listers[min(len(args), len(listers)-1)](ctx, t.Client)
		if err != nil {
			return proposals, cobra.ShellCompDirectiveNoFileComp
		}
		for _, name := range names {
			if strings.HasPrefix(prefix+name, typed) {
				proposals = append(proposals, prefix+name)
			}
		}
		return proposals, cobra.ShellCompDirectiveNoFileComp
	}
}
