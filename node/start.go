package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"muster/node/runtime"
	"muster/state"
)

// Start starts the instance and returns the volatile keys to record; an empty
// value removes a key. After an error nothing of it is left on the host but its
// logs.
func (n *Node) Start(ctx context.Context, inst Instance) (state.Config, error) {
	volatile := n.hwaddrs(inst)
	inst = inst.with(volatile)
	pool, volume, err := n.volume(ctx, inst)
	if err != nil {
		return nil, err
	}
	if err := n.applyRootSize(ctx, inst, pool, volume); err != nil {
		return nil, err
	}
	if isTrue(inst.Config["security.nesting"]) {
		// Without it all works but overlays inside, so the start goes on; see Warnings.
		if err := pool.MakePlain(ctx, volume); err != nil {
			n.log.Warn("an instance with security.nesting starts on an overlay, so none can be mounted inside", "instance", inst.HostName(), "error", err)
		}
	}
	mounted, err := pool.MountVolume(ctx, volume, n.storageIDs(inst))
	if err != nil {
		return nil, fmt.Errorf("mount the root file system: %w", err)
	}
	undo := func() {
		// The caller may have given up; the host must be clean all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		n.released(ctx, inst)
	}
	if err := n.applyTemplates(ctx, inst, mounted); err != nil {
		undo()
		return nil, err
	}
	if inst.Config[applyTemplate] != "" {
		volatile[applyTemplate] = ""
	}
	spec, more, err := n.spec(ctx, inst, mounted.RootFS)
	if err != nil {
		undo()
		return nil, err
	}
	maps.Copy(volatile, more)
	if err := n.KeepAddresses(ctx, inst.with(volatile)); err != nil {
		undo()
		return nil, err
	}
	if _, err := n.cfg.Runtime.Start(ctx, spec); err != nil {
		undo()
		return nil, err
	}
	volatile["volatile.last_state.power"] = "RUNNING"
	idmap := encodeIDMap(spec.IDMap)
	volatile["volatile.last_state.idmap"] = idmap
	volatile["volatile.idmap.current"] = idmap
	return volatile, nil
}

// encodeIDMap writes the map as clients know it from volatile.last_state.idmap.
func encodeIDMap(ids *runtime.IDMap) string {
	type entry struct {
		Isuid    bool
		Isgid    bool
		Hostid   uint32
		Nsid     uint32
		Maprange uint32
	}
	entries := []entry{}
	if ids != nil {
		entries = []entry{
			{Isuid: true, Hostid: ids.Host, Maprange: ids.Size},
			{Isgid: true, Hostid: ids.Host, Maprange: ids.Size},
		}
	}
	encoded, err := json.Marshal(entries)
	if err != nil {
		panic(err) // numbers and booleans always encode
	}
	return string(encoded)
}

// Stop ends the instance and returns the volatile keys to record.
func (n *Node) Stop(ctx context.Context, inst Instance, how runtime.Stop) (state.Config, error) {
	err := n.cfg.Runtime.Stop(ctx, inst.HostName(), how)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	return n.Ended(ctx, inst), nil
}

// Ended cleans up after an instance that ended by itself and returns the
// volatile keys to record.
func (n *Node) Ended(ctx context.Context, inst Instance) state.Config {
	ctx = context.WithoutCancel(ctx)
	n.released(ctx, inst)
	volatile := state.Config{"volatile.last_state.power": "STOPPED"}
	for _, name := range deviceNames(inst.Devices) {
		if inst.Devices[name]["type"] == "nic" && inst.Devices[name]["host_name"] == "" {
			volatile["volatile."+name+".host_name"] = ""
		}
	}
	return volatile
}

// released gives back what a start took on the host.
func (n *Node) released(ctx context.Context, inst Instance) {
	id := inst.HostName()
	if err := n.cfg.Runtime.Cleanup(ctx, id); err != nil && !errors.Is(err, state.ErrNotFound) {
		n.log.Warn("clean up after container", "instance", id, "error", err)
	}
	if err := n.dropDisks(ctx, inst); err != nil {
		n.log.Warn("unmount the disks of a container", "instance", id, "error", err)
	}
	pool, volume, err := n.volume(ctx, inst)
	if err == nil {
		err = pool.UnmountVolume(ctx, volume)
	}
	if err != nil {
		n.log.Warn("unmount root file system", "instance", id, "error", err)
	}
}

// StartAgain starts an instance of which Stop returned ended, and returns the volatile
// keys of both. A restart within the same monitor is left to what is inside; from
// outside everything is made anew, so that changed configuration takes effect.
func (n *Node) StartAgain(ctx context.Context, inst Instance, ended state.Config) (state.Config, error) {
	started, err := n.Start(ctx, inst.with(ended))
	if err != nil {
		return nil, fmt.Errorf("start again: %w", err)
	}
	volatile := maps.Clone(ended)
	maps.Copy(volatile, started)
	return volatile, nil
}

// Freeze stops every process of the instance until Unfreeze.
func (n *Node) Freeze(ctx context.Context, inst Instance) error {
	return n.cfg.Runtime.Freeze(ctx, inst.HostName())
}

// Unfreeze lets a frozen instance go on.
func (n *Node) Unfreeze(ctx context.Context, inst Instance) error {
	return n.cfg.Runtime.Unfreeze(ctx, inst.HostName())
}

// Status tells how the instance really is on this host.
func (n *Node) Status(ctx context.Context, inst Instance) (state.Status, error) {
	info, err := n.cfg.Runtime.Info(ctx, inst.HostName())
	if errors.Is(err, state.ErrNotFound) {
		return state.StatusStopped, nil
	}
	if err != nil {
		return state.StatusError, err
	}
	return info.Status, nil
}
