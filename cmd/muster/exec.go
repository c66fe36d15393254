package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

// execFlags are the flags of exec and shell.
type execFlags struct {
	env                        []string
	cwd, mode                  string
	user, group                uint32
	interactive, noInteractive bool
	noStdin                    bool
}

func (e *execFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&e.env, "env", nil, "KEY=VALUE to set for the command")
	f.StringVar(&e.cwd, "cwd", "", "directory to run the command in")
	f.Uint32Var(&e.user, "user", 0, "user ID to run the command as")
	f.Uint32Var(&e.group, "group", 0, "group ID to run the command as")
}

func (a *app) execCommand() *cobra.Command {
	var flags execFlags
	cmd := &cobra.Command{
		Use:   "exec [REMOTE:]INSTANCE [FLAGS] [--] COMMAND [ARGUMENT...]",
		Short: "Run a command in an instance",
		Long: `Run a command in an instance, and exit with its status (127 when there is no such
command, 126 when it can't be run).

With a terminal on both ends the command gets one too; otherwise its output and
errors stay apart, and signals sent to us are passed on to it. The command runs
as root unless --user says otherwise, and not in a shell: use sh -c for that.
Flags after the command are the command's.`,
		Example: `  muster exec web -- ps -ef
  muster exec web sh
  muster exec web --env LANG=C --cwd /tmp -- sh -c 'echo $LANG; pwd'
  tar c dir | muster exec web -- tar x -C /srv`,
		Args:              between(1, -1),
		ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			// Flags may stand on both sides of the instance's name, and what
			// comes after the command belongs to the command.
			name := args[0]
			if err := cmd.Flags().Parse(args[1:]); err != nil {
				return &usageError{err: err, path: cmd.CommandPath()}
			}
			if help, err := cmd.Flags().GetBool("help"); err == nil && help {
				return cmd.Help()
			}
			command := cmd.Flags().Args()
			if len(command) == 0 {
				return usagef(cmd, "no command to run: want %s", cmd.UseLine())
			}
			t, err := a.named(name, "instance")
			if err != nil {
				return err
			}
			return a.exec(cmd.Context(), t, command, flags)
		},
	}
	flags.flags(cmd)
	f := cmd.Flags()
	f.BoolVarP(&flags.interactive, "force-interactive", "t", false, "give the command a terminal in any case")
	f.BoolVarP(&flags.noInteractive, "force-noninteractive", "T", false, "give the command no terminal in any case")
	f.StringVar(&flags.mode, "mode", "auto", "auto, interactive or non-interactive")
	f.BoolVarP(&flags.noStdin, "disable-stdin", "n", false, "give the command an empty input")
	f.SetInterspersed(false)
	return cmd
}

func (a *app) shellCommand() *cobra.Command {
	var flags execFlags
	cmd := &cobra.Command{
		Use:   "shell [REMOTE:]INSTANCE",
		Short: "Open a login shell in an instance",
		Example: `  muster shell web
  muster shell web --user 1000 --group 1000`,
		Args:              between(1, 1),
		ValidArgsFunction: a.complete(instanceNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := a.named(args[0], "instance")
			if err != nil {
				return err
			}
			// su knows the user's own shell; a system without it has sh.
			login := `if command -v su >/dev/null && [ "$(id -u)" = 0 ]; then exec su -l; else exec sh -l; fi`
			return a.exec(cmd.Context(), t, []string{"sh", "-c", login}, flags)
		},
	}
	flags.flags(cmd)
	return cmd
}

// interactively decides whether the command gets a terminal.
func (e execFlags) interactively(both bool) (bool, error) {
	switch {
	case e.interactive && e.noInteractive:
		return false, errors.New("--force-interactive and --force-noninteractive exclude each other")
	case e.interactive || e.mode == "interactive":
		return true, nil
	case e.noInteractive || e.mode == "non-interactive":
		return false, nil
	case e.mode == "" || e.mode == "auto":
		return both, nil
	}
	return false, fmt.Errorf("mode %q is none of auto, interactive, non-interactive", e.mode)
}

// exec runs a command and returns a status other than 0 as an exitStatus.
func (a *app) exec(ctx context.Context, t thing, command []string, flags execFlags) error {
	interactive, err := flags.interactively(!a.piped() && terminal(a.stdout))
	if err != nil {
		return err
	}
	post := api.InstanceExecPost{
		Command: command, Interactive: interactive, Environment: map[string]string{},
		User: flags.user, Group: flags.group, Cwd: flags.cwd,
	}
	if interactive {
		post.Environment["TERM"] = orElse(a.getenv("TERM"), "xterm")
		post.Width, post.Height = a.terminalSize()
	}
	for _, pair := range flags.env {
		key, value, _ := strings.Cut(pair, "=")
		post.Environment[key] = value
	}
	streams := client.ExecStreams{Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr}
	if flags.noStdin {
		streams.Stdin = nil
	}
	status, err := a.attached(ctx, interactive, streams, func(ctx context.Context, streams client.ExecStreams) (int, error) {
		return t.Exec(ctx, t.name, post, streams)
	})
	if status != 0 {
		return &exitStatus{code: status, err: err}
	}
	return err
}

// attached runs something that has our standard streams, with the terminal set
// for it and signals on their way to it.
func (a *app) attached(ctx context.Context, interactive bool, streams client.ExecStreams, run func(context.Context, client.ExecStreams) (int, error)) (int, error) {
	if interactive {
		restore, err := a.raw()
		if err != nil {
			return 0, err
		}
		defer restore()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		streams.Control = a.resizes(ctx)
		return run(ctx, streams)
	}
	// Our own ctrl-c is the command's to answer, so it must not end the wait.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	streams.Control = a.signals(ctx, cancel)
	return run(ctx, streams)
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
