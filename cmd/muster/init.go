package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/client/setup"
)

func (a *app) initCommand() *cobra.Command {
	var flags newInstance
	var auto, dump bool
	var preseed string
	var opts setup.Options
	cmd := &cobra.Command{
		Use:     "init [REMOTE:]IMAGE [REMOTE:][NAME]",
		Aliases: []string{"create"},
		Short:   "Create an instance without starting it; or set the server up",
		Long: `With an image (or --empty): create an instance, like "muster launch", without
starting it.

Without arguments: set up a fresh server: a storage pool, a network bridge and
the default profile that uses them; or as a member of a cluster. It asks what it
should be like, and reads the answers from standard input, be that a terminal or
not; --auto asks nothing, and --preseed reads everything from a YAML document in
the format of "lxd init --preseed", whose section "cluster" begins a cluster or
joins one. Whatever is there already is used, and a set-up that fails half-way is
taken back. --dump prints the server as such a document.`,
		Example: `  muster init busybox web
  muster init
  muster init --auto
  muster init --auto --storage-driver btrfs --listen '[::]:8443'
  muster init --preseed < server.yaml
  muster init --preseed=server.yaml
  muster init --dump`,
		Args:              between(0, 2),
		ValidArgsFunction: a.complete(aliasNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			setsUp := auto || dump || cmd.Flags().Changed("preseed")
			// "muster init REMOTE:" sets that server up.
			if flags.empty || len(args) > 1 || (len(args) == 1 && !strings.HasSuffix(args[0], ":")) {
				if setsUp {
					return usagef(cmd, "an instance is created without --auto, --preseed and --dump")
				}
				_, err := a.create(cmd, args, flags)
				return err
			}
			t, err := a.on(strings.Join(args, ""))
			if err != nil {
				return err
			}
			switch {
			case dump:
				text, err := setup.Dump(cmd.Context(), t.Client)
				if err == nil {
					_, err = a.stdout.Write(text)
				}
				return err
			case cmd.Flags().Changed("preseed"):
				text, err := a.readDocument(preseed)
				if err != nil {
					return err
				}
				return setup.Preseed(cmd.Context(), t.Client, text)
			case auto:
				result, err := setup.Auto(cmd.Context(), t.Client, opts)
				if err != nil {
					return err
				}
				a.sayResult(result)
				return nil
			}
			result, err := setup.Interactive(cmd.Context(), t.Client, a.stdin, a.stdout)
			if errors.Is(err, setup.ErrNoAnswer) {
				return advise(err, "--auto asks nothing, --preseed reads a document.")
			}
			if err == nil {
				a.sayResult(result)
			}
			return err
		},
	}
	flags.flags(a, cmd)
	f := cmd.Flags()
	f.BoolVar(&auto, "auto", false, "set the server up without questions")
	f.BoolVar(&dump, "dump", false, "print the server's set-up as YAML")
	f.StringVar(&preseed, "preseed", "-", "set the server up from a YAML file, or from standard input")
	f.Lookup("preseed").NoOptDefVal = "-"
	f.StringVar(&opts.Pool, "pool", "", "with --auto: name of the storage pool (default "+setup.DefaultPool+")")
	f.StringVar(&opts.Driver, "storage-driver", "", "with --auto: overlay, dir or btrfs")
	f.StringVar(&opts.Source, "storage-source", "", "with --auto: where the pool is kept")
	f.StringVar(&opts.Network, "bridge", "", "with --auto: name of the network (default "+setup.DefaultNetwork+", or the next free one)")
	f.BoolVar(&opts.NoNetwork, "no-bridge", false, "with --auto: make no network")
	f.StringVar(&opts.Address, "listen", "", "with --auto: address to be reachable at, HOST:PORT")
	return cmd
}

func (a *app) sayResult(result setup.Result) {
	if len(result.Made) == 0 {
		a.say("Everything was there already")
	}
	for _, line := range result.Made {
		a.say("Made %s", line)
	}
}

// readDocument reads a file, or standard input for "-".
func (a *app) readDocument(name string) ([]byte, error) {
	if name == "-" {
		text, err := io.ReadAll(a.stdin)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		return text, nil
	}
	return os.ReadFile(name)
}
