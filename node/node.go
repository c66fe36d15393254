// Package node is what one machine does: it makes instances out of images and
// volumes, starts, stops and changes them, and tells how they are.
//
// It knows nothing of the cluster or of the state plane: it gets whole, expanded
// instances, acts on the host, and returns what is worth recording. It never
// decides which machine hosts what.
package node

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"muster/node/image"
	"muster/node/network"
	"muster/node/runtime"
	"muster/node/storage"
	"muster/state"
)

// Config is what a Node needs. All fields are required but Log.
type Config struct {
	// Dir is the daemon's directory.
	Dir      string
	Runtime  runtime.Runtime
	Images   *image.Store
	Networks *network.Networks
	// IDMap is what unprivileged containers' ids are mapped to.
	IDMap runtime.IDMap
	Log   *slog.Logger
}

// Node acts on this machine. Its methods may be called from many goroutines;
// the caller sees to it that one instance is changed by one call at a time.
type Node struct {
	cfg Config
	log *slog.Logger

	// disksMu guards the directory that holds the mounts of disk devices; see disks.go.
	disksMu sync.Mutex

	mu    sync.Mutex
	pools map[string]*storage.Pool // guarded by mu; mounted pools by name
}

// New checks the configuration. It touches nothing.
func New(cfg Config) (*Node, error) {
	if cfg.Dir == "" || cfg.Runtime == nil || cfg.Images == nil || cfg.Networks == nil {
		return nil, state.Errorf(state.ErrInvalid, "node needs a directory, a runtime, an image store and networks")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Node{cfg: cfg, log: cfg.Log, pools: map[string]*storage.Pool{}}, nil
}

// Instance is an instance with everything that the machine must know of it.
type Instance struct {
	Project      string
	Name         string
	Architecture string
	Ephemeral    bool
	// Config and Devices are expanded: profiles and own laid over each other.
	// Config holds the volatile keys too.
	Config  state.Config
	Devices state.Devices
	// Networks are the managed networks that the nic devices name.
	Networks map[string]*state.Network
}

// HostName is what the instance is called on its host: its name, with the
// project before it outside the default project.
func (i Instance) HostName() string { return HostName(i.Project, i.Name) }

// HostName names the instance of a project on its host.
func HostName(project, name string) string {
	if project == state.DefaultProject {
		return name
	}
	return project + "_" + name
}

// SplitHostName is the inverse of HostName: instance names have no underscore.
func SplitHostName(host string) (project, name string) {
	if i := strings.LastIndexByte(host, '_'); i >= 0 {
		return host[:i], host[i+1:]
	}
	return state.DefaultProject, host
}

// Pool is the name of the pool that holds the root file system. An instance
// without a root disk is state.ErrInvalid.
func (i Instance) Pool() (string, error) {
	_, root, err := RootDisk(i.Devices)
	if err != nil {
		return "", err
	}
	return root["pool"], nil
}

// RootDisk finds the disk device that is the root file system.
func RootDisk(devices state.Devices) (name string, options map[string]string, err error) {
	for _, name := range deviceNames(devices) {
		device := devices[name]
		if device["type"] == "disk" && device["path"] == "/" && device["source"] == "" {
			if device["pool"] == "" {
				return "", nil, state.Errorf(state.ErrInvalid, "device %q: the root disk needs a \"pool\": name a storage pool", name)
			}
			return name, device, nil
		}
	}
	return "", nil, state.Errorf(state.ErrInvalid,
		"no root disk: add a device of type \"disk\" with path \"/\" and a \"pool\" to the instance or to one of its profiles")
}

// privileged says that the container's root is the host's.
func (i Instance) privileged() bool { return isTrue(i.Config["security.privileged"]) }

// ids is the map of the instance, nil when it is privileged.
func (n *Node) ids(i Instance) *runtime.IDMap {
	if i.privileged() {
		return nil
	}
	m := n.cfg.IDMap
	return &m
}

func (n *Node) storageIDs(i Instance) *storage.IDMap {
	if m := n.ids(i); m != nil {
		return storage.Shift(m.Host, m.Size)
	}
	return nil
}

// runDir is where the runtime keeps the instance's logs.
func (n *Node) logDir(i Instance) string {
	return filepath.Join(n.cfg.Dir, "logs", i.HostName())
}

// volume returns the pool and volume of the instance's root file system.
func (n *Node) volume(ctx context.Context, i Instance) (*storage.Pool, storage.Volume, error) {
	name, err := i.Pool()
	if err != nil {
		return nil, storage.Volume{}, err
	}
	pool, err := n.Pool(ctx, name)
	return pool, storage.Instance(i.HostName()), err
}

// CheckRoot says why the instance's root file system can't be made on this machine now, or
// nil.
func (n *Node) CheckRoot(ctx context.Context, i Instance) error {
	_, _, err := n.volume(ctx, i)
	return err
}

func isTrue(value string) bool {
	switch strings.ToLower(value) {
	case "true", "1", "yes", "on":
		return true
	}
	return false
}
