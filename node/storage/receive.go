package storage

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"muster/node/storage/stream"
	"muster/state"
)

// A volume that comes from another member is made in incoming, by as many
// streams as it takes: Inventory tells the sender what is there, Receive takes
// a stream, and after one that was whole Commit makes it a volume. Abandon
// gives it up. Each waits for the others of the same volume.

// Inventory writes what there is of a volume that is to come: nothing at first,
// or the files of the image with the fingerprint base, if the pool has it, so
// that only what differs from the image is sent. base may be empty. It is
// ErrExists when the volume is there already.
func (p *Pool) Inventory(ctx context.Context, vol Volume, base string, w io.Writer) error {
	unlock, err := p.expecting(ctx, vol)
	if err != nil {
		return err
	}
	defer unlock()
	if checkFingerprint(base) != nil {
		base = "" // a hint; without it more is sent
	}
	in, err := p.openIncoming(vol)
	if err != nil {
		return p.fault(err, "receive %s", vol)
	}
	inv, err := in.inventory(ctx, base)
	if err != nil {
		return p.fault(err, "receive %s", vol)
	}
	return inv.Write(w)
}

// Receive reads what Send wrote. After an error what came is kept, for the next
// Inventory to tell: a cut stream costs what was on its way. It is ErrInvalid
// for a stream that no honest member sends, ErrUnavailable for a damaged one.
func (p *Pool) Receive(ctx context.Context, vol Volume, r io.Reader) (stream.Stats, error) {
	unlock, err := p.expecting(ctx, vol)
	if err != nil {
		return stream.Stats{}, err
	}
	defer unlock()
	in, err := p.openIncoming(vol)
	if err != nil {
		return stream.Stats{}, p.fault(err, "receive %s", vol)
	}
	stats, err := stream.Receive(ctx, r, in)
	return stats, p.fault(err, "receive %s", vol)
}

// expecting locks a volume that is to come.
func (p *Pool) expecting(ctx context.Context, vol Volume) (unlock func(), err error) {
	if unlock, err = p.lockIncoming(ctx, vol); err != nil {
		return nil, err
	}
	if exists(p.family(vol)) {
		unlock()
		return nil, state.Errorf(state.ErrExists, "%s %s exists on storage pool %s", vol.what(), vol, p.name)
	}
	return unlock, nil
}

func (p *Pool) lockIncoming(ctx context.Context, vol Volume) (unlock func(), err error) {
	if err := cmp.Or(p.usable(), vol.checkLive()); err != nil {
		return nil, err
	}
	return p.contents.write(ctx, dirIncoming+"/"+vol.key())
}

// Commit makes what was received a volume with its snapshots, in one step. It
// is ErrConflict unless the last stream was whole, ErrNotFound when there is
// nothing, and no error when it was done before.
func (p *Pool) Commit(ctx context.Context, vol Volume) error {
	unlock, err := p.lockIncoming(ctx, vol)
	if err != nil {
		return err
	}
	defer unlock()
	in, err := p.openIncoming(vol)
	if err != nil {
		return p.fault(err, "receive %s", vol)
	}
	if !exists(in.family()) && exists(p.family(vol)) {
		// It was done before, and maybe cut off right after.
		if err := syncDir(filepath.Dir(p.family(vol))); err != nil {
			return p.fault(err, "receive %s", vol)
		}
		p.tidy(ctx, in.dir)
		return nil
	}
	if !exists(in.dir) {
		return state.Errorf(state.ErrNotFound, "nothing of %s %s has arrived on storage pool %s", vol.what(), vol, p.name)
	}
	if !in.notes.Whole {
		return state.Errorf(state.ErrConflict, "%s %s has not arrived whole on storage pool %s", vol.what(), vol, p.name)
	}
	err = commit(in.family(), p.family(vol))
	if errors.Is(err, fs.ErrExist) {
		return state.Errorf(state.ErrExists, "%s %s exists on storage pool %s", vol.what(), vol, p.name)
	}
	// The source is removed next: the volume must outlive a power loss.
	if err == nil {
		err = syncDir(filepath.Dir(p.family(vol)))
	}
	if err != nil {
		return p.fault(err, "receive %s", vol)
	}
	p.tidy(ctx, in.dir)
	return nil
}

// Abandon removes what was received of a volume that did not become one.
// Nothing is no error.
func (p *Pool) Abandon(ctx context.Context, vol Volume) error {
	unlock, err := p.lockIncoming(ctx, vol)
	if err != nil {
		return err
	}
	defer unlock()
	trash, err := p.bin(p.incomingDir(vol))
	if err != nil {
		return p.fault(err, "abandon %s", vol)
	}
	return p.fault(p.discard(context.WithoutCancel(ctx), trash), "abandon %s", vol)
}

// Arriving reports whether something of the volume was received that is no
// volume yet.
func (p *Pool) Arriving(vol Volume) bool {
	if p.usable() != nil || vol.checkLive() != nil {
		return false
	}
	_, err := os.Lstat(p.incomingDir(vol))
	return err == nil
}
