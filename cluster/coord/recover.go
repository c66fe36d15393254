package coord

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"

	"muster/state"
)

// VotersOnDisk returns the IDs of the members that vote, sorted, as the log in dir has
// it. It changes nothing; no Node may be open on the directory (ErrConflict).
func VotersOnDisk(ctx context.Context, dir string) (voters []string, err error) {
	err = offline(ctx, Config{Dir: dir, ID: "nobody"}, func(n *Node, conf *raft.Config) error {
		configuration, err := raft.GetConfiguration(conf, n.machine, n.disk.wal, n.disk.wal, n.disk.snapshots, n.streams.transport)
		for _, server := range configuration.Servers {
			if server.Suffrage == raft.Voter {
				voters = append(voters, string(server.ID))
			}
		}
		return err
	})
	slices.Sort(voters)
	return voters, err
}

// Recover makes the member the log's only one, on what its own log holds: for a cluster
// whose other voters are gone for good. It may be cut off anywhere and begun again. No
// Node may be open on the directory (ErrConflict).
func Recover(ctx context.Context, cfg Config) error {
	return offline(ctx, cfg, func(n *Node, conf *raft.Config) error {
		return raft.RecoverCluster(conf, n.machine, n.disk.wal, n.disk.wal, n.disk.snapshots, n.streams.transport, raft.Configuration{
			Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(cfg.ID), Address: raft.ServerAddress(cfg.ID)}},
		})
	})
}

// offline calls do with a log that is open and not running.
func offline(ctx context.Context, cfg Config, do func(n *Node, conf *raft.Config) error) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	if found, err := filepath.Glob(filepath.Join(cfg.Dir, "*")); err != nil || len(found) == 0 {
		return state.Errorf(state.ErrNotFound, "there is no coordination log in %s", cfg.Dir)
	}
	disk, err := openLog(cfg.Dir, cfg.Log)
	if err != nil {
		return err
	}
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(cfg.ID)
	conf.Logger = hclogTo(cfg.Log)
	n := &Node{replica: newReplica(), cfg: cfg, disk: disk, streams: newStreams(ctx, cfg.ID, nil, cfg.Log)}
	n.machine = &machine{replica: n.replica, log: cfg.Log, failed: make(chan struct{})}
	err = do(n, conf)
	if broken := n.machine.broken.Load(); broken != nil {
		err = errors.Join(err, damaged(cfg.Dir, broken))
	}
	if err = errors.Join(err, n.streams.close(), disk.close()); err != nil {
		return fmt.Errorf("the coordination log in %s: %w", cfg.Dir, err)
	}
	return nil
}
