package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// noun is a kind of thing that a family of commands is about.
type noun struct {
	// family is the name of the family, what is the word for people, and
	// argument how it stands in a usage line.
	family, what, argument string
	// sample is a name for the examples.
	sample string
	names  lister
	// check refuses a server on which there can be no such thing; nil is none.
	check func(ctx context.Context, t thing) error
	// targets are the commands that take --target: those about what may differ
	// from one cluster member to the next.
	targets []string
}

var (
	profileNoun = noun{family: "profile", what: "profile", argument: "PROFILE", sample: "big", names: profileNames}
	networkNoun = noun{
		family: "network", what: "network", argument: "NETWORK", sample: "lab", names: networkNames,
		targets: []string{"show", "info", "get", "set", "unset"},
	}
	poolNoun = noun{
		family: "storage", what: "storage pool", argument: "POOL", sample: "fast", names: poolNames,
		targets: []string{"show", "info", "get", "set", "unset"},
	}
	projectNoun = noun{family: "project", what: "project", argument: "PROJECT", sample: "web", names: projectNames}
	memberNoun  = noun{family: "cluster", what: "cluster member", argument: "MEMBER", sample: "m2", names: memberNames, check: inCluster}
)

// about makes a command with a thing for its first argument, and from least to
// most (-1: any number) after it.
func (a *app) about(n noun, use, short, example string, least, most int, run func(ctx context.Context, t thing, args []string) error) *cobra.Command {
	name, rest, _ := strings.Cut(use, " ")
	if most >= 0 {
		most++
	}
	var target string
	cmd := &cobra.Command{
		Use:     strings.TrimSpace(name + " [REMOTE:]" + n.argument + " " + rest),
		Short:   short,
		Example: strings.TrimRight("  muster "+n.family+" "+name+" "+n.sample+" "+example, " "),
		Args:    between(1+least, most), ValidArgsFunction: a.complete(n.names, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], n.what)
			if err == nil && n.check != nil {
				err = n.check(cmd.Context(), t)
			}
			if err != nil {
				return err
			}
			return run(cmd.Context(), t.aimed(target), args[1:])
		},
	}
	if slices.Contains(n.targets, name) {
		a.targetFlag(cmd, &target)
	}
	return cmd
}

// simple makes a command with a thing for its only argument.
func (a *app) simple(n noun, name, short string, run func(ctx context.Context, t thing) error) *cobra.Command {
	return a.about(n, name, short, "", 0, 0, func(ctx context.Context, t thing, _ []string) error { return run(ctx, t) })
}

// renaming makes a rename.
func (a *app) renaming(n noun, do func(ctx context.Context, t thing, name string) error) *cobra.Command {
	cmd := a.about(n, "rename NAME", "Rename a "+n.what, "other", 1, 1, func(ctx context.Context, t thing, args []string) error {
		err := do(ctx, t, args[0])
		if err == nil {
			a.say("%s %s renamed to %s", strings.ToUpper(n.what[:1])+n.what[1:], t.name, args[0])
		}
		return err
	})
	cmd.Aliases = []string{"mv"}
	return cmd
}

// keyed is a kind of thing with configuration keys.
type keyed struct {
	noun
	// key and value are for the examples.
	key, value string
	read       func(ctx context.Context, t thing) (map[string]string, error)
	// change sets keys and removes those with an empty value.
	change func(ctx context.Context, t thing, changes map[string]string) error
}

// keyCommands makes get, set and unset.
func (a *app) keyCommands(k keyed) []*cobra.Command {
	return []*cobra.Command{
		a.about(k.noun, "get KEY", "Print a configuration key", k.key, 1, 1, func(ctx context.Context, t thing, args []string) error {
			config, err := k.read(ctx, t)
			if err == nil {
				fmt.Fprintln(a.stdout, config[args[0]])
			}
			return err
		}),
		a.about(k.noun, "set KEY=VALUE...", "Set configuration keys", k.key+"="+k.value, 1, -1, func(ctx context.Context, t thing, args []string) error {
			changes, err := a.pairs(args)
			if err != nil {
				return err
			}
			return k.change(ctx, t, changes)
		}),
		a.about(k.noun, "unset KEY", "Remove a configuration key", k.key, 1, 1, func(ctx context.Context, t thing, args []string) error {
			return k.change(ctx, t, map[string]string{args[0]: ""})
		}),
	}
}
