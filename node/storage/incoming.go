package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"muster/node/storage/stream"
	"muster/state"
)

// incoming is what was received of a volume. In its directory are
//
//	notes.json             the contents, in order of arrival
//	family/                what becomes the volume with its snapshots
//	files-<content>        the log of a content's files
//	new                    a content that is being made
//
// A content is in the notes only once it is there with its log.
type incoming struct {
	pool  *Pool
	vol   Volume
	dir   string
	notes notes
	slot  string // where the content at hand is mounted
	// expected are the contents that the stream at hand has announced.
	expected []string
}

// notes are what outlives the daemon. They are on disk before what they allow
// is done.
type notes struct {
	// Boot is the boot of the machine in which the logs were written: logs of
	// contents that are not complete are worth nothing in another.
	Boot     string    `json:"boot"`
	Contents []arrived `json:"contents"`
	// Image is the fingerprint of the image that was offered.
	Image string `json:"image,omitempty"`
	// Whole says that the last stream was.
	Whole bool `json:"whole"`
}

type arrived struct {
	Name     string `json:"name"`
	Token    string `json:"token"`
	Complete bool   `json:"complete"` // and on disk
}

func (p *Pool) incomingDir(vol Volume) string {
	return p.in(dirIncoming, string(vol.Type)+"-"+vol.Name)
}

