package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// usualNames are the short names that commands have in lxc, by their own names.
var usualNames = map[string]string{"list": "ls", "delete": "rm", "remove": "rm", "rename": "mv", "move": "mv", "copy": "cp"}

// giveUsualNames gives the commands below cmd their short names, as far as no neighbour has
// them.
func giveUsualNames(cmd *cobra.Command) {
	taken := map[string]bool{}
	for _, child := range cmd.Commands() {
		taken[child.Name()] = true
		for _, alias := range child.Aliases {
			taken[alias] = true
		}
	}
	for _, child := range cmd.Commands() {
		if short := usualNames[child.Name()]; short != "" && !taken[short] {
			taken[short] = true
			child.Aliases = append(child.Aliases, short)
		}
		giveUsualNames(child)
	}
}

// suggestionDistance is how many letters a mistyped command may be off.
const suggestionDistance = 2

// unknownCommand complains about a command that does not exist, with those that may be
// meant.
func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = suggestionDistance
	words := fmt.Sprintf("unknown command %q", name)
	if cmd.HasParent() {
		words += fmt.Sprintf(" for %q", cmd.CommandPath())
	}
	if meant := cmd.SuggestionsFor(name); len(meant) > 0 {
		slices.Sort(meant)
		words += fmt.Sprintf(": did you mean %s?", strings.Join(meant, " or "))
	}
	return usagef(cmd, "%s", words)
}

// notThereYet are commands of lxc for which the server has no route yet.
var notThereYet = map[string]string{
	"export": "backups", "import": "backups", "warning": "warnings",
	"cluster evacuate": "evacuating members", "cluster restore": "evacuating members", "cluster role": "roles that users give",
	"file mount":  "mounting an instance's files",
	"network acl": "network ACLs", "network forward": "network forwards", "network peer": "network peers", "network zone": "network zones",
	"storage volume attach": "custom volumes", "storage volume attach-profile": "custom volumes", "storage volume copy": "custom volumes",
	"storage volume create": "custom volumes", "storage volume detach": "custom volumes", "storage volume detach-profile": "custom volumes",
	"storage volume export": "custom volumes", "storage volume import": "custom volumes", "storage volume move": "custom volumes",
	"storage volume restore": "custom volumes", "storage volume snapshot": "custom volumes",
}

// addNotThereYet adds, hidden, what people who know lxc try, to say that it is not there.
// A command that exists by now is left alone.
func addNotThereYet(root *cobra.Command) {
	for path, what := range notThereYet {
		words := strings.Fields(path)
		parent, rest, err := root.Find(words[:len(words)-1])
		name := words[len(words)-1]
		if err != nil || len(rest) > 0 || slices.ContainsFunc(parent.Commands(), func(c *cobra.Command) bool { return c.Name() == name }) {
			continue
		}
		parent.AddCommand(&cobra.Command{
			Use: name, Short: "Not there yet", Example: "  muster " + path, Hidden: true, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error {
				return advise(fmt.Errorf("`muster %s` is not there yet: the server has no route for %s", path, what),
					"docs/limits.md lists what is missing.")
			},
		})
	}
}

func (a *app) manpageCommand() *cobra.Command {
	return &cobra.Command{
		Use: "manpage DIRECTORY", Short: "Write a manual page for each command", Hidden: true,
		Example: "  muster manpage /usr/local/share/man/man1", Args: between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true // the same pages each time
			return doc.GenManTree(root, &doc.GenManHeader{Title: "MUSTER", Section: "1", Source: "muster " + version}, args[0])
		},
	}
}
