package node

import (
	"context"
	"io"
	"maps"

	"muster/node/runtime"
	"muster/node/storage"
	"muster/state"
)

// Exec runs a command in a running instance. The instance's environment.* keys
// lie under the spec's own environment.
func (n *Node) Exec(ctx context.Context, inst Instance, spec runtime.ExecSpec) (runtime.Process, error) {
	env := withPrefix(inst.Config, "environment.")
	maps.Copy(env, spec.Env)
	spec.Env = env
	return n.cfg.Runtime.Exec(ctx, inst.HostName(), spec)
}

// Console attaches to the console of a running instance.
func (n *Node) Console(ctx context.Context, inst Instance) (runtime.Terminal, error) {
	return n.cfg.Runtime.Console(ctx, inst.HostName())
}

// ConsoleLog returns the newest output of the console.
func (n *Node) ConsoleLog(ctx context.Context, inst Instance) ([]byte, error) {
	return n.cfg.Runtime.ConsoleLog(ctx, inst.HostName())
}

// ClearConsoleLog empties the console log.
func (n *Node) ClearConsoleLog(ctx context.Context, inst Instance) error {
	return n.cfg.Runtime.ClearConsoleLog(ctx, inst.HostName())
}

// Files serves SFTP over the instance's files, running or not. Closing the
// connection releases what it holds.
func (n *Node) Files(ctx context.Context, inst Instance) (io.ReadWriteCloser, error) {
	status, err := n.Status(ctx, inst)
	if err != nil {
		return nil, err
	}
	if status != state.StatusStopped {
		return n.cfg.Runtime.Files(ctx, inst.HostName())
	}
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return nil, err
	}
	mounted, err := pool.MountVolume(ctx, volume, n.storageIDs(inst))
	if err != nil {
		return nil, err
	}
	release := func() {
		if err := pool.UnmountVolume(context.WithoutCancel(ctx), volume); err != nil {
			n.log.Warn("unmount after file access", "instance", inst.HostName(), "error", err)
		}
	}
	conn, err := n.cfg.Runtime.RootFiles(ctx, mounted.RootFS, n.ids(inst))
	if err != nil {
		release()
		return nil, err
	}
	return &releasing{ReadWriteCloser: conn, release: release}, nil
}

// releasing gives a mount back when the connection over it closes.
type releasing struct {
	io.ReadWriteCloser
	release func()
}

func (r *releasing) Close() error {
	err := r.ReadWriteCloser.Close()
	if r.release != nil {
		r.release()
		r.release = nil
	}
	return err
}

// VolumeDir is where the instance's metadata.yaml and templates are.
func (n *Node) VolumeDir(ctx context.Context, inst Instance) (string, error) {
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return "", err
	}
	return pool.VolumeDir(volume)
}

// volumeOf is for callers that work on the storage of an instance or of one of
// its snapshots.
func (n *Node) volumeOf(ctx context.Context, inst Instance, snapshot string) (*storage.Pool, storage.Volume, error) {
	pool, volume, err := n.volume(ctx, inst)
	if snapshot != "" {
		volume = volume.At(snapshot)
	}
	return pool, volume, err
}
