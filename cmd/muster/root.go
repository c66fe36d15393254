package main

import (
	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
)

// newRoot puts the commands together.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "muster",
		Short: "System containers, one machine or many",
		Long: `muster runs system containers on one machine or on a cluster of them.

Names may be written as REMOTE:NAME; without a remote, the default one is meant
(see "muster remote"). The first commands on a fresh machine:

  musterd init --auto
  muster image build busybox --alias busybox
  muster launch busybox first`,
		Example: `  muster launch busybox web
  muster list
  muster exec web -- ps
  muster delete --force web`,
		Version:       fullVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.project, "project", "", "use this project instead of the remote's (also: MUSTER_PROJECT)")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "say nothing but results and errors")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "say more about what is done")
	flags.BoolVar(&a.debug, "debug", false, "show requests and answers")
	flags.BoolVar(&a.local, "force-local", false, "use this machine's daemon, whatever the default remote is")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{err: err, path: cmd.CommandPath()} })
	_ = root.RegisterFlagCompletionFunc("project", a.complete(projectNames))
	root.AddCommand(
		a.launchCommand(), a.initCommand(), a.listCommand(), a.infoCommand(),
		a.startCommand(), a.stopCommand(), a.restartCommand(), a.freezeCommand(), a.unfreezeCommand(),
		a.deleteCommand(), a.copyCommand(), a.moveCommand(), a.renameCommand(),
		a.snapshotCommand(), a.restoreCommand(), a.publishCommand(),
		a.execCommand(), a.shellCommand(), a.consoleCommand(), a.fileCommand(),
		a.configCommand(), a.profileCommand(), a.imageCommand(), a.networkCommand(), a.storageCommand(),
		a.projectCommand(), a.clusterCommand(), a.placementCommand(), a.operationCommand(), a.monitorCommand(), a.queryCommand(),
		a.remoteCommand(), a.aliasCommand(), a.manpageCommand(), a.versionCommand(),
	)
	giveUsualNames(root)
	addNotThereYet(root)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	return root
}

// family is a command that only holds others.
func family(use, short, example string, members ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(members...)
	return cmd
}

// formatFlag adds --format.
func formatFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "format", "f", "table", "table, json, yaml, csv or compact")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(table.Formats, cobra.ShellCompDirectiveNoFileComp))
	check := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if err := table.Check(*format); err != nil {
			return &usageError{err: err, path: cmd.CommandPath()}
		}
		if check != nil {
			return check(cmd, args)
		}
		return nil
	}
}

// targetFlag adds --target.
func (a *app) targetFlag(cmd *cobra.Command, target *string) {
	cmd.Flags().StringVar(target, "target", "", "cluster member to use, or @GROUP")
	_ = cmd.RegisterFlagCompletionFunc("target", a.complete(targetNames))
}
