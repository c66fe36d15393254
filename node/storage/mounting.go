package storage

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"muster/node/storage/mount"
	"muster/state"
)

// A mount point is a directory "rootfs" in a slot: a directory that only the
// root of the container can cross, so that no user of the host reaches set-uid
// files through it. The slot also tells, for the next daemon, what is mounted.
const slotFile = "mount.json"

// slotNote is what a slot says about its mount.
type slotNote struct {
	Volume Volume `json:"volume"`
	IDs    *IDMap `json:"ids"`
}

// slot is where the volume is mounted with this id map. An instance's volume is
// mounted at one place; a custom volume has one for each map.
func (p *Pool) slot(vol Volume, ids *IDMap) string {
	if vol.Type == state.VolumeContainer && vol.Snapshot == "" {
		return p.in(dirMounts, dirInstance, vol.Name)
	}
	if vol.Type == state.VolumeContainer {
		ids = nil
	}
	// Neither a volume's name nor a snapshot's can end in a way that
	// separates one from the other, so the pair is hashed.
	what, err := json.Marshal(slotNote{Volume: vol, IDs: ids})
	if err != nil {
		panic(err) // strings and numbers always have a JSON form
	}
	sum := sha256.Sum256(what)
	return p.in(dirMounts, dirOther, hex.EncodeToString(sum[:16]))
}

// MountVolume mounts a volume for a container with the given id map, or finds
// it mounted, and counts one more user. A snapshot is mounted read-only. It is
// ErrConflict while an instance's volume is mounted with another id map; a
// custom volume may be mounted with several at once.
func (p *Pool) MountVolume(ctx context.Context, vol Volume, ids *IDMap) (Mounted, error) {
	if err := cmp.Or(p.usable(), vol.check(), ids.check()); err != nil {
		return Mounted{}, err
	}
	unlock, err := p.readAll(ctx, []Volume{vol})
	if err != nil {
		return Mounted{}, err
	}
	defer unlock()
	unlockMount, err := p.mounting.write(ctx, vol.key())
	if err != nil {
		return Mounted{}, err
	}
	defer unlockMount()
	if err := p.need(vol); err != nil {
		return Mounted{}, err
	}
	slot := p.slot(vol, ids)
	found := Mounted{RootFS: filepath.Join(slot, nameRootFS)}
	if vol.Type == state.VolumeContainer {
		found.Dir = p.content(vol)
	}
	if err := p.mountSlot(ctx, vol, slot, ids); err != nil {
		return Mounted{}, p.fault(err, "mount %s", vol)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users[slot]++
	return found, nil
}

// mountSlot makes sure that the volume is mounted in its slot with these ids.
func (p *Pool) mountSlot(ctx context.Context, vol Volume, slot string, ids *IDMap) error {
	target := filepath.Join(slot, nameRootFS)
	mounted, err := mount.At(target)
	if err != nil {
		return err
	}
	if mounted {
		note, err := readNote(slot)
		if err == nil && note.Volume == vol && note.IDs.same(ids) {
			return nil
		}
		if p.inUse(slot) {
			return state.Errorf(state.ErrConflict, "%s %s is mounted with another id map; try again when it is no longer in use", vol.what(), vol)
		}
		// A daemon before us left it, and nothing that runs needs it.
		if err := p.unmountPath(ctx, target); err != nil {
			return err
		}
	}
	if err := p.makeSlot(slot, slotNote{Volume: vol, IDs: ids}); err != nil {
		return err
	}
	err = p.drv.mount(ctx, p.content(vol), target, ids, vol.Snapshot != "")
	if err != nil {
		p.dropSlot(slot)
	}
	return err
}

func (p *Pool) makeSlot(slot string, note slotNote) error {
	if err := os.MkdirAll(filepath.Dir(slot), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(slot, 0o100); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	root := func(ranges []IDRange) int { return int(apply(translate(everyID, ranges), 0)) }
	if err := os.Chown(slot, root(note.IDs.uids()), root(note.IDs.gids())); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(slot, nameRootFS), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	data, err := json.Marshal(note)
	if err != nil {
		return err
	}
	// Only read while the mount stands, so it need not survive a power loss.
	return os.WriteFile(filepath.Join(slot, slotFile), data, 0o600)
}

func readNote(slot string) (slotNote, error) {
	var note slotNote
	data, err := os.ReadFile(filepath.Join(slot, slotFile))
	if err != nil {
		return note, err
	}
	return note, json.Unmarshal(data, &note)
}

// dropSlot removes a slot in which nothing is mounted.
func (p *Pool) dropSlot(slot string) {
	for _, path := range []string{filepath.Join(slot, nameRootFS), filepath.Join(slot, slotFile), slot} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.log.Warn("a mount point stays", "path", path, "error", err)
			return
		}
	}
}

func (p *Pool) inUse(slot string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.users[slot] > 0
}

// UnmountVolume counts one user less and unmounts the volume when none is
// left. A volume that is not mounted is no error; after a restart of the
// daemon a mount that nobody counted is taken down.
func (p *Pool) UnmountVolume(ctx context.Context, vol Volume) error {
	return p.UnmountCustom(ctx, vol, nil)
}

// UnmountCustom is UnmountVolume for a custom volume, which can be mounted with
// several id maps at once: ids is the one given to MountVolume.
func (p *Pool) UnmountCustom(ctx context.Context, vol Volume, ids *IDMap) error {
	if err := cmp.Or(p.usable(), vol.check()); err != nil {
		return err
	}
	unlock, err := p.mounting.write(ctx, vol.key())
	if err != nil {
		return err
	}
	defer unlock()
	slot := p.slot(vol, ids)
	p.mu.Lock()
	last := p.users[slot] <= 1
	if !last {
		p.users[slot]--
	}
	p.mu.Unlock()
	if !last {
		return nil
	}
	if vol.Snapshot == "" && vol.Type == state.VolumeContainer && p.drv.slowUnmount() {
		if err := p.retire(ctx, p.content(vol), slot); err != nil {
			return p.fault(err, "unmount %s", vol)
		}
	}
	if err := p.clearSlot(ctx, slot); err != nil {
		return p.fault(err, "unmount %s", vol)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.users, slot)
	return nil
}

