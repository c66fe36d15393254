package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"muster/node/runtime/lxc"
	"muster/rpc/client"
	"muster/rpc/client/setup"
	"muster/rpc/rest"
	"muster/rpc/rest/api"
)

func socketPath() string { return filepath.Join(directory(), "unix.socket") }

// connect returns a client of the daemon on the local socket.
func connect(warnings io.Writer) (*client.Client, error) {
	return client.New(client.Config{Socket: socketPath(), Warn: func(warning string) { fmt.Fprintln(warnings, "Warning:", warning) }})
}

func initCommand() *cobra.Command {
	var auto, preseed, dump, forget, stop bool
	var token, address, listen string
	var port, loop int
	var opts setup.Options
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Set up storage, network and the default profile",
		Example: `  musterd init              asks
  musterd init --auto       takes the usual answers
  musterd init --auto --network-address 192.0.2.1 --storage-backend btrfs
  musterd init --preseed < seed.yaml
  musterd init --dump       shows what is set up, as a preseed
  musterd init --token TOKEN --address 192.0.2.2:8443    joins a cluster`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range autoOnly {
				if cmd.Flags().Changed(name) && !auto {
					return fmt.Errorf("--%s goes with --auto", name)
				}
			}
			if loop < 1 && cmd.Flags().Changed("storage-create-loop") {
				return fmt.Errorf("--storage-create-loop %d: want a size of at least 1 GiB", loop)
			}
			if loop > 0 {
				opts.Size = strconv.Itoa(loop) + "GiB"
			}
			if listen != "" {
				opts.Address = net.JoinHostPort(strings.Trim(listen, "[]"), strconv.Itoa(port))
			} else if cmd.Flags().Changed("network-port") {
				return errors.New("--network-port goes with --network-address")
			}
			if forget {
				return forgetDatabase(cmd, directory(), stop)
			}
			if stop {
				return errors.New("--stop-instances goes with --forget-database")
			}
			c, err := connect(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer c.Close()
			switch {
			case token != "":
				return c.JoinCluster(cmd.Context(), api.ClusterPut{ClusterToken: token, ServerAddress: address})
			case address != "":
				return errors.New("--address goes with --token: it is where the other members reach this one")
			case dump:
				seed, err := setup.Dump(cmd.Context(), c)
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(seed)
				return err
			case preseed:
				seed, err := io.ReadAll(cmd.InOrStdin())
				if err != nil {
					return err
				}
				return setup.Preseed(cmd.Context(), c, seed)
			case auto:
				result, err := setup.Auto(cmd.Context(), c, opts)
				if err != nil {
					return err
				}
				return sayResult(cmd.OutOrStdout(), result)
			}
			result, err := setup.Interactive(cmd.Context(), c, cmd.InOrStdin(), cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return sayResult(cmd.OutOrStdout(), result)
		},
	}
	cmd.Flags().BoolVar(&auto, "auto", false, "take the usual answers")
	cmd.Flags().StringVar(&listen, "network-address", "", "with --auto: address to be reachable at (:: is all of them)")
	cmd.Flags().IntVar(&port, "network-port", 8443, "with --network-address: the port")
	cmd.Flags().StringVar(&opts.Driver, "storage-backend", "", "with --auto: overlay, dir or btrfs")
	cmd.Flags().StringVar(&opts.Pool, "storage-pool", "", "with --auto: name of the storage pool (default "+setup.DefaultPool+")")
	cmd.Flags().StringVar(&opts.Source, "storage-create-device", "", "with --auto: block device that the pool is made on")
	cmd.Flags().IntVar(&loop, "storage-create-loop", 0, "with --auto: size of the file that a btrfs pool is made in, in GiB")
	cmd.Flags().StringVar(&opts.TrustPassword, "trust-password", "", "with --auto: password that lets clients in")
	cmd.Flags().BoolVar(&preseed, "preseed", false, "read the answers from standard input, as YAML")
	cmd.Flags().BoolVar(&dump, "dump", false, "show what is set up, as YAML for --preseed")
	cmd.Flags().StringVar(&token, "token", "", "join the cluster that this token is of")
	cmd.Flags().StringVar(&address, "address", "", "with --token: where the other members reach this one, as address:port")
	cmd.Flags().BoolVar(&stop, "stop-instances", false, "with --forget-database: stop what runs here first")
	cmd.Flags().BoolVar(&forget, "forget-database", false, "the daemon is stopped and its database is gone: let it begin without what that held")
	cmd.MarkFlagsMutuallyExclusive("auto", "preseed", "dump", "token", "forget-database")
	return cmd
}

