package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/rest/api"
)

func (a *app) operationCommand() *cobra.Command {
	return family("operation", "Look after work in the background", "  muster operation list",
		a.operationListCommand(),
		&cobra.Command{
			Use: "show [REMOTE:]OPERATION", Short: "Show an operation as YAML", Example: "  muster operation show 344a79e4-d88a-45bf-9c39-c72c26f6ab8a",
			Args: between(1, 1), ValidArgsFunction: a.complete(operationIDs, nothing),
			RunE: func(cmd *cobra.Command, args []string) error {
				t, err := a.named(args[0], "operation")
				if err != nil {
					return err
				}
				op, err := t.Operation(cmd.Context(), t.name)
				if err != nil {
					return err
				}
				return a.yaml(op.Operation)
			},
		},
		&cobra.Command{
			Use: "delete [REMOTE:]OPERATION", Aliases: []string{"rm", "cancel"}, Short: "Cancel an operation", Example: "  muster operation delete 344a79e4-d88a-45bf-9c39-c72c26f6ab8a",
			Args: between(1, 1), ValidArgsFunction: a.complete(operationIDs, nothing),
			RunE: func(cmd *cobra.Command, args []string) error {
				t, err := a.named(args[0], "operation")
				if err != nil {
					return err
				}
				if err := t.CancelOperation(cmd.Context(), t.name); err != nil {
					return err
				}
				a.say("Operation %s cancelled", t.name)
				return nil
			},
		},
		&cobra.Command{
			Use: "wait [REMOTE:]OPERATION", Short: "Wait for an operation to end", Example: "  muster operation wait 344a79e4-d88a-45bf-9c39-c72c26f6ab8a",
			Args: between(1, 1), ValidArgsFunction: a.complete(operationIDs, nothing),
			RunE: func(cmd *cobra.Command, args []string) error {
				t, err := a.named(args[0], "operation")
				if err != nil {
					return err
				}
				op, err := t.Operation(cmd.Context(), t.name)
				if err != nil {
					return err
				}
				// Ctrl-c ends the wait and not the operation: it is not ours.
				bar := a.progress(op.Description)
				defer bar.close()
				return op.Wait(cmd.Context(), bar.operation)
			},
		})
}

func (a *app) operationListCommand() *cobra.Command {
	var format string
	var allProjects bool
	cmd := &cobra.Command{
		Use: "list [REMOTE:]", Aliases: []string{"ls"}, Short: "List operations", Example: "  muster operation list --all-projects",
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, _, err := a.server(args)
			if err != nil {
				return err
			}
			operations, err := t.Operations(cmd.Context(), allProjects)
			if err != nil {
				return err
			}
			slices.SortFunc(operations, func(x, y api.Operation) int { return x.CreatedAt.Compare(y.CreatedAt) })
			if operations == nil {
				operations = []api.Operation{}
			}
			located, err := t.clustered(cmd.Context())
			if err != nil {
				return err
			}
			return a.render(format, operationTable(operations, located))
		},
	}
	cmd.Flags().BoolVar(&allProjects, "all-projects", false, "operations of all projects")
	formatFlag(cmd, &format)
	return cmd
}

func operationTable(operations []api.Operation, located bool) table.Data {
	d := table.Data{Header: []string{"ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"}, Values: operations}
	if located {
		d.Header = append(d.Header, "LOCATION")
	}
	for _, op := range operations {
		row := []string{op.ID, strings.ToUpper(op.Class), op.Description, strings.ToUpper(op.Status), yesNo(op.MayCancel), moment(op.CreatedAt)}
		if located {
			row = append(row, op.Location)
		}
		d.Rows = append(d.Rows, row)
	}
	return d
}
