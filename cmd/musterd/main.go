// Command musterd is the daemon of one member, and its admin subcommands.
//
// It reads flags and the environment, joins the rooms together, and decides
// nothing else.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// version is set at release builds with -ldflags "-X main.version=…".
var version = "0.1.0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// defaultDir is where a daemon keeps everything unless MUSTER_DIR says otherwise.
const defaultDir = "/var/lib/muster"

func directory() string {
	if dir := os.Getenv("MUSTER_DIR"); dir != "" {
		return dir
	}
	return defaultDir
}

func command() *cobra.Command {
	var options serveOptions
	root := &cobra.Command{
		Use:   "musterd",
		Short: "The muster daemon",
		Long: `musterd serves the API of one member and runs its containers, in the
foreground, until SIGTERM. Containers go on without it.

MUSTER_DIR chooses its directory (default ` + defaultDir + `); daemons with
different directories run side by side.`,
		Example: `  musterd --group adm
  MUSTER_DIR=/srv/two musterd --verbose
  musterd --witness`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.dir = directory()
			return serve(cmd.Context(), options)
		},
	}
	root.Flags().StringVar(&options.group, "group", "", "group whose members may use the local socket")
	root.Flags().StringVar(&options.logfile, "logfile", "", "write the log to this file besides standard error")
	root.Flags().BoolVar(&options.witness, "witness", false, "vote in the cluster and host nothing: two hosts and a witness outlive the loss of one")
	root.PersistentFlags().BoolVarP(&options.debug, "debug", "d", false, "log everything")
	root.PersistentFlags().BoolVarP(&options.verbose, "verbose", "v", false, "log what happens")
	root.AddCommand(initCommand(), waitReadyCommand(), shutdownCommand(), activateCommand(), sqlCommand(), clusterCommand(), manpageCommand(), &cobra.Command{
		Use: "version", Short: "Show the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
			return err
		},
	})
	return root
}
