package main

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"muster/rpc/client"
)

// version is set at release builds with -ldflags "-X main.version=…".
var version = "0.1.0"

// fullVersion is the version, with the commit when the build knows it.
func fullVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return fmt.Sprintf("%s (%s)", version, elided(setting.Value, 12))
		}
	}
	return version
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version [REMOTE:]", Short: "Show the versions of this program and of the server", Example: "  muster version",
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fmt.Fprintf(a.stdout, "Client version: %s\n", fullVersion())
			t, _, err := a.server(args)
			if err != nil {
				return err
			}
			server, _, err := t.Server(cmd.Context())
			if _, away := errors.AsType[*client.ConnectionError](err); away {
				fmt.Fprintln(a.stdout, "Server version: unreachable")
				return nil
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stdout, "Server version: %s (%s)\n", orElse(server.Environment.MusterVersion, server.Environment.ServerVersion), orElse(server.Environment.Server, "unknown"))
			return nil
		},
	}
}
