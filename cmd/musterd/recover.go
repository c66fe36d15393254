package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/cluster"
	"muster/cluster/coord"
	"muster/cluster/pki"
	"muster/rpc/mux"
	"muster/state"
	"muster/state/store"
)

// lostFile holds the members that a recovery gave up, until the state plane knows. While
// there are others in the book besides, the recovery was cut off.
const lostFile = "lost.json"

func recoverCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover-from-quorum-loss",
		Short: "Go on without the other members, when most database members are gone for good",
		Long: `recover-from-quorum-loss makes this member, whose daemon is stopped, the only one
that votes, on what its own disk holds. All other members are given up: those
without instances are removed, the others stay listed as offline until
"muster cluster remove --force NAME" forgets their instances too.

Run it on one member only, when most of those that "musterd cluster list-database"
shows as voters will never come back. If several are left, choose the one with the
greatest revision, and let the others join again afterwards: "musterd cluster
forget" makes each a server of its own. A worker has nothing to go on from; those
that are left are given up like all others.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir := directory()
			unlock, err := lockDirectory(dir)
			if err != nil {
				return fmt.Errorf("the daemon must be stopped first (\"musterd shutdown --keep-instances\"): %w", err)
			}
			defer unlock()
			lost, err := recoverable(cmd.Context(), dir)
			if err != nil {
				return err
			}
			if err := sayLost(cmd, dir, lost); err != nil {
				return err
			}
			if !yes {
				if _, err := fmt.Fprint(cmd.OutOrStdout(), "Type \"yes\" to go on: "); err != nil {
					return err
				}
				answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no answer is none
				if strings.TrimSpace(answer) != "yes" {
					return errors.New("nothing was changed")
				}
			}
			if err := recoverAlone(cmd.Context(), dir, lost); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "This member is the only one that votes now. Start the daemon.")
			return err
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// recoverable returns the members that would be given up, and refuses when one of them
// answers.
func recoverable(ctx context.Context, dir string) ([]cluster.Peer, error) {
	known, err := openBook(dir)
	if err != nil {
		return nil, err
	}
	if known.others("") == 0 {
		return nil, state.Errorf(state.ErrConflict, "the server in %s is in no cluster, or alone in it: there is nothing to recover from", dir)
	}
	identity, err := pki.Open(dir, pki.Options{})
	if err != nil {
		return nil, err
	}
	if known.others(identity.MemberID()) == 0 {
		return nil, state.Errorf(state.ErrConflict, "this member is the only one of its cluster: there is nothing to recover from")
	}
	found, err := partsOnDisk(ctx, dir)
	if err != nil {
		return nil, err
	}
	if err := found.copies(); err != nil {
		return nil, err
	}
	var lost []cluster.Peer
	for _, id := range known.ids(identity.MemberID()) {
		peer, _ := known.find(id)
		lost = append(lost, peer)
	}
	slices.SortFunc(lost, func(a, b cluster.Peer) int { return strings.Compare(a.Name, b.Name) })
	for _, peer := range lost {
		if !answersAs(ctx, identity, peer) {
			continue
		}
		if _, has := found.database[peer.ID]; has {
			return nil, state.Errorf(state.ErrConflict, "member %q answers at %s, so it is not lost: start enough members for a majority, or stop it if its database is not to be used any more", peer.Name, peer.Address)
		}
		return nil, state.Errorf(state.ErrConflict, "member %q answers at %s: it is a worker, and knows what this member may not: stop it, and let it join again afterwards", peer.Name, peer.Address)
	}
	return lost, nil
}

// copies refuses a member that does not have both logs, before anything is changed.
func (p parts) copies() error {
	role := p.database[p.self]
	switch {
	case len(p.database) == 0 && len(p.coord) == 0:
		return state.Errorf(state.ErrConflict, "this member is a worker and has no copy of the database: recover on one that voted or stood by (\"musterd cluster list-database\"), then \"musterd cluster forget\" here, and join again")
	case role != store.Voter && role != store.Standby:
		return state.Errorf(state.ErrConflict, "this member has no copy of the database: recover on one that voted or stood by")
	case len(p.coord) == 0:
		return state.Errorf(state.ErrConflict, "this member has the database and no copy of the coordination log: recover on one that has both")
	}
	return nil
}

// answersAs reports whether the very member answers at its address, and not another
// machine that has it by now.
func answersAs(ctx context.Context, identity *pki.Identity, peer cluster.Peer) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*identity.Member().TLS()},
		RootCAs: identity.Authorities(), ServerName: pki.MemberServerName, NextProtos: []string{mux.GRPC},
		VerifyConnection: func(s tls.ConnectionState) error {
			if id := pki.MemberOf(s.PeerCertificates[0]); id != peer.ID {
				return fmt.Errorf("this is member %s", id)
			}
			return nil
		},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", peer.Address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// sayLost tells what a recovery gives up.
func sayLost(cmd *cobra.Command, dir string, lost []cluster.Peer) error {
	database, err := store.Inspect(filepath.Join(dir, "database"))
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "This member will go on alone, with the database as it is on its disk (revision %d).\n\nLost for good:\n", database.Revision)
	fmt.Fprintf(&text, "- every change that the others acknowledged and this member has not received;\n")
	for _, peer := range lost {
		role := "no vote"
		if database.Roles[peer.ID] == store.Voter {
			role = "a voter"
		}
		fmt.Fprintf(&text, "- member %s at %s (%s): it is given up, with the instances, volumes and images that are only there;\n", peer.Name, peer.Address, role)
	}
	fmt.Fprintf(&text, "- the operations that run on them.\n\nA member that is given up is refused when it comes back. If two of them come back\nwhere they reach each other and not this one, they go on as a cluster of their own:\nmake sure that they stay off, or run \"musterd cluster forget\" on each.\n")
	_, err = fmt.Fprint(cmd.OutOrStdout(), text.String())
	return err
}

// recoverAlone makes the member the only one of both logs. It may be cut off anywhere
// and begun again; the daemon refuses to start in between.
func recoverAlone(ctx context.Context, dir string, lost []cluster.Peer) error {
	identity, err := pki.Open(dir, pki.Options{})
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(lost)
	if err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(dir, lostFile), encoded); err != nil {
		return err
	}
	if err := store.Recover(filepath.Join(dir, "database")); err != nil {
		return err
	}
	if err := coord.Recover(ctx, coord.Config{Dir: filepath.Join(dir, "raft"), ID: identity.MemberID(), Log: slog.New(slog.DiscardHandler)}); err != nil {
		return err
	}
	known, err := openBook(dir)
	if err != nil {
		return err
	}
	content := known.content
	for _, peer := range lost {
		delete(content.Peers, peer.ID)
	}
	return writeBook(filepath.Join(dir, "members.json"), content)
}

// refuseHalfRecovered keeps the daemon from starting on logs of which only one was
// recovered.
func refuseHalfRecovered(dir string, known *book) error {
	lost, err := readLost(dir)
	for _, peer := range lost {
		if _, still := known.find(peer.ID); still {
			return state.Errorf(state.ErrConflict, "a recovery was cut off: run \"musterd cluster recover-from-quorum-loss\" again")
		}
	}
	return err
}

func readLost(dir string) ([]cluster.Peer, error) {
	path := filepath.Join(dir, lostFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var lost []cluster.Peer
	if err := json.Unmarshal(data, &lost); err != nil {
		return nil, state.Errorf(state.ErrConflict, "%s is damaged: run \"musterd cluster recover-from-quorum-loss\" again: %w", path, err)
	}
	return lost, nil
}

// recordLost tells the state plane whom a recovery gave up.
func (m *member) recordLost(ctx context.Context) error {
	lost, err := readLost(m.dir)
	if err != nil || lost == nil {
		return err
	}
	if err := m.store.Barrier(ctx); err != nil {
		return err
	}
	for _, peer := range lost {
		found, err := m.store.View().MemberByID(peer.ID)
		if err != nil {
			continue // it was removed before this could be cut off
		}
		_, err = m.store.Apply(ctx, store.DeleteMember{Name: found.Name})
		switch {
		case errors.Is(err, state.ErrConflict):
			if _, err := m.store.Apply(ctx, store.LoseMember{Name: found.Name}); err != nil {
				return err
			}
			m.log.Warn("a member was given up, with its instances: remove it with force to forget them", "member", found.Name, "instances", len(m.store.View().InstancesOn(found.Name)))
		case err != nil:
			return err
		default:
			m.log.Warn("a member was given up and removed", "member", found.Name)
		}
	}
	return os.Remove(filepath.Join(m.dir, lostFile))
}