// clearSlot unmounts what is in a slot and removes the slot.
func (p *Pool) clearSlot(ctx context.Context, slot string) error {
	if err := p.unmountPath(ctx, filepath.Join(slot, nameRootFS)); err != nil {
		return err
	}
	if exists(slot) {
		p.dropSlot(slot)
	}
	return nil
}

// slots returns the slots that exist, with what they say.
func (p *Pool) slots() (map[string]slotNote, error) {
	found := map[string]slotNote{}
	for _, folder := range []string{dirInstance, dirOther} {
		names, err := subdirs(p.in(dirMounts, folder))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			slot := p.in(dirMounts, folder, name)
			// A note that cannot be read belongs to a half-made slot.
			note, _ := readNote(slot)
			found[slot] = note
		}
	}
	return found, nil
}

// slotsOf returns the slots of one volume; snapshots count as their own.
func (p *Pool) slotsOf(vol Volume) ([]string, error) {
	if vol.Type == state.VolumeContainer {
		return []string{p.slot(vol, nil)}, nil
	}
	all, err := p.slots()
	if err != nil {
		return nil, err
	}
	var own []string
	for slot, note := range all {
		if note.Volume == vol {
			own = append(own, slot)
		}
	}
	return own, nil
}

// anyMount reports whether the volume is mounted anywhere.
func (p *Pool) anyMount(vol Volume) (bool, error) {
	slots, err := p.slotsOf(vol)
	if err != nil {
		return false, err
	}
	for _, slot := range slots {
		if mounted, err := mount.At(filepath.Join(slot, nameRootFS)); mounted || err != nil {
			return mounted, err
		}
	}
	return false, nil
}

// quiesce refuses a volume, or any of its snapshots, that somebody uses, and
// takes down mounts that nobody counts.
func (p *Pool) quiesce(ctx context.Context, vol Volume) error {
	volumes := []Volume{vol}
	if vol.Snapshot == "" {
		names, err := subdirs(filepath.Join(p.family(vol), nameSnapshots))
		if err != nil {
			return p.fault(err, "look at %s", vol)
		}
		for _, name := range names {
			volumes = append(volumes, vol.At(name))
		}
	}
	for _, v := range volumes {
		slots, err := p.slotsOf(v)
		if err != nil {
			return p.fault(err, "look at %s", v)
		}
		for _, slot := range slots {
			if p.inUse(slot) {
				return state.Errorf(state.ErrConflict, "%s %s is in use; stop what uses it first", v.what(), v)
			}
			if err := p.clearSlot(ctx, slot); err != nil {
				return p.fault(err, "unmount %s", v)
			}
		}
	}
	return nil
}

// plain reports whether the volume is a plain directory, a copy of which is a
// copy of every file.
func (p *Pool) plain(vol Volume) bool {
	return p.driverName == driverDir || p.driverName == driverOverlay && !p.stacks(vol)
}

// ViewVolume calls use with a read-only mount of the volume or snapshot in
// which owners are as the container sees them (root is 0): what publishing and
// exporting read. A volume in use is seen as a snapshot taken now.
func (p *Pool) ViewVolume(ctx context.Context, vol Volume, use func(Mounted) error) error {
	if err := cmp.Or(p.usable(), vol.check()); err != nil {
		return err
	}
	unlock, err := p.readAll(ctx, []Volume{vol})
	if err != nil {
		return err
	}
	defer unlock()
	return p.viewLocked(ctx, vol, false, use)
}

// viewLocked is ViewVolume for a caller that holds the volume for reading.
// inPlace shows the volume itself, which may change meanwhile, where the driver
// would have to copy every file to show one moment.
func (p *Pool) viewLocked(ctx context.Context, vol Volume, inPlace bool, use func(Mounted) error) error {
	if err := p.need(vol); err != nil {
		return err
	}
	content := p.content(vol)
	stage, err := p.staged()
	if err != nil {
		return p.fault(err, "view %s", vol)
	}
	defer p.tidy(ctx, stage)
	mounted, err := p.anyMount(vol)
	if err != nil {
		return p.fault(err, "view %s", vol)
	}
	if vol.Snapshot == "" && (mounted || p.drv.instant()) && (!inPlace || !p.plain(vol)) {
		content = filepath.Join(stage, nameLive)
		if err := p.deriveVolume(ctx, vol, content); err != nil {
			return p.fault(err, "view %s", vol)
		}
	}
	// The name of the stage is random, so it makes a slot of its own.
	slot := p.in(dirMounts, dirOther, filepath.Base(stage))
	if err := p.makeSlot(slot, slotNote{}); err != nil {
		return p.fault(err, "view %s", vol)
	}
	// The files must be let go of even if ctx has ended.
	clean := context.WithoutCancel(ctx)
	defer func() {
		if err := p.clearSlot(clean, slot); err != nil {
			p.log.Warn("a mount stays until the next start", "path", slot, "error", err)
		}
	}()
	target := filepath.Join(slot, nameRootFS)
	if err := p.drv.mount(ctx, content, target, nil, true); err != nil {
		return p.fault(err, "view %s", vol)
	}
	view := Mounted{RootFS: target}
	if vol.Type == state.VolumeContainer {
		view.Dir = content
	}
	return use(view)
}
