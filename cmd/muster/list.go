package main

import (
	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/client"
	"muster/rpc/rest/api"
)

// Column layouts, as lxc has them.
const (
	defaultColumns = "ns46tS"
	fastColumns    = "nsacPt"
)

func (a *app) listCommand() *cobra.Command {
	var format, columns string
	var allProjects, fast bool
	cmd := &cobra.Command{
		Use:     "list [REMOTE:] [FILTER...]",
		Aliases: []string{"ls"},
		Short:   "List instances",
		Long: `List instances.

A filter is the start of a name, a regular expression that a whole name
matches, or KEY=VALUE, where KEY is
  type, status, architecture, location, project   the instance's own words, several joined by commas
  ipv4, ipv6                                      an address or a network such as 10.0.3.0/24
  any configuration key, whose parts may be shortened (u.stage for user.stage)
and VALUE of a configuration key may be a regular expression. An instance is
shown when all filters fit.

Columns are letters: n name, s state, 4 IPv4, 6 IPv6, t type, S snapshots,
a architecture, b storage pool, c created, d description, D disk usage,
e project, f base image, F base image in full, l last used, L location,
m memory, M memory in percent, N processes, p PID, P profiles, u CPU seconds.
Further columns, separated by commas, are KEY[:NAME[:WIDTH]] for a configuration
key and devices:DEVICE.KEY[:NAME[:WIDTH]] for a device's.`,
		Example: `  muster list
  muster list web status=running
  muster list ipv4=10.0.3.0/24 --format csv -c n4
  muster list -c ns,user.stage:STAGE,devices:eth0.network:NET`,
		Args:              between(0, -1),
		ValidArgsFunction: a.complete(instanceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, filters, err := a.server(args)
			if err != nil {
				return err
			}
			if fast {
				if cmd.Flags().Changed("columns") {
					return usagef(cmd, "--fast is a choice of columns: it can't go with --columns")
				}
				columns = fastColumns
			}
			shown, err := parseColumns(columns)
			if err != nil {
				return &usageError{err: err, path: cmd.CommandPath()}
			}
			fits, err := parseFilters(filters)
			if err != nil {
				return err
			}
			if !fast && !cmd.Flags().Changed("columns") {
				located, err := t.clustered(cmd.Context())
				if err != nil {
					return err
				}
				if located {
					shown = append(shown, letters['L'])
				}
			}
			if allProjects {
				shown = append([]column{letters['e']}, shown...)
			}
			q := client.InstancesQuery{AllProjects: allProjects}
			// State costs the server a look into every instance.
			full := format == "json" || format == "yaml" || fits.needState || needState(shown)
			instances, err := instancesFor(cmd, t, q, full)
			if err != nil {
				return err
			}
			var data table.Data
			for _, c := range shown {
				data.Header = append(data.Header, c.header)
			}
			kept := []api.InstanceFull{}
			for _, instance := range instances {
				if fits.all(instance) {
					kept = append(kept, instance)
				}
			}
			sortInstances(kept)
			for _, instance := range kept {
				var row []string
				for _, c := range shown {
					row = append(row, c.show(instance))
				}
				data.Rows = append(data.Rows, row)
			}
			data.Values = kept
			return a.render(format, data)
		},
	}
	cmd.Flags().StringVarP(&columns, "columns", "c", defaultColumns, "columns to show")
	cmd.Flags().BoolVar(&fast, "fast", false, "only what the server knows without looking (-c "+fastColumns+")")
	cmd.Flags().BoolVar(&allProjects, "all-projects", false, "instances of all projects")
	formatFlag(cmd, &format)
	return cmd
}

// instancesFor lists instances, with their state only when it is needed.
func instancesFor(cmd *cobra.Command, t thing, q client.InstancesQuery, full bool) ([]api.InstanceFull, error) {
	if full {
		return t.InstancesFull(cmd.Context(), q)
	}
	plain, err := t.Instances(cmd.Context(), q)
	if err != nil {
		return nil, err
	}
	all := make([]api.InstanceFull, 0, len(plain))
	for _, instance := range plain {
		all = append(all, api.InstanceFull{Instance: instance})
	}
	return all, nil
}
