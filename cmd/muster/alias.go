package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/remote"
	"muster/cmd/muster/table"
)

func (a *app) aliasCommand() *cobra.Command {
	change := func(do func(aliases map[string]string) error) error {
		config, err := a.config()
		if err != nil {
			return err
		}
		if err := do(config.Aliases); err != nil {
			return err
		}
		return config.Save()
	}
	known := func(aliases map[string]string, name string) error {
		if _, found := aliases[name]; !found {
			return advise(fmt.Errorf("there is no alias %q", name), "`muster alias list` shows them.")
		}
		return nil
	}
	free := func(cmd *cobra.Command, aliases map[string]string, name string) error {
		if _, taken := aliases[name]; taken {
			return fmt.Errorf("there is an alias %q already", name)
		}
		if name == "" || strings.HasPrefix(name, "-") {
			return usagef(cmd, "%q can't be an alias", name)
		}
		if strings.HasPrefix(name, "alias") {
			return errors.New("aliases of `muster alias` itself could not be undone")
		}
		return nil
	}
	var format string
	list := &cobra.Command{
		Use: "list", Short: "List the aliases", Example: "  muster alias list", Args: between(0, 0),
		RunE: func(*cobra.Command, []string) error {
			config, err := a.config()
			if err != nil {
				return err
			}
			d := table.Data{Header: []string{"ALIAS", "TARGET"}, Values: config.Aliases}
			for _, name := range keysOf(config.Aliases) {
				d.Rows = append(d.Rows, []string{name, config.Aliases[name]})
			}
			return a.render(format, d)
		},
	}
	formatFlag(list, &format)
	return family("alias", "Give commands names of your own", `  muster alias add login "exec @ARGS@ -- su -l"
  muster login web`,
		list,
		&cobra.Command{
			Use: "add ALIAS COMMAND", Short: "Add an alias", Args: between(2, 2),
			Long:    "Add an alias. @ARGS@ in the command is where further arguments go; without it, they follow it.",
			Example: "  muster alias add login \"exec @ARGS@ -- su -l\"",
			RunE: func(cmd *cobra.Command, args []string) error {
				return change(func(aliases map[string]string) error {
					if err := free(cmd, aliases, args[0]); err != nil {
						return err
					}
					aliases[args[0]] = args[1]
					return nil
				})
			},
		},
		&cobra.Command{
			Use: "remove ALIAS", Short: "Remove an alias", Example: "  muster alias remove login", Args: between(1, 1),
			RunE: func(_ *cobra.Command, args []string) error {
				return change(func(aliases map[string]string) error {
					if err := known(aliases, args[0]); err != nil {
						return err
					}
					delete(aliases, args[0])
					return nil
				})
			},
		},
		&cobra.Command{
			Use: "rename ALIAS NAME", Short: "Rename an alias", Example: "  muster alias rename login enter", Args: between(2, 2),
			RunE: func(cmd *cobra.Command, args []string) error {
				return change(func(aliases map[string]string) error {
					if err := errors.Join(known(aliases, args[0]), free(cmd, aliases, args[1])); err != nil {
						return err
					}
					aliases[args[1]] = aliases[args[0]]
					delete(aliases, args[0])
					return nil
				})
			},
		})
}

// argsPlace is where an alias wants its arguments.
const argsPlace = "@ARGS@"

// expand puts a command in the place of the alias that the command line begins with. An
// alias may have several words; the longest that fits is meant. Nothing is expanded twice.
func expand(args []string, aliases map[string]string) []string {
	best := 0
	var command string
	for alias, target := range aliases {
		words := strings.Fields(alias)
		if len(words) > best && len(words) <= len(args) && slices.Equal(words, args[:len(words)]) {
			best, command = len(words), target
		}
	}
	if best == 0 {
		return args
	}
	var expanded []string
	rest, placed := args[best:], false
	for word := range strings.FieldsSeq(command) {
		if word == argsPlace {
			expanded, placed = append(expanded, rest...), true
		} else {
			expanded = append(expanded, word)
		}
	}
	if !placed {
		expanded = append(expanded, rest...)
	}
	return expanded
}

// expanded is the command line with the user's aliases in place. A configuration that can't
// be read is reported by the command that needs it.
func (a *app) expanded(args []string) []string {
	dir, err := a.configDir()
	if err != nil {
		return args
	}
	config, err := remote.Load(dir, a.socket())
	if err != nil {
		return args
	}
	return expand(args, config.Aliases)
}
