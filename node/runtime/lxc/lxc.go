// Package lxc runs containers with liblxc, through muster-shim: the daemon itself
// never loads liblxc. What runs is found from the run directories and the kernel
// (locks, pidfds, control groups), never from memory, so a daemon that was killed
// and started again knows as much as one that was not.
//
// It never keeps a container alive or brings one down by its own life, never
// polls a container that lives, and never walks a path of a container on the
// host's side.
package lxc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"muster/node/runtime"
	"muster/node/runtime/lxc/cgroup"
	"muster/node/runtime/lxc/wire"
	"muster/state"
)

// Config is what Open needs.
type Config struct {
	// Dir holds a run directory for each container. Two daemons never share one;
	// everything on the machine that has a name derives from it. Others must be
	// able to pass through it and its parents (mode 0711), since the root of a
	// container is one of them.
	Dir string
	// Shim is the path of muster-shim.
	Shim string
	// Log may be nil.
	Log *slog.Logger
}

// Runtime implements runtime.Runtime with liblxc.
type Runtime struct {
	dir     string
	shim    string
	log     *slog.Logger
	version string
	groups  *cgroup.Host
	// prefix names this Dir among all on the machine.
	prefix   string
	apparmor bool
	locks    keyed
	watch    watcher

	// mu guards sealed, a copy of the shim that nobody can write to; see
	// shimFor.
	mu     sync.Mutex
	sealed *os.File
}

var _ runtime.Runtime = (*Runtime)(nil)

// Open looks at the machine and makes Dir. It starts nothing that lasts.
func Open(ctx context.Context, cfg Config) (*Runtime, error) {
	if !filepath.IsAbs(cfg.Dir) || !filepath.IsAbs(cfg.Shim) {
		return nil, state.Errorf(state.ErrInvalid, "the runtime needs absolute paths of its directory and of muster-shim, not %q and %q", cfg.Dir, cfg.Shim)
	}
	if os.Geteuid() != 0 {
		return nil, state.Errorf(state.ErrForbidden, "containers need root")
	}
	if err := os.MkdirAll(cfg.Dir, 0o711); err != nil {
		return nil, err
	}
	dir, err := filepath.EvalSymlinks(cfg.Dir)
	if err != nil {
		return nil, err
	}
	version, err := exec.CommandContext(ctx, cfg.Shim, "version").Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", cfg.Shim, err)
	}
	groups, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	sum := sha256.Sum256([]byte(dir))
	r := &Runtime{
		dir: dir, shim: cfg.Shim, log: log, groups: groups,
		version:  strings.TrimSpace(string(version)),
		prefix:   "muster." + hex.EncodeToString(sum[:4]),
		apparmor: hasAppArmor(),
	}
	r.watch.init()
	return r, nil
}

// Driver implements runtime.Runtime.
func (r *Runtime) Driver() runtime.Driver { return runtime.Driver{Name: "lxc", Version: r.version} }

// Close implements runtime.Runtime.
func (r *Runtime) Close() error {
	r.watch.close()
	// Not earlier: liblxc makes these, and what it starts meanwhile needs them.
	r.groups.Group(r.prefix).Prune()
	_ = os.Remove(r.liblxcLocks())
	r.mu.Lock()
	defer r.mu.Unlock()
	sealed := r.sealed
	r.sealed = nil
	if sealed == nil {
		return nil
	}
	return sealed.Close()
}

// run is a container's run directory.
func (r *Runtime) run(id string) string { return filepath.Join(r.dir, id) }

// group holds all of a container's processes; its monitor is beside it.
func (r *Runtime) group(id string) cgroup.Group { return r.all(id).Below("payload") }

// all holds everything of a container, its monitor too.
func (r *Runtime) all(id string) cgroup.Group { return r.groups.Group(r.prefix).Below(id) }

// liblxcLocks is where liblxc keeps a lock file for each container.
func (r *Runtime) liblxcLocks() string { return filepath.Join("/run/lxc/lock", r.dir) }

// LogFile implements runtime.Runtime.
func (r *Runtime) LogFile(id, name string) string {
	return filepath.Join(r.run(id), filepath.Base(name))
}

// Remove implements runtime.Runtime.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	if err := r.Cleanup(ctx, id); err != nil {
		return err
	}
	defer r.locks.lock(id)()
	// A daemon that was killed may have left a trial.
	if err := r.cleanup(ctx, tryID(id)); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(r.run(tryID(id))), os.RemoveAll(r.run(id)))
}

// Rename implements runtime.Runtime.
func (r *Runtime) Rename(ctx context.Context, id, newID string) error {
	if err := runtime.ValidateID(newID); err != nil {
		return err
	}
	if err := r.Cleanup(ctx, id); err != nil {
		return err
	}
	defer r.locks.lock(id)()
	err := unixRenameNoReplace(r.run(id), r.run(newID))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrExist):
		return state.Errorf(state.ErrExists, "container %s has a run directory already", newID)
	case err != nil:
		return err
	}
	// What it ran with says the old name everywhere; Start writes it anew.
	for _, name := range []string{specFile, wire.Config, wire.State, wire.Exit, wire.Goal} {
		if err := os.Remove(filepath.Join(r.run(newID), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// keyed is a set of locks by name. The zero value is ready.
type keyed struct {
	mu   sync.Mutex
	held map[string]*keyedLock
}

type keyedLock struct {
	mu sync.Mutex
	// users is guarded by keyed.mu.
	users int
}

// lock takes the lock of a name and returns what releases it.
func (k *keyed) lock(name string) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*keyedLock{}
	}
	l := k.held[name]
	if l == nil {
		l = &keyedLock{}
		k.held[name] = l
	}
	l.users++
	k.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, name)
		}
	}
}
