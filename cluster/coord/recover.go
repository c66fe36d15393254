package coord

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"

	"muster/state"
)

// SeatsOnDisk returns who takes part in the log in dir, as it has it: true for those that
// vote. It is empty when this member was not taken in yet; a worker has no log
// (ErrNotFound). It changes nothing; no Node may be open on the directory (ErrConflict).
func SeatsOnDisk(ctx context.Context, dir string) (map[string]bool, error) {
	seats := map[string]bool{}
	err := offline(ctx, Config{Dir: dir, ID: "nobody"}, func(s *seat, conf *raft.Config) error {
		configuration, err := raft.GetConfiguration(conf, s.machine, s.disk.wal, s.disk.wal, s.disk.snapshots, s.streams.transport)
		for _, server := range configuration.Servers {
			seats[string(server.ID)] = server.Suffrage == raft.Voter
		}
		return err
	})
	return seats, err
}

// Recover makes the member the log's only one, on what its own log holds: for a cluster
// whose other voters are gone for good. It may be cut off anywhere and begun again. No
// Node may be open on the directory (ErrConflict).
func Recover(ctx context.Context, cfg Config) error {
	return offline(ctx, cfg, func(s *seat, conf *raft.Config) error {
		return raft.RecoverCluster(conf, s.machine, s.disk.wal, s.disk.wal, s.disk.snapshots, s.streams.transport, raft.Configuration{
			Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(cfg.ID), Address: raft.ServerAddress(cfg.ID)}},
		})
	})
}

// offline calls do with a log that is open and not running.
func offline(ctx context.Context, cfg Config, do func(s *seat, conf *raft.Config) error) error {
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
	s := &seat{replica: newReplica(), cfg: cfg, disk: disk, streams: newStreams(ctx, cfg.ID, nil, cfg.Log)}
	s.machine = &machine{replica: s.replica, log: cfg.Log, failed: make(chan struct{})}
	err = do(s, conf)
	if broken := s.machine.broken.Load(); broken != nil {
		err = errors.Join(err, damaged(cfg.Dir, broken))
	}
	if err = errors.Join(err, s.streams.close(), disk.close()); err != nil {
		return fmt.Errorf("the coordination log in %s: %w", cfg.Dir, err)
	}
	return nil
}
