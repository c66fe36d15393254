package node

import (
	"context"
	"fmt"

	"muster/node/runtime"
	"muster/node/storage"
	"muster/state"
)

// Known is what the state plane says this machine should have.
type Known struct {
	Pools     []*state.Pool
	Networks  []*state.Network
	Instances []Instance
	// Snapshots are the names of the instances' snapshots, by host name.
	Snapshots map[string][]string
	// Incoming are the instances that are still expected from another member:
	// what came of their root file systems is kept.
	Incoming []Instance
	// Images are the fingerprints whose files are recorded as being here.
	Images []string
}

// Found is what Reconcile saw.
type Found struct {
	// Running are the containers that run, by host name, strangers included.
	Running map[string]runtime.Info
	// MissingImages are recorded images whose files are gone.
	MissingImages []string
	// MissingVolumes are recorded instances whose root file system is gone.
	MissingVolumes []string
	// Problems say what could not be brought in order.
	Problems []error
}

// Reconcile brings the host in order after the daemon was started: it mounts the
// pools, makes the networks, finds the containers that run, and removes what a
// crash left of those that don't. It is called once, before anything else. One
// broken pool or network does not stop the rest: it is a problem in the result.
func (n *Node) Reconcile(ctx context.Context, known Known) (Found, error) {
	found, err := n.found(ctx)
	if err != nil {
		return found, err
	}
	problem := func(err error) {
		if err != nil {
			found.Problems = append(found.Problems, err)
		}
	}
	leftovers, err := n.cfg.Images.Reconcile(ctx, known.Images)
	problem(err)
	found.MissingImages = leftovers.Missing
	if len(leftovers.Removed) > 0 {
		n.log.Info("removed leftovers of images", "files", leftovers.Removed)
	}
	for _, pool := range known.Pools {
		problem(n.reconcilePool(ctx, *pool, known, &found))
	}
	problem(n.cfg.Networks.Reconcile(ctx, known.Networks))
	n.reconcileAddresses(ctx, known.Instances)
	for _, inst := range known.Instances {
		if _, runs := found.Running[inst.HostName()]; !runs {
			problem(n.cfg.Runtime.Cleanup(ctx, inst.HostName()))
			problem(n.dropDisks(ctx, inst))
		}
	}
	problem(n.dropDiskDir(ctx))
	return found, nil
}

// found is what runs.
func (n *Node) found(ctx context.Context) (Found, error) {
	found := Found{Running: map[string]runtime.Info{}}
	running, err := n.cfg.Runtime.List(ctx)
	if err != nil {
		return found, fmt.Errorf("list containers: %w", err)
	}
	for _, info := range running {
		found.Running[info.ID] = info
	}
	return found, nil
}

// reconcileAddresses makes the addresses that are kept here those of the instances that are
// here.
func (n *Node) reconcileAddresses(ctx context.Context, instances []Instance) {
	here := map[string]bool{}
	for _, inst := range instances {
		here[inst.HostName()] = true
	}
	owners, err := n.AddressOwners()
	if err != nil {
		n.log.Error("list the addresses of instances", "error", err)
	}
	for _, owner := range owners {
		if !here[owner] {
			n.releaseAddresses(ctx, owner)
		}
	}
	for _, inst := range instances {
		n.keepAddresses(ctx, inst)
	}
}

// reconcilePool opens a pool. Others see it when it has been brought in order, or could not
// be: what they begin in it must not look like a leftover.
func (n *Node) reconcilePool(ctx context.Context, pool state.Pool, known Known, found *Found) error {
	opened, err := storage.Open(ctx, n.storageConfig(), pool)
	if err == nil {
		err = opened.Mount(ctx)
	}
	if err != nil {
		return fmt.Errorf("open storage pool %q: %w", pool.Name, err)
	}
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.pools[pool.Name] = opened
	}()
	should := storage.Known{Volumes: map[storage.Volume][]string{}}
	for _, inst := range known.Instances {
		name, err := inst.Pool()
		if err != nil || name != pool.Name {
			continue
		}
		volume := storage.Instance(inst.HostName())
		should.Volumes[volume] = known.Snapshots[inst.HostName()]
		if _, runs := found.Running[inst.HostName()]; runs {
			should.Running = append(should.Running, volume)
		}
	}
	for _, inst := range known.Incoming {
		if name, err := inst.Pool(); err == nil && name == pool.Name {
			should.Incoming = append(should.Incoming, storage.Instance(inst.HostName()))
		}
	}
	report, err := opened.Reconcile(ctx, should)
	if err != nil {
		return fmt.Errorf("bring storage pool %q in order: %w", pool.Name, err)
	}
	for _, volume := range report.Missing {
		found.MissingVolumes = append(found.MissingVolumes, volume.String())
	}
	for _, volume := range report.Strangers {
		n.log.Warn("volume that nothing knows of", "pool", pool.Name, "volume", volume.String())
	}
	if len(report.Removed)+len(report.Unmounted) > 0 {
		n.log.Info("storage pool brought in order", "pool", pool.Name, "removed", report.Removed, "unmounted", report.Unmounted)
	}
	return nil
}

// Run watches the containers and reports what happens to them by itself, until
// ctx ends.
func (n *Node) Run(ctx context.Context, handle func(host string, event runtime.Event)) error {
	return n.cfg.Runtime.Run(ctx, func(event runtime.Event) { handle(event.ID, event) })
}
