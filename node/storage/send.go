package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/storage/mount"
	"muster/node/storage/stream"
	"muster/state"
)

// Send writes a volume with the named snapshots, the oldest first, to w for
// Receive of a pool on another member, which may be of another driver. The
// inventory is the receiver's: what it has already is not sent again. A volume
// may be sent while it is in use, and again once it is not: the second stream
// then has only what has changed since.
//
// Errors of w are among those returned (errors.Is). A snapshot that is not there
// is state.ErrNotFound, an inventory that no honest member sends ErrInvalid.
func (p *Pool) Send(ctx context.Context, vol Volume, snapshots []string, inventory io.Reader, w io.Writer) (stream.Stats, error) {
	if err := cmp.Or(p.usable(), vol.checkLive()); err != nil {
		return stream.Stats{}, err
	}
	var sources []Volume
	for _, name := range snapshots {
		if err := vol.At(name).checkSnapshot(); err != nil {
			return stream.Stats{}, err
		}
		sources = append(sources, vol.At(name))
	}
	sources = append(sources, vol)
	inv, err := stream.ReadInventory(inventory)
	if err != nil {
		return stream.Stats{}, fmt.Errorf("read what the other member has of %s: %w", vol, err)
	}
	unlock, err := p.readAll(ctx, sources)
	if err != nil {
		return stream.Stats{}, err
	}
	defer unlock()
	for _, source := range sources {
		if err := p.need(source); err != nil {
			return stream.Stats{}, err
		}
	}
	now := time.Now()
	if err := p.settleWrites(vol); err != nil {
		return stream.Stats{}, p.fault(err, "send %s", vol)
	}
	if w, err = p.limited(ctx, w); err != nil {
		return stream.Stats{}, err
	}
	s := stream.NewSender(ctx, inv, w, now)
	stats, err := p.send(ctx, s, sources)
	return stats, p.fault(err, "send %s", vol)
}

// settleWrites writes out what programs have in memory of a volume that is read
// while they run. A page that is written to through a mapping tells its file's
// time once, and again only after it was written out: without this, a change
// after our reading could look like none.
func (p *Pool) settleWrites(vol Volume) error {
	mounted, err := p.anyMount(vol)
	if err != nil || !mounted || p.driverName == driverBtrfs {
		return err // a btrfs snapshot does so itself
	}
	return syncFS(p.content(vol))
}

func (p *Pool) send(ctx context.Context, s *stream.Sender, sources []Volume) (stream.Stats, error) {
	var names []string
	for _, source := range sources {
		names = append(names, source.Snapshot)
	}
	if err := s.Begin(names); err != nil {
		return stream.Stats{}, err
	}
	for _, source := range sources {
		token, err := p.token(source)
		if err != nil {
			return stream.Stats{}, err
		}
		if s.Has(source.Snapshot, token) {
			continue
		}
		if err := p.sendContent(ctx, s, source, token); err != nil {
			return stream.Stats{}, err
		}
	}
	return s.End()
}

func (p *Pool) sendContent(ctx context.Context, s *stream.Sender, source Volume, token string) error {
	if source.Snapshot == "" && p.driverName == driverOverlay {
		m, ids, done, err := p.borrow(ctx, source)
		if err != nil {
			return err
		}
		if done != nil {
			err := s.Content(source.Snapshot, token, stream.Source{RootFS: m.RootFS, Dir: m.Dir, Live: true, IDs: ids.inside()})
			return errors.Join(err, done())
		}
	}
	return p.viewLocked(ctx, source, true, func(m Mounted) error {
		if m.Dir != "" {
			m.Dir = p.content(source) // a view has copies, with other times
		}
		return s.Content(source.Snapshot, token, stream.Source{RootFS: m.RootFS, Dir: m.Dir, Live: source.Snapshot == ""})
	})
}

// borrow returns the mount of an instance that runs, to read what the container
// sees while it runs, and what its ids are; done is nil when it has none. An
// overlay can be mounted only once, and a copy of all that its container wrote
// would take its space and have other change times, so that the stream after
// the container stopped would have to read everything again.
func (p *Pool) borrow(ctx context.Context, vol Volume) (m Mounted, ids *IDMap, done func() error, err error) {
	if vol.Type != state.VolumeContainer {
		return Mounted{}, nil, nil, nil
	}
	unlock, err := p.mounting.write(ctx, vol.key())
	if err != nil {
		return Mounted{}, nil, nil, err
	}
	defer unlock()
	slot := p.slot(vol, nil)
	target := filepath.Join(slot, nameRootFS)
	mounted, err := mount.At(target)
	if err != nil || !mounted || !p.inUse(slot) {
		return Mounted{}, nil, nil, err
	}
	note, err := readNote(slot)
	if err != nil {
		return Mounted{}, nil, nil, err
	}
	// One more user: the container may stop meanwhile.
	p.mu.Lock()
	p.users[slot]++
	p.mu.Unlock()
	return Mounted{Dir: p.content(vol), RootFS: target}, note.IDs, func() error {
		return p.UnmountVolume(context.WithoutCancel(ctx), vol)
	}, nil
}

// token tells a snapshot from another one of the same name: its directory
// changed last when it took its place. The volume itself goes on changing and
// has one for ever.
func (p *Pool) token(vol Volume) (string, error) {
	if vol.Snapshot == "" {
		return "live", nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(p.content(vol), &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d.%09d/%d", st.Ctim.Sec, st.Ctim.Nsec, st.Ino), nil
}
