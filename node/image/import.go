package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

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
	wanted := strings.ToLower(spec.Fingerprint)
	if wanted != "" && !validFingerprint(wanted) {
		return Info{}, state.Errorf(state.ErrInvalid, "fingerprint %s: want 64 hexadecimal digits", shown(spec.Fingerprint))
	}
	stage, err := s.newStage()
	if err != nil {
		return Info{}, err
	}
	defer stage.discard()
	upload := &upload{store: s, stage: stage, hash: sha256.New(), progress: spec.Progress, files: map[Role]*os.File{}}
	defer upload.close()
	for {
		part, err := spec.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Info{}, brokeOff(ctx, err)
		}
		if err := upload.take(ctx, part); err != nil {
			return Info{}, err
		}
	}
	if err := upload.complete(); err != nil {
		return Info{}, err
	}
	fingerprint := hex.EncodeToString(upload.hash.Sum(nil))
	if wanted != "" && wanted != fingerprint {
		return Info{}, state.Errorf(state.ErrInvalid, "the upload has the fingerprint %s and should have %s: it was damaged on its way, or is another image", short(fingerprint), short(wanted))
	}
	info, err := upload.inspect(ctx)
	if err != nil {
		return Info{}, err
	}
	info.Fingerprint = fingerprint
	for _, file := range upload.files {
		if err := file.Sync(); err != nil {
			return Info{}, noRoom(fmt.Errorf("store image %s: %w", short(fingerprint), err))
		}
	}
	return info, stage.commit(fingerprint, info.Split)
}

// upload is an image on its way in.
type upload struct {
	store    *Store
	stage    *stage
	hash     hash.Hash
	progress func(int64)
	received int64
	files    map[Role]*os.File
	order    []Role
}

func (u *upload) close() {
	for _, file := range u.files {
		_ = file.Close()
	}
}

// take stores one part while it is hashed.
func (u *upload) take(ctx context.Context, part Part) error {
	if _, twice := u.files[part.Role]; twice {
		return state.Errorf(state.ErrInvalid, "%s came twice", part.Role.file())
	}
	if len(u.order) > 0 && (part.Role != RoleRootFS || u.order[0] != RoleMetadata) {
		return state.Errorf(state.ErrInvalid, "a split image is a metadata file and then a root file system; a unified one is one file")
	}
	file, err := u.stage.create(part.Role)
	if err != nil {
		return err
	}
	u.files[part.Role] = file
	u.order = append(u.order, part.Role)
	room := u.store.newRoom(file, "import an image")
	out := io.MultiWriter(guarded{file, room}, u.hash, u)
	buffer := make([]byte, chunkSize)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		count, readErr := part.Body.Read(buffer)
		if count > 0 {
			if _, err := out.Write(buffer[:count]); err != nil {
				return err
			}
		}
		if errors.Is(readErr, io.EOF) && !errors.Is(readErr, io.ErrUnexpectedEOF) {
			return nil
		}
		if readErr != nil {
			return brokeOff(ctx, readErr)
		}
	}
}

// Write counts what was received.
func (u *upload) Write(p []byte) (int, error) {
	u.received += int64(len(p))
	if u.progress != nil {
		u.progress(u.received)
	}
	return len(p), nil
}

// brokeOff explains an error of the sender's side.
func brokeOff(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case state.Kind(err) != nil:
		return err
	}
	return state.Errorf(state.ErrInvalid, "the upload broke off: %w; send it again", err)
}

// complete checks that all parts are there.
func (u *upload) complete() error {
	switch {
	case len(u.order) == 0:
		return state.Errorf(state.ErrInvalid, "the upload is empty: send an image file")
	case u.order[0] == RoleMetadata && len(u.order) == 1:
		return state.Errorf(state.ErrInvalid, "the root file system is missing: a split image is a metadata file and a root file system")
	case u.order[0] == RoleRootFS:
		return state.Errorf(state.ErrInvalid, "the metadata file is missing: a split image is a metadata file and then a root file system")
	}
	return nil
}

// inspect reads the staged files once, to the end: nothing is stored that could
// not be unpacked.
func (u *upload) inspect(ctx context.Context) (Info, error) {
	var metadata *Metadata
	hasRoot := false
	for _, role := range u.order {
		file := u.files[role]
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return Info{}, err
		}
		if role == RoleRootFS {
			isSquashfs, err := u.inspectSquashfs(ctx, file)
			if err != nil {
				return Info{}, err
			}
			if isSquashfs {
				hasRoot = true
				continue
			}
		}
		walk := contents{role: role, limits: u.store.limits, visit: func(e entry, body io.Reader) error {
			switch e.section {
			case rootFS:
				hasRoot = true
			case metadataFile:
				data, err := io.ReadAll(io.LimitReader(body, MaxMetadata+1))
				if errors.Is(err, io.ErrUnexpectedEOF) {
					return state.Errorf(state.ErrInvalid, "%s is cut off in the middle of an entry", role.file())
				}
				if err != nil {
					return err
				}
				parsed, err := ParseMetadata(data)
				if err != nil {
					return err
				}
				metadata = &parsed
			}
			return nil
		}}
		if err := walk.read(ctx, file); err != nil {
			return Info{}, err
		}
	}
	switch {
	case metadata == nil:
		return Info{}, state.Errorf(state.ErrInvalid, "%s holds no metadata.yaml: it is no image", u.order[0].file())
	case !hasRoot:
		return Info{}, state.Errorf(state.ErrInvalid, "%s holds no root file system (rootfs/)", u.order[len(u.order)-1].file())
	}
	info := metadata.info()
	info.Split = len(u.order) == 2
	info.Size = u.received
	return info, nil
}
