package node

import (
	"context"
	"path/filepath"

	"muster/node/storage"
	"muster/state"
)

// storageConfig is where this machine keeps its pools.
func (n *Node) storageConfig() storage.Config {
	return storage.Config{
		Dir:   filepath.Join(n.cfg.Dir, "storage-pools"),
		Disks: filepath.Join(n.cfg.Dir, "disks"),
		Log:   n.log,
	}
}

// CreatePool makes a pool on this machine and returns the configuration to
// record. Nothing is left after an error.
func (n *Node) CreatePool(ctx context.Context, pool state.Pool) (state.Config, error) {
	opened, err := storage.Open(ctx, n.storageConfig(), pool)
	if err != nil {
		return nil, err
	}
	config, err := opened.Create(ctx)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.pools[pool.Name] = opened
	n.mu.Unlock()
	return config, nil
}

// CheckPool says why CreatePool would refuse a pool on this machine, or nil.
func (n *Node) CheckPool(ctx context.Context, pool state.Pool) error {
	opened, err := storage.Open(ctx, n.storageConfig(), pool)
	if err != nil {
		return err
	}
	return opened.Check(ctx)
}

// OpenPool mounts a pool that was not there when the daemon was started, and brings it in
// order. One that can be used all the same is no error.
func (n *Node) OpenPool(ctx context.Context, pool state.Pool, known Known) error {
	if _, err := n.Pool(ctx, pool.Name); err == nil {
		return nil
	}
	found, err := n.found(ctx)
	if err != nil {
		return err
	}
	err = n.reconcilePool(ctx, pool, known, &found)
	if _, shut := n.Pool(ctx, pool.Name); shut != nil {
		return err
	}
	if err != nil {
		n.log.Error("bring a storage pool in order", "pool", pool.Name, "error", err)
	}
	return nil
}

// UpdatePool gives a pool a changed configuration.
func (n *Node) UpdatePool(ctx context.Context, pool state.Pool) error {
	opened, err := n.Pool(ctx, pool.Name)
	if err != nil {
		return err
	}
	return opened.Update(ctx, pool.Config)
}

// DeletePool removes a pool with all that Create made. One that is gone already,
// or only half there, is no error.
func (n *Node) DeletePool(ctx context.Context, pool state.Pool) error {
	n.mu.Lock()
	opened := n.pools[pool.Name]
	n.mu.Unlock()
	if opened == nil {
		var err error
		if opened, err = storage.Open(ctx, n.storageConfig(), pool); err != nil {
			return err
		}
	}
	if err := opened.Delete(ctx); err != nil {
		return err
	}
	n.mu.Lock()
	delete(n.pools, pool.Name)
	n.mu.Unlock()
	return nil
}

// Pool returns a mounted pool of this machine.
func (n *Node) Pool(_ context.Context, name string) (*storage.Pool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if pool := n.pools[name]; pool != nil && pool.Usable() == nil {
		return pool, nil
	}
	return nil, state.Errorf(state.ErrUnavailable, "storage pool %q is not mounted on this member: see the daemon's log for why", name)
}

// ClosePools unmounts the pools that nothing uses; running containers keep
// theirs.
func (n *Node) ClosePools(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, pool := range n.pools {
		if err := pool.Unmount(ctx); err != nil {
			n.log.Debug("pool stays mounted", "pool", name, "error", err)
		}
		delete(n.pools, name)
	}
}
