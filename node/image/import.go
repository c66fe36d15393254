package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"muster/state"
)

// Import takes an image in: it checks and stores what spec.Next yields and says
// what it is. The file is on disk and whole when it returns. Importing what is
// stored already is no error and mends a damaged file.
//
// Whatever goes wrong, nothing is kept. A broken, truncated or unacceptable
// upload and a wrong fingerprint are state.ErrInvalid, and the message names
// the entry at fault; a full disk is state.ErrConflict.
func (s *Store) Import(ctx context.Context, spec ImportSpec) (Info, error) {
	want := strings.ToLower(spec.Fingerprint)
	if want != "" && !validFingerprint(want) {
		return Info{}, state.Errorf(state.ErrInvalid, "fingerprint %s: want the 64 hex digits of a SHA-256", shown(spec.Fingerprint))
	}
	st, err := s.newStage()
	if err != nil {
		return Info{}, err
	}
	defer st.discard()
	im := &importing{store: s, stage: st, progress: spec.Progress, files: map[Role]*os.File{}, hash: sha256.New()}
	defer im.close()
	if err := im.receiveAll(ctx, spec.Next); err != nil {
		return Info{}, interruptedBy(ctx, err)
	}
	fingerprint, err := im.fingerprint(ctx)
	if err != nil {
		return Info{}, interruptedBy(ctx, err)
	}
	if want != "" && want != fingerprint {
		return Info{}, state.Errorf(state.ErrInvalid, "the image hashes to %s, not to %s as announced: the upload was damaged, or is another image", fingerprint, want)
	}
	split := im.files[RoleMetadata] != nil
	if err := st.commit(fingerprint, split); err != nil {
		return Info{}, err
	}
	info := im.manifest.metadata.info()
	info.Fingerprint, info.Size, info.Split = fingerprint, im.received, split
	return info, nil
}

// importing is one import under way.
type importing struct {
	store    *Store
	stage    *stage
	progress func(int64)

	files    map[Role]*os.File
	order    []Role
	hash     hash.Hash // over the parts in the order they came
	received int64
	manifest manifest
}

func (im *importing) close() {
	for _, f := range im.files {
		_ = f.Close()
	}
}

// receiveAll takes in all parts and checks that they make an image.
func (im *importing) receiveAll(ctx context.Context, next func() (Part, error)) error {
	for {
		part, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return brokenOff(im.received, err)
		}
		if err := im.accept(part.Role); err != nil {
			return err
		}
		if err := im.receive(ctx, part); err != nil {
			return err
		}
	}
	switch {
	case len(im.order) == 0:
		return state.Errorf(state.ErrInvalid, "the upload holds no image file")
	case im.files[RoleUnified] != nil:
		return im.manifest.complete(RoleUnified)
	case im.files[RoleMetadata] == nil:
		return state.Errorf(state.ErrInvalid, "the upload holds a root file system and no metadata file")
	case im.files[RoleRootFS] == nil:
		return state.Errorf(state.ErrInvalid, "the upload holds a metadata file and no root file system")
	}
	return im.manifest.complete(RoleMetadata)
}

// accept refuses a part that does not go with those before.
func (im *importing) accept(role Role) error {
	switch role {
	case RoleUnified, RoleMetadata, RoleRootFS:
	default:
		return state.Errorf(state.ErrInvalid, "unknown image part %s: want metadata and rootfs, or one unified file", shown(string(role)))
	}
	if im.files[role] != nil {
		return state.Errorf(state.ErrInvalid, "the upload holds %s twice", role.file())
	}
	if len(im.order) > 0 && (role == RoleUnified || im.files[RoleUnified] != nil) {
		return state.Errorf(state.ErrInvalid, "the upload holds a unified image file and another part")
	}
	return nil
}

// receive stores one part. A tarball is checked while it arrives: the check
// reads the staged file right behind the writer, so it costs no time of a slow
// upload and a bad entry ends it early.
func (im *importing) receive(ctx context.Context, part Part) error {
	file, err := im.stage.create(part.Role)
	if err != nil {
		return err
	}
	im.files[part.Role] = file
	im.order = append(im.order, part.Role)

	head := make([]byte, sniffed)
	n, err := io.ReadFull(part.Body, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return brokenOff(im.received, err)
	}
	if head = head[:n]; n == 0 {
		return state.Errorf(state.ErrInvalid, "%s is empty", part.Role.file())
	}
	f := sniff(head)
	if f.container == disk || f.container == squashfs && part.Role != RoleRootFS {
		return part.Role.refuse(f)
	}
	body := io.MultiReader(strings.NewReader(string(head)), part.Body)
	if f.container == squashfs {
		if err := im.copy(ctx, file, body, nil); err != nil {
			return err
		}
		im.manifest.rootFS = true
		_, err := checkSquashfs(ctx, file, im.store.limits)
		return err
	}

	tail := newTail(file)
	group, checking := errgroup.WithContext(ctx)
	group.Go(func() error {
		return contents{role: part.Role, limits: im.store.limits, visit: im.manifest.note, stop: tail.stop}.read(checking, tail)
	})
	// A failed check ends the copy, which then returns the check's error (the
	// cause of its context). A failed copy ends the check with an error that
	// explains less.
	copyErr := im.copy(checking, file, body, tail)
	tail.end(copyErr)
	checkErr := group.Wait()
	return cmp.Or(copyErr, checkErr)
}

// copy writes body to file, to disk, and hashes it.
func (im *importing) copy(ctx context.Context, file *os.File, body io.Reader, tail *tail) error {
	room := im.store.newRoom(file, "store the image")
	if err := room.need(0); err != nil {
		return err
	}
	chunk := make([]byte, chunkSize)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, readErr := body.Read(chunk)
		if n > 0 {
			if err := room.take(int64(n)); err != nil {
				return err
			}
			if _, err := file.Write(chunk[:n]); err != nil {
				return noRoom(fmt.Errorf("store the image: %w", err))
			}
			im.hash.Write(chunk[:n])
			im.received += int64(n)
			if tail != nil {
				tail.grow(int64(n))
			}
			if im.progress != nil {
				im.progress(im.received)
			}
		}
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			return brokenOff(im.received, readErr)
		}
	}
	if tail != nil {
		tail.end(nil) // the check need not wait for the disk
	}
	if err := file.Sync(); err != nil {
		return noRoom(fmt.Errorf("store the image: %w", err))
	}
	return nil
}

func brokenOff(received int64, err error) error {
	if state.Kind(err) != nil {
		return err
	}
	return state.Errorf(state.ErrInvalid, "the upload broke off after %d bytes: %w", received, err)
}

// fingerprint returns the hash of the image: of metadata and root file system
// in this order, whichever came first.
func (im *importing) fingerprint(ctx context.Context) (string, error) {
	if im.order[0] == RoleRootFS {
		im.hash.Reset()
		for _, role := range []Role{RoleMetadata, RoleRootFS} {
			if _, err := im.files[role].Seek(0, io.SeekStart); err != nil {
				return "", err
			}
			if _, err := io.CopyBuffer(im.hash, &cancellable{ctx, im.files[role]}, make([]byte, chunkSize)); err != nil {
				return "", fmt.Errorf("hash the image: %w", err)
			}
		}
	}
	return hex.EncodeToString(im.hash.Sum(nil)), nil
}
