package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"muster/cluster/pki"
)

// aloneDir holds what a server was before it joined a cluster: its certificates and both
// logs. It is there until the join has ended. When the cluster takes the join back, the
// server becomes again what it was.
const aloneDir = "alone"

// logDirs are the directories of both consensus logs, and before them the marks of what was
// in use: without them nobody misses the rest.
var logDirs = []string{"database.used", "raft.used", "database", "raft"}

// setAside moves both logs of a server that joins to aloneDir and copies its certificates
// there. It may be cut off anywhere and begun again.
func setAside(dir string) error {
	alone := filepath.Join(dir, aloneDir)
	if _, err := os.Stat(alone); errors.Is(err, fs.ErrNotExist) {
		half := alone + ".new"
		if err := errors.Join(os.RemoveAll(half), os.Mkdir(half, 0o700)); err != nil {
			return err
		}
		for _, name := range pki.Files() {
			if err := copyFile(filepath.Join(dir, name), filepath.Join(half, name)); err != nil {
				return err
			}
		}
		if err := os.Rename(half, alone); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	for _, name := range logDirs {
		if err := moveOnce(filepath.Join(dir, name), filepath.Join(alone, name)); err != nil {
			return err
		}
	}
	return syncDir(alone)
}

// bringBack makes a server what it was before setAside; it does nothing when nothing was
// set aside. The logs and certificates of the cluster must be gone. It may be cut off
// anywhere and begun again.
func bringBack(dir string) error {
	alone := filepath.Join(dir, aloneDir)
	left, err := os.ReadDir(alone)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// In the order of names each log comes before its mark.
	for _, entry := range left {
		if err := os.Rename(filepath.Join(alone, entry.Name()), filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return errors.Join(syncDir(dir), os.Remove(alone))
}

// copyFile copies a small file with its permissions.
func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return errors.Join(writeWhole(to, data), os.Chmod(to, info.Mode().Perm()))
}

// moveOnce renames a file unless that was done before.
func moveOnce(from, to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	err := os.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// dropAlone removes what was set aside: the join has ended.
func dropAlone(dir string) error { return os.RemoveAll(filepath.Join(dir, aloneDir)) }

// syncDir makes the names in a directory last.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
