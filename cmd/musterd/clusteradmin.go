package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"muster/cluster"
	"muster/cluster/coord"
	"muster/cluster/pki"
	"muster/rpc/mux"
	"muster/rpc/rest"
	"muster/state"
	"muster/state/store"
)

// clusterCommand holds what works on a member's own disk, without the other members.
func clusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Look at this member's part in its cluster, and repair it",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(listDatabaseCommand(), recoverCommand(), setAddressCommand(), forgetCommand())
	return cmd
}

func listDatabaseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list-database",
		Short: "Show who votes, as this member's own logs have it",
		Long: `list-database shows what each member does for the two logs, the database and the
coordination, as this member knows it: from the running daemon, or from the disk
when there is none. It works without a majority. A worker has no logs, and shows
what it heard last.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			shown, err := databaseOf(cmd)
			if err != nil {
				return err
			}
			out := table.NewWriter()
			out.SetOutputMirror(cmd.OutOrStdout())
			out.AppendHeader(table.Row{"NAME", "ADDRESS", "DATABASE", "COORDINATION", "ID"})
			for _, m := range shown.Members {
				name := m.Name
				if m.ID == shown.Self {
					name += " (this member)"
				}
				out.AppendRow(table.Row{name, m.Address, m.Database, m.Coordination, m.ID})
			}
			out.Render()
			schema := ""
			if shown.Schema != 0 {
				schema = fmt.Sprintf(", with schema %d", shown.Schema)
			}
			if shown.Worker {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "This member is a worker, without a database: it shows what it heard last%s.\n", schema)
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "This member has the database up to revision %d%s.\n", shown.Revision, schema)
			return err
		},
	}
}

// databaseOf asks the daemon, or reads the disk when none runs.
func databaseOf(cmd *cobra.Command) (rest.InternalDatabase, error) {
	dir := directory()
	unlock, err := lockDirectory(dir)
	if err != nil {
		var shown rest.InternalDatabase
		return shown, localRequest(cmd.Context(), http.MethodGet, "/internal/database", struct{}{}, &shown)
	}
	defer unlock()
	known, err := openBook(dir)
	if err != nil {
		return rest.InternalDatabase{}, err
	}
	found, err := partsOnDisk(cmd.Context(), dir)
	if err != nil {
		return rest.InternalDatabase{}, err
	}
	return found.describe(known), nil
}

// parts is who takes part in the two logs, as one member knows it.
type parts struct {
	self     string
	revision state.Revision
	// database and coord are from this member's own logs, and empty when it has no such
	// log, or an empty one.
	database, coord map[string]store.Role
	// heard is what the cluster has decided, as far as this member heard of it; nil when
	// only the book says something.
	heard map[string]store.Role
}

// partsOnDisk reads them while no daemon runs.
func partsOnDisk(ctx context.Context, dir string) (parts, error) {
	identity, err := pki.Open(dir, pki.Options{})
	if err != nil {
		return parts{}, err
	}
	database, err := store.Inspect(filepath.Join(dir, "database"))
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return parts{}, err
	}
	seats, err := coord.SeatsOnDisk(ctx, filepath.Join(dir, "raft"))
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return parts{}, err
	}
	return parts{
		self: identity.MemberID(), revision: database.Revision, database: database.Roles, coord: cluster.SeatRoles(seats),
	}, nil
}

// describe puts together what the book and the two logs say of the members.
func (p parts) describe(known *book) rest.InternalDatabase {
	shown := rest.InternalDatabase{Self: p.self, Revision: int64(p.revision), Worker: len(p.database) == 0 && len(p.coord) == 0}
	ids := known.ids("")
	for _, roles := range []map[string]store.Role{p.database, p.coord, p.heard} {
		ids = slices.AppendSeq(ids, maps.Keys(roles))
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		peer, _ := known.find(id)
		role := func(log map[string]store.Role) string {
			roles := log
			if len(roles) == 0 {
				roles = p.heard
			}
			switch role, there := roles[id]; {
			case there:
				return string(role)
			case roles == nil && peer.Control && id != p.self:
				return "voter or stand-by"
			}
			return string(store.Worker)
		}
		shown.Members = append(shown.Members, rest.InternalDatabaseMember{
			ID: id, Name: peer.Name, Address: peer.Address, Database: role(p.database), Coordination: role(p.coord),
		})
	}
	slices.SortStableFunc(shown.Members, func(a, b rest.InternalDatabaseMember) int { return strings.Compare(a.Name, b.Name) })
	return shown
}

func setAddressCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "set-address [MEMBER] ADDRESS",
		Short: "Say where a member is now, while this daemon is stopped",
		Long: `set-address gives this member another address at which the others reach it, while
