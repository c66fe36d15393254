package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"muster/cluster/pki"
)

// leavingFile says that this server was removed from its cluster and has yet to forget
// it. From the moment it is there, a start finishes the leaving.
const leavingFile = "leaving"

// returningFile takes the place of leavingFile when all that is the cluster's is gone: a
// start then brings back what the server was before it joined, if its join had not ended.
const returningFile = "returning"

// Leave implements rest.Daemon: the server, which was removed from its cluster, forgets
// it, and begins anew on its own soon after Leave has returned.
func (m *member) Leave(context.Context) error {
	if err := writeWhole(filepath.Join(m.dir, leavingFile), nil); err != nil {
		return err
	}
	m.left.Store(true)
	m.anew.Store(true)
	// Whoever asked hears the answer first.
	time.AfterFunc(200*time.Millisecond, m.end)
	return nil
}

// finishLeaving makes a server that was removed from its cluster a server of its own: it
// drops the logs and the certificates, and brings back those of before when its join had
// not ended. It may be cut off anywhere and begun again.
func finishLeaving(dir string) error {
	leaving, returning := filepath.Join(dir, leavingFile), filepath.Join(dir, returningFile)
	switch _, err := os.Stat(leaving); {
	case err == nil:
		// What it has of instances and pools stays, and is not what the next database must know.
		if err := writeWhole(filepath.Join(dir, forgetFile), nil); err != nil {
			return err
		}
		if err := errors.Join(dropLogs(dir), pki.Discard(dir)); err != nil {
			return err
		}
		for _, name := range []string{"members.json", joiningFile} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := os.Rename(leaving, returning); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, err := os.Stat(returning); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := bringBack(dir); err != nil {
		return err
	}
	return os.Remove(returning)
}

// remember makes sure that a member can still be told when it has been removed.
func (m *member) remember(id string) (forget func()) {
	unlist := m.book.remember(id)
	return func() {
		unlist()
		m.peers.Forget(id)
	}
}
