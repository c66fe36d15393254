package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manpageCommand writes what `make install` installs.
func manpageCommand() *cobra.Command {
	return &cobra.Command{
		Use: "manpage DIRECTORY", Short: "Write a manual page for each command", Hidden: true, Args: cobra.ExactArgs(1),
		Example: "  musterd manpage /usr/local/share/man/man1",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // the same pages each time
			return doc.GenManTree(root, &doc.GenManHeader{Title: "MUSTERD", Section: "1", Source: "musterd " + version}, args[0])
		},
	}
}
