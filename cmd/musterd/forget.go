package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"muster/cluster/coord"
	"muster/cluster/pki"
	"muster/state"
	"muster/state/store"
)

// forgetFile says that somebody gave up the database, until the next one has begun.
const forgetFile = ".forget-database"

// refuseGone refuses to start where a log is gone that was there, before anything is made in
// its place.
func refuseGone(dir string, joined bool) error {
	if err := store.Gone(filepath.Join(dir, "database")); err != nil {
		return err
	}
	if err := coord.Gone(filepath.Join(dir, "raft")); err != nil {
		return err
	}
	return refuseForgotten(dir, joined)
}

// refuseForgotten refuses to begin an empty database where there are instances or pools: the
// server would take them for leftovers. The logs' own marks tell better, but a server of a
// former release has none.
func refuseForgotten(dir string, joined bool) error {
	if joined {
		return nil // what it has itself, its disk says; the rest the others know
	}
	entries, err := os.ReadDir(filepath.Join(dir, "database"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || len(entries) > 0 {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, forgetFile)); err == nil {
		return nil
	}
	for _, kept := range []string{"containers", "storage-pools"} {
		if found, err := os.ReadDir(filepath.Join(dir, kept)); err == nil && len(found) > 0 {
			return state.Errorf(state.ErrConflict, "%s has no database, but there is %s: mount or restore the database; to go on without it, run \"musterd init --forget-database\"", dir, filepath.Join(dir, kept, found[0].Name()))
		}
	}
	return nil
}

// forgetDatabase lets the daemon in dir begin without logs that are gone. It removes nothing:
// what is there must have been moved away.
func forgetDatabase(cmd *cobra.Command, dir string, stop bool) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	unlock, err := lockDirectory(dir)
	if err != nil {
		return fmt.Errorf("the daemon must be stopped first (\"musterd shutdown --keep-instances\"): %w", err)
	}
	defer unlock()
	known, err := openBook(dir)
	if err != nil {
		return err
	}
	joined := known.joined()
	database, raft := filepath.Join(dir, "database"), filepath.Join(dir, "raft")
	var gone []string
	if store.Gone(database) != nil || refuseForgotten(dir, joined) != nil {
		gone = append(gone, database)
	}
	if coord.Gone(raft) != nil {
		gone = append(gone, raft)
	}
	if len(gone) == 0 {
		return state.Errorf(state.ErrConflict, "nothing is missing in %s: to give up a database that is there, move it away first", dir)
	}
	identity, err := pki.Open(dir, pki.Options{})
	if err != nil {
		return err
	}
	// A member of a cluster gets from the others what it has lost, and begins none of its own.
	if known.others(identity.MemberID()) > 0 {
		if err := known.join(); err != nil {
			return err
		}
	} else if err := nothingRuns(cmd, dir, stop); err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(dir, forgetFile), nil); err != nil {
		return err
	}
	for _, log := range gone {
		forget := store.Forget
		if log == raft {
			forget = coord.Forget
		}
		if err := forget(log); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "Given up: %s. Start the daemon.\n", strings.Join(gone, " and "))
	return err
}