its daemon is stopped: when its machine was renumbered. It tells the others when it
starts, as long as they are where they were. When others were renumbered too, name
them, on each member. While the daemon runs, set core.https_address instead.`,
		Example: `  musterd cluster set-address 192.0.2.9:8443
  musterd cluster set-address m2 192.0.2.10:8443`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := directory()
			unlock, err := lockDirectory(dir)
			if err != nil {
				return fmt.Errorf("the daemon runs: set core.https_address instead: %w", err)
			}
			defer unlock()
			address, err := mux.ParseAddress(args[len(args)-1])
			if err != nil {
				return err
			}
			if address, err = cluster.ReachableAddress(cmd.Context(), address); err != nil {
				return err
			}
			known, err := openBook(dir)
			if err != nil {
				return err
			}
			if known.others("") == 0 {
				return state.Errorf(state.ErrConflict, "the server in %s is in no cluster: start it and set core.https_address", dir)
			}
			identity, err := pki.Open(dir, pki.Options{})
			if err != nil {
				return err
			}
			id := identity.MemberID()
			if len(args) == 2 {
				if id = known.named(args[0]); id == "" {
					return state.Errorf(state.ErrNotFound, "no member is called %q: see \"musterd cluster list-database\"", args[0])
				}
			}
			return known.relocate(id, address)
		},
	}
}

func forgetCommand() *cobra.Command {
	var yes, stop bool
	cmd := &cobra.Command{
		Use:   "forget",
		Short: "Make this member, which was removed from its cluster, a server of its own",
		Long: `forget drops this member's databases and certificates while its daemon is stopped,
so that it can join a cluster again. It is for a member that was removed while it
was down. What it has of instances stays on its disk, unknown to anybody. While
instances run here it refuses, and names them: --stop-instances stops them first.`,
		Example: "  musterd cluster forget --yes --stop-instances",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := filepath.Abs(directory())
			if err != nil {
				return err
			}
			unlock, err := lockDirectory(dir)
			if err != nil {
				return fmt.Errorf("the daemon must be stopped first: %w", err)
			}
			defer unlock()
			if !yes {
				return state.Errorf(state.ErrInvalid, "this drops the member's database and certificates in %s: say --yes", dir)
			}
			if err := nothingRuns(cmd, dir, stop); err != nil {
				return err
			}
			if err := writeWhole(filepath.Join(dir, leavingFile), nil); err != nil {
				return err
			}
			return finishLeaving(dir)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&stop, "stop-instances", false, "stop what runs here first")
	return cmd
}

// nothingRuns returns an error that names the instances which run here and would lose their
// owner; with stop set it stops them first.
func nothingRuns(cmd *cobra.Command, dir string, stop bool) error {
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	if !stop {
		running, err := runningHere(cmd.Context(), dir, log)
		if err != nil {
			return err
		}
		return refuseWhatRuns(running)
	}
	stopped, err := haltHere(cmd.Context(), dir, log)
	if len(stopped) > 0 && err == nil {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "Stopped %s\n", strings.Join(stopped, ", "))
	}
	return err
}
