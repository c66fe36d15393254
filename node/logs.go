package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"muster/state"
)

// The runtime's own logs, listed with the recorded outputs of exec.
var runtimeLogs = []string{"console.log", "lxc.conf", "lxc.log"}

// Logs returns the names of the instance's log files, sorted.
func (n *Node) Logs(inst Instance) ([]string, error) {
	var names []string
	for _, name := range runtimeLogs {
		if _, err := os.Stat(n.cfg.Runtime.LogFile(inst.HostName(), name)); err == nil {
			names = append(names, name)
		}
	}
	entries, err := os.ReadDir(n.logDir(inst))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	slices.Sort(names)
	return names, nil
}

// Used says whether the instance was ever started here, or had a command run in it: such
// an instance was created to its end.
func (n *Node) Used(inst Instance) (bool, error) {
	names, err := n.Logs(inst)
	return len(names) > 0, err
}

// OpenLog opens one of them for reading.
func (n *Node) OpenLog(inst Instance, name string) (*os.File, error) {
	path, err := n.logPath(inst, name)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, state.Errorf(state.ErrNotFound, "instance %q has no log file %q", inst.Name, name)
	}
	return file, err
}

// DeleteLog removes a recorded output; the runtime's own logs stay.
func (n *Node) DeleteLog(inst Instance, name string) error {
	path, err := n.logPath(inst, name)
	if err != nil {
		return err
	}
	if slices.Contains(runtimeLogs, name) {
		return state.Errorf(state.ErrInvalid, "log file %q belongs to the runtime and can't be deleted", name)
	}
	err = os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state.Errorf(state.ErrNotFound, "instance %q has no log file %q", inst.Name, name)
	}
	return err
}

func (n *Node) logPath(inst Instance, name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
		return "", state.Errorf(state.ErrInvalid, "%q is not the name of a log file", name)
	}
	if slices.Contains(runtimeLogs, name) {
		return n.cfg.Runtime.LogFile(inst.HostName(), name), nil
	}
	return filepath.Join(n.logDir(inst), name), nil
}

// CreateLog makes a file for the recorded output of a command.
func (n *Node) CreateLog(inst Instance, name string) (*os.File, error) {
	if err := os.MkdirAll(n.logDir(inst), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(n.logDir(inst), name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

func (n *Node) removeLogs(inst Instance) error { return os.RemoveAll(n.logDir(inst)) }

func (n *Node) renameLogs(from, to Instance) error {
	err := os.Rename(n.logDir(from), n.logDir(to))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
