package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// daemonPatience is how long waitready waits for a daemon to appear at all. One
// that is there and starts, or waits for its cluster, has no limit.
const daemonPatience = 10 * time.Second

func waitReadyCommand() *cobra.Command {
	var timeout int
	cmd := &cobra.Command{
		Use: "waitready", Short: "Wait until the daemon is ready", Args: cobra.NoArgs,
		Long:    "waitready returns when the daemon serves and the instances that start with it (boot.autostart) have been started.",
		Example: "  musterd waitready --timeout 30",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Duration(timeout)*time.Second)
				defer cancel()
			}
			seen := time.Now()
			for {
				err := localRequest(ctx, http.MethodGet, "/internal/ready", struct{}{}, nil)
				switch {
				case err == nil:
					return nil
				case errors.Is(err, fs.ErrPermission):
					return fmt.Errorf("%s: only root and the group of the daemon's --group may use it: try sudo, or join the group", socketPath())
				case !nobodyListens(err) || lockedDirectory(directory()):
					seen = time.Now()
				case timeout == 0 && time.Since(seen) > daemonPatience:
					return fmt.Errorf("no daemon has used %s for %s: start one as root with \"musterd\" (its log says why it ended), or set MUSTER_DIR to where it is", directory(), daemonPatience)
				}
				select {
				case <-ctx.Done():
					return fmt.Errorf("the daemon is not ready after %d s: %w", timeout, err)
				case <-time.After(20 * time.Millisecond):
				}
			}
		},
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "give up after so many seconds; 0 waits for as long as a daemon starts")
	return cmd
}