// autoOnly are the flags that answer what --auto does not ask.
var autoOnly = []string{"network-address", "network-port", "storage-backend", "storage-pool", "storage-create-device", "storage-create-loop", "trust-password"}

// sayResult tells what was set up.
func sayResult(out io.Writer, result setup.Result) error {
	if !lxc.HasLXCFS() {
		defer fmt.Fprintln(os.Stderr, "Note:", withoutLXCFS)
	}
	if len(result.Made) == 0 {
		_, err := fmt.Fprintln(out, "Everything was there already")
		return err
	}
	for _, line := range result.Made {
		if _, err := fmt.Fprintf(out, "Made %s\n", line); err != nil {
			return err
		}
	}
	return nil
}

// localRequest sends one request to the daemon's own endpoints and decodes the
// metadata of the answer.
func localRequest(ctx context.Context, method, path string, body, metadata any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://musterd"+path, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socketPath())
	}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("no daemon answers on %s: start one with \"musterd\": %w", socketPath(), err)
	}
	defer response.Body.Close()
	var envelope struct {
		Error    string          `json:"error"`
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := json.NewDecoder(response.Body).Decode(&envelope); err != nil {
		return err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return errors.New(envelope.Error)
	}
	if metadata == nil {
		return nil
	}
	return json.Unmarshal(envelope.Metadata, metadata)
}

func shutdownCommand() *cobra.Command {
	var timeout int
	var keep bool
	cmd := &cobra.Command{
		Use: "shutdown", Short: "Stop all instances and end the daemon", Args: cobra.NoArgs,
		Example: `  musterd shutdown
  musterd shutdown --keep-instances`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Duration(timeout)*time.Second)
				defer cancel()
			}
			err := onceItAnswers(ctx, directory(), func() error {
				return localRequest(ctx, http.MethodPost, "/internal/shutdown", rest.InternalShutdown{KeepInstances: keep}, nil)
			})
			if err != nil {
				return err
			}
			return waitGone(ctx)
		},
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "give up after so many seconds; 0 waits as long as it takes")
	cmd.Flags().BoolVar(&keep, "keep-instances", false, "leave instances running")
	return cmd
}

// nobodyListens reports whether a local request failed because nobody has the socket.
func nobodyListens(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}

// onceItAnswers makes the request, again while nobody listens and a daemon has the directory:
// one that was started just now is a member to the others before it opens its socket.
func onceItAnswers(ctx context.Context, dir string, request func() error) error {
	for {
		starting := lockedDirectory(dir) // looked at first: a daemon that is ready then is asked
		err := request()
		if err == nil || !nobodyListens(err) || !starting {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// waitGone returns once nobody holds the daemon's directory any more.
func waitGone(ctx context.Context) error {
	for {
		unlock, err := lockDirectory(directory())
		if err == nil {
			unlock()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the daemon has not ended: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func activateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "activateifneeded",
		Short: "Start the daemon through its socket if it has something to do",
		Long: `activateifneeded connects to the daemon's socket, so that a service manager
with socket activation starts it, when there is something to do: when it is
reachable over the network, in a cluster, or has instances to start. The daemon
notes that when it ends.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Stat(filepath.Join(directory(), neededFile)); errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return localRequest(cmd.Context(), http.MethodGet, "/1.0", struct{}{}, nil)
		},
	}
}

func sqlCommand() *cobra.Command {
	var write bool
	cmd := &cobra.Command{
		Use:   "sql STATEMENT",
		Short: "Run SQL against the state plane",
		Long:  "sql runs one statement against the replicated database. It only reads unless --write is given. \"-\" reads the statement from standard input.",
		Example: `  musterd sql "SELECT name, status FROM instances"
  musterd sql --write "DELETE FROM tokens"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			statement := args[0]
			if statement == "-" {
				text, err := io.ReadAll(bufio.NewReader(cmd.InOrStdin()))
				if err != nil {
					return err
				}
				statement = string(text)
			}
			var answer rest.InternalTable
			err := localRequest(cmd.Context(), http.MethodPost, "/internal/sql", rest.InternalSQL{Query: statement, Write: write}, &answer)
			if err != nil {
				return err
			}
			if len(answer.Columns) == 0 {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "Rows affected: %d\n", answer.RowsAffected)
				return err
			}
			out := table.NewWriter()
			out.SetOutputMirror(cmd.OutOrStdout())
			header := table.Row{}
			for _, column := range answer.Columns {
				header = append(header, strings.ToUpper(column))
			}
			out.AppendHeader(header)
			for _, row := range answer.Rows {
				out.AppendRow(row)
			}
			out.Render()
			return nil
		},
	}
	cmd.Flags().BoolVar(&write, "write", false, "allow statements that change something")
	return cmd
}
