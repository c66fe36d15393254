package main

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"muster/cmd/muster/table"
	"muster/rpc/rest/api"
)

func (a *app) placementCommand() *cobra.Command {
	return family("placement", "Find out where instances go, and why", `  muster placement explain busybox
  muster placement explain busybox web --target @fast`,
		a.placementExplainCommand())
}

func (a *app) placementExplainCommand() *cobra.Command {
	var flags newInstance
	var format string
	cmd := &cobra.Command{
		Use:   "explain [[REMOTE:]IMAGE] [[REMOTE:][NAME]]",
		Short: "Show on which cluster member an instance would be made, and why",
		Long: `Show on which cluster member an instance would be made, and why. It takes what
"muster launch" takes, and makes nothing; without an image, the instance is one with
an empty root file system.

For each member there is either what refused it, or what each score gave; the highest
total is chosen, which CHOSEN marks. When there is no place, the command fails after
it has shown why.`,
		Example: `  muster placement explain busybox web
  muster placement explain busybox -c limits.memory=8GiB --target @fast
  muster placement explain --profile big --format json`,
		Args:              between(0, 2),
		ValidArgsFunction: a.complete(aliasNames, nothing),
		RunE: func(cmd *cobra.Command, args []string) error {
			flags.empty = flags.empty || len(args) == 0
			t, post, err := a.requested(cmd, args, flags)
			if err == nil {
				err = inCluster(cmd.Context(), t)
			}
			if err != nil {
				return err
			}
			placement, err := t.PlaceInstance(cmd.Context(), post)
			if err != nil {
				return err
			}
			if err := a.render(format, placementTable(placement)); err != nil {
				return err
			}
			if placement.Member == "" {
				return errors.New(placement.Error)
			}
			return nil
		},
	}
	flags.flags(a, cmd)
	formatFlag(cmd, &format)
	return cmd
}

// placementTable has a column for each score that some member got.
func placementTable(p api.Placement) table.Data {
	given := map[string]bool{}
	for _, verdict := range p.Members {
		for name := range verdict.Scores {
			given[name] = true
		}
	}
	scores := slices.Sorted(maps.Keys(given))
	d := table.Data{Header: []string{"MEMBER", "CHOSEN", "TOTAL"}, Values: p}
	for _, name := range scores {
		d.Header = append(d.Header, strings.ToUpper(strings.ReplaceAll(name, "_", " ")))
	}
	d.Header = append(d.Header, "REFUSED BY", "REASON")
	for _, verdict := range p.Members {
		row := []string{verdict.Member, "", ""}
		if verdict.Member == p.Member {
			row[1] = "YES"
		}
		if verdict.Filter == "" {
			row[2] = points(verdict.Total)
		}
		for _, name := range scores {
			if value, scored := verdict.Scores[name]; scored {
				row = append(row, points(value))
			} else {
				row = append(row, "")
			}
		}
		d.Rows = append(d.Rows, append(row, verdict.Filter, verdict.Reason))
	}
	table.SortRows(d.Rows)
	return d
}

// points is a score the way people compare them.
func points(value float64) string { return strconv.FormatFloat(value, 'f', 3, 64) }