// openIncoming reads what there is; that may be nothing.
func (p *Pool) openIncoming(vol Volume) (*incoming, error) {
	in := &incoming{pool: p, vol: vol, dir: p.incomingDir(vol)}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	now := strings.TrimSpace(string(boot))
	data, err := os.ReadFile(in.at(notesFile))
	if err == nil {
		err = json.Unmarshal(data, &in.notes)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read what arrived of %s: %w", vol, err)
	}
	if in.notes.Boot != now {
		// The machine went down: what the logs say of unfinished contents may
		// not have reached the disk. Their files are looked at instead.
		for _, c := range in.notes.Contents {
			if c.Complete {
				continue
			}
			if err := os.Remove(in.log(c.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		in.notes.Boot, in.notes.Image = now, ""
		if exists(in.dir) {
			if err := in.save(); err != nil {
				return nil, err
			}
		}
	}
	return in, nil
}

const notesFile = "notes.json"

func (in *incoming) at(name string) string { return filepath.Join(in.dir, name) }

func (in *incoming) family() string { return in.at("family") }

func (in *incoming) content(name string) string {
	if name == stream.Live {
		return filepath.Join(in.family(), nameLive)
	}
	return filepath.Join(in.family(), nameSnapshots, name)
}

func (in *incoming) log(name string) string {
	if name == stream.Live {
		return in.at("files-" + nameLive)
	}
	if len(name) > maxName {
		sum := sha256.Sum256([]byte(name))
		name = hex.EncodeToString(sum[:])
	}
	return in.at("files-snapshot-" + name)
}

func (in *incoming) imageLog() string { return in.at("files-image") }

func (in *incoming) find(name string) *arrived {
	for i := range in.notes.Contents {
		if in.notes.Contents[i].Name == name {
			return &in.notes.Contents[i]
		}
	}
	return nil
}

// furnish makes the directories.
func (in *incoming) furnish() error {
	for _, dir := range []string{in.dir, in.family(), filepath.Join(in.family(), nameSnapshots)} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// save writes the notes to disk.
func (in *incoming) save() error {
	data, err := json.Marshal(in.notes)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(in.at(notesFile+".new"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(in.at(notesFile+".new"), in.at(notesFile)); err != nil {
		return err
	}
	return syncDir(in.dir)
}

// syncDir makes the names in a directory outlive a power loss.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// inventory tells what is there.
func (in *incoming) inventory(ctx context.Context, base string) (*stream.Inventory, error) {
	inv := &stream.Inventory{}
	last := "" // the last whole snapshot, which the next is made from
	for _, c := range in.notes.Contents {
		if c.Complete && c.Name != stream.Live {
			last = c.Name
		}
	}
	for _, c := range in.notes.Contents {
		have := stream.Have{Name: c.Name, Token: c.Token, Complete: c.Complete}
		if !c.Complete || c.Name == stream.Live || c.Name == last {
			var err error
			if have.Files, err = in.files(ctx, c.Name); err != nil {
				return nil, err
			}
		}
		inv.Contents = append(inv.Contents, have)
	}
	if len(inv.Contents) > 0 || base == "" || in.vol.Type != state.VolumeContainer {
		return inv, nil
	}
	var err error
	inv.Image, err = in.image(ctx, base)
	return inv, err
}

// files returns what there is of a content, with the sums of what came in part.
func (in *incoming) files(ctx context.Context, name string) (files *stream.Manifest, err error) {
	// Most often the log says it all, and the content need not be mounted:
	// taking an overlay down that can be written to syncs the whole disk.
	if log, files, err := stream.OpenLog(in.log(name)); err == nil {
		if err := log.Close(); err != nil || !files.Partial() {
			return files, err
		}
	}
	target, err := in.enter(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, target.Log.Close(), in.leave(ctx)) }()
	return target.Files, stream.SumPartial(ctx, target)
}

// image returns the files of an image of the pool, nil when it has not got it.
func (in *incoming) image(ctx context.Context, fingerprint string) (*stream.Manifest, error) {
	p := in.pool
	unlock, err := p.contents.read(ctx, fingerprint)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if !p.ImagePresent(fingerprint) {
		return nil, nil
	}
	if in.notes.Image == fingerprint {
		log, files, err := stream.OpenLog(in.imageLog())
		if err == nil {
			return files, log.Close()
		}
	}
	path := p.image(fingerprint)
	files, err := stream.Scan(ctx, stream.Source{RootFS: filepath.Join(path, nameRootFS), Dir: path}, isOverlayAttr)
	if err != nil {
		return nil, err
	}
	if err := in.furnish(); err != nil {
		return nil, err
	}
	log, err := stream.CreateLog(in.imageLog(), files)
	if err != nil {
		return nil, err
	}
	in.notes.Image = fingerprint
	return files, errors.Join(log.Close(), in.save())
}

// Expect implements stream.Place.
func (in *incoming) Expect(ctx context.Context, names []string) error {
	for _, name := range names {
		if name == stream.Live {
			continue
		}
		if err := in.vol.At(name).checkSnapshot(); err != nil {
			return err
		}
	}
	in.expected = names
	if err := in.furnish(); err != nil {
		return err
	}
	var surplus []string
	in.notes.Contents = slices.DeleteFunc(in.notes.Contents, func(c arrived) bool {
		gone := !slices.Contains(names, c.Name)
		if gone {
			surplus = append(surplus, c.Name)
		}
		return gone
	})
	in.notes.Whole = false
	if err := in.save(); err != nil {
		return err
	}
	for _, name := range surplus {
		if err := in.drop(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// drop removes a content that the notes do not have.
func (in *incoming) drop(ctx context.Context, name string) error {
	for _, path := range []string{in.content(name), in.at("new")} {
		trash, err := in.pool.bin(path)
		if err != nil {
			return err
		}
		if err := in.pool.discard(ctx, trash); err != nil {
			return err
		}
	}
	if err := os.Remove(in.log(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Begin implements stream.Place.
func (in *incoming) Begin(ctx context.Context, c stream.Content) (*stream.Target, error) {
	if c.Start == stream.FromItself {
		have := in.find(c.Name)
		if have == nil {
			return nil, state.Errorf(state.ErrInvalid, "the transfer goes on with %q, of which nothing is there", c.Name)
		}
		have.Complete, have.Token = false, c.Token
	} else if err := in.make(ctx, c); err != nil {
		return nil, err
	}
	if err := in.save(); err != nil {
		return nil, err
	}
	return in.enter(ctx, c.Name)
}

// make makes a new content with its log, as its Start says.
func (in *incoming) make(ctx context.Context, c stream.Content) error {
	in.notes.Contents = slices.DeleteFunc(in.notes.Contents, func(h arrived) bool { return h.Name == c.Name })
	if err := in.save(); err != nil {
		return err
	}
	if err := in.drop(ctx, c.Name); err != nil {
		return err
	}
	files, err := in.build(ctx, c, in.at("new"))
	if err != nil {
		return err
	}
	log, err := stream.CreateLog(in.log(c.Name), files)
	if err != nil {
		return err
	}
	if err := log.Close(); err != nil {
		return err
	}
	if err := commit(in.at("new"), in.content(c.Name)); err != nil {
		return err
	}
	in.notes.Contents = append(in.notes.Contents, arrived{Name: c.Name, Token: c.Token})
	return nil
}

// build makes the content that c begins with at path.
func (in *incoming) build(ctx context.Context, c stream.Content, path string) (*stream.Manifest, error) {
	p := in.pool
	switch c.Start {
	case stream.FromNothing:
		if err := p.drv.create(ctx, path); err != nil {
			return nil, err
		}
		return stream.NewManifest(), p.drv.adopt(ctx, path, in.vol.Type)
	case stream.FromImage:
		unlock, err := p.contents.read(ctx, in.notes.Image)
		if err != nil {
			return nil, err
		}
		defer unlock()
		if !p.ImagePresent(in.notes.Image) {
			return nil, state.Errorf(state.ErrUnavailable, "image %.12s was removed from storage pool %s; try again", in.notes.Image, p.name)
		}
		log, files, err := stream.OpenLog(in.imageLog())
		if err != nil {
			return nil, err
		}
		return files, errors.Join(log.Close(), p.derive(ctx, p.image(in.notes.Image), false, path, in.vol.Type))
	case stream.FromContent:
		if from := in.find(c.From); from == nil || !from.Complete {
			return nil, state.Errorf(state.ErrInvalid, "the transfer begins with %q, which is not there", c.From)
		}
		log, files, err := stream.OpenLog(in.log(c.From))
		if err != nil {
			return nil, err
		}
		files.Inherit()
		return files, errors.Join(log.Close(), p.derive(ctx, in.content(c.From), false, path, in.vol.Type))
	}
	return nil, state.Errorf(state.ErrInvalid, "the transfer begins in the unknown way %q", c.Start)
}

// enter mounts a content for writing, with owners as the container sees them,
// and reads its log, made anew from the files if it is lost.
func (in *incoming) enter(ctx context.Context, name string) (target *stream.Target, err error) {
	p := in.pool
	slot := p.in(dirMounts, dirOther, filepath.Base(in.dir))
	if err := p.makeSlot(slot, slotNote{}); err != nil {
		return nil, err
	}
	in.slot = slot
	defer func() {
		if err != nil {
			err = errors.Join(err, in.leave(ctx))
		}
	}()
	content := in.content(name)
	target = &stream.Target{RootFS: filepath.Join(slot, nameRootFS)}
	if in.vol.Type == state.VolumeContainer {
		target.Dir = content
	}
	if err := p.drv.mount(ctx, content, target.RootFS, nil, false); err != nil {
		return nil, err
	}
	target.Log, target.Files, err = stream.OpenLog(in.log(name))
	if err == nil {
		return target, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		p.log.Warn("looking at every file of a volume that arrived in part", "volume", in.vol.String(), "error", err)
	}
	if target.Files, err = stream.Scan(ctx, stream.Source{RootFS: target.RootFS, Dir: target.Dir}, nil); err != nil {
		return nil, err
	}
	target.Log, err = stream.CreateLog(in.log(name), target.Files)
	return target, err
}

// leave unmounts what enter mounted.
func (in *incoming) leave(ctx context.Context) error {
	return in.pool.clearSlot(context.WithoutCancel(ctx), in.slot)
}

// Leave implements stream.Place.
func (in *incoming) Leave(ctx context.Context, c stream.Content, _ *stream.Target, complete bool) error {
	if err := in.leave(ctx); err != nil || !complete {
		return err
	}
	// A content that is noted as complete is never looked at again.
	if err := syncFS(in.content(c.Name)); err != nil {
		return err
	}
	in.find(c.Name).Complete = true
	return in.save()
}

// End implements stream.Place.
func (in *incoming) End(context.Context) error {
	for _, name := range in.expected {
		if c := in.find(name); c == nil || !c.Complete {
			return state.Errorf(state.ErrInvalid, "the transfer ended without %q", in.vol.At(name))
		}
	}
	in.notes.Whole = true
	return in.save()
}
