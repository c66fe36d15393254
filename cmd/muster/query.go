package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"muster/rpc/client"
	"muster/rpc/rest/api"
)

func (a *app) queryCommand() *cobra.Command {
	var method, data string
	var wait, raw bool
	cmd := &cobra.Command{
		Use:   "query [REMOTE:]PATH",
		Short: "Send a request to the API by hand",
		Long:  `Send a request to the API and print what it answers. The data "-" is read from standard input.`,
		Example: `  muster query /1.0/instances?recursion=1
  muster query -X PUT --data '{"action":"start"}' --wait /1.0/instances/web/state`,
		Args: between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			remoteArg, path, found := strings.Cut(args[0], ":/")
			if found {
				remoteArg, path = remoteArg+":", "/"+path
			} else {
				remoteArg, path = "", args[0]
			}
			if !strings.HasPrefix(path, "/") {
				return usagef(cmd, "the path %q does not start with a slash", path)
			}
			t, err := a.on(remoteArg)
			if err != nil {
				return err
			}
			body := []byte(nil)
			if data == "-" {
				if body, err = a.readDocument("-"); err != nil {
					return err
				}
			} else if data != "" {
				body = []byte(data)
			}
			if body != nil && !json.Valid(body) {
				return fmt.Errorf("the data is not JSON: %s", elided(string(body), 60))
			}
			answer, err := t.Raw(ctx, strings.ToUpper(method), path, body)
			if err != nil {
				return err
			}
			if wait && answer.Type == api.AsyncResponse {
				if answer.Metadata, err = a.waitFor(cmd, t, answer.Metadata); err != nil {
					return err
				}
			}
			if raw {
				return json.NewEncoder(a.stdout).Encode(answer)
			}
			return a.printJSON(answer.Metadata)
		},
	}
	cmd.Flags().StringVarP(&method, "request", "X", "GET", "GET, POST, PUT, PATCH or DELETE")
	cmd.Flags().StringVarP(&data, "data", "d", "", "body of the request, in JSON")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the operation that is started")
	cmd.Flags().BoolVar(&raw, "raw", false, "print the whole envelope")
	return cmd
}

// waitFor waits for an operation given as JSON and returns its end as JSON.
func (a *app) waitFor(cmd *cobra.Command, t thing, metadata json.RawMessage) (json.RawMessage, error) {
	var started api.Operation
	if err := json.Unmarshal(metadata, &started); err != nil {
		return nil, err
	}
	op, err := t.Operation(cmd.Context(), started.ID)
	if client.IsNotFound(err) {
		return nil, fmt.Errorf("operation %s ended before it could be waited for", started.ID)
	}
	if err := a.done(cmd.Context(), "Waiting", op, err); err != nil {
		return nil, err
	}
	return json.Marshal(op.Operation)
}

// printJSON prints a value the way lxc query does: nothing for none.
func (a *app) printJSON(metadata json.RawMessage) error {
	if len(metadata) == 0 || string(metadata) == "null" {
		return nil
	}
	var text string
	if json.Unmarshal(metadata, &text) == nil {
		fmt.Fprintln(a.stdout, text)
		return nil
	}
	var b bytes.Buffer
	if err := json.Indent(&b, metadata, "", "\t"); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, b.String())
	return nil
}
