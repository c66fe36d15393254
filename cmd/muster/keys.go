package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// keyed is a kind of thing with configuration keys.
type keyed struct {
	// kind is also the name of the family of commands.
	kind string
	// key and value are for the examples.
	key, value string
	names      lister
	read       func(ctx context.Context, t thing) (map[string]string, error)
	// change sets keys and removes those with an empty value.
	change func(ctx context.Context, t thing, changes map[string]string) error
}

// keyCommands makes get, set and unset.
func (a *app) keyCommands(k keyed) []*cobra.Command {
	what := " [REMOTE:]" + strings.ToUpper(k.kind)
	example := "  muster " + k.kind + " "
	if k.kind == "storage" {
		what = " [REMOTE:]POOL"
	}
	run := func(do func(ctx context.Context, t thing, args []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], k.kind)
			if err != nil {
				return err
			}
			return do(cmd.Context(), t, args[1:])
		}
	}
	return []*cobra.Command{
		{
			Use: "get" + what + " KEY", Short: "Print a configuration key", Example: example + "get default " + k.key,
			Args: between(2, 2), ValidArgsFunction: a.complete(k.names, nothing),
			RunE: run(func(ctx context.Context, t thing, args []string) error {
				config, err := k.read(ctx, t)
				if err == nil {
					fmt.Fprintln(a.stdout, config[args[0]])
				}
				return err
			}),
		},
		{
			Use: "set" + what + " KEY=VALUE...", Short: "Set configuration keys", Example: example + "set default " + k.key + "=" + k.value,
			Args: between(2, -1), ValidArgsFunction: a.complete(k.names, nothing),
			RunE: run(func(ctx context.Context, t thing, args []string) error {
				changes, err := a.pairs(args)
				if err != nil {
					return err
				}
				return k.change(ctx, t, changes)
			}),
		},
		{
			Use: "unset" + what + " KEY", Short: "Remove a configuration key", Example: example + "unset default " + k.key,
			Args: between(2, 2), ValidArgsFunction: a.complete(k.names, nothing),
			RunE: run(func(ctx context.Context, t thing, args []string) error {
				return k.change(ctx, t, map[string]string{args[0]: ""})
			}),
		},
	}
}
