package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"muster/state"
)

// stage is a directory in the store's file system in which the files of one
// image come to be.
type stage struct {
	store *Store
	name  string
	dir   string
}

func (s *Store) newStage() (*stage, error) {
	// The name is reserved under the lock, so that Reconcile never meets a
	// directory whose owner has not said so yet.
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := os.MkdirTemp(filepath.Join(s.cfg.Dir, stagingDir), "")
	if err != nil {
		return nil, noRoom(fmt.Errorf("stage an image: %w", err))
	}
	st := &stage{store: s, name: filepath.Base(dir), dir: dir}
	s.staging[st.name] = true
	return st, nil
}

// discard removes what was not committed.
func (st *stage) discard() {
	if err := os.RemoveAll(st.dir); err != nil {
		// Reconcile tries again at the next start.
		st.store.cfg.Log.Warn("a staged image could not be removed", "dir", st.name, "error", err)
	}
	st.store.mu.Lock()
	defer st.store.mu.Unlock()
	delete(st.store.staging, st.name)
}

// create opens a new file of the stage for writing.
func (st *stage) create(role Role) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(st.dir, string(role)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, noRoom(fmt.Errorf("stage an image: %w", err))
	}
	return f, nil
}

// commit makes the staged files, which are synced, the files of an image. The
// first file is renamed last: it makes the image. The same fingerprint always
// comes in the same layout: no metadata file holds a root file system, so what is
// split cannot be a unified image too.
func (st *stage) commit(fingerprint string, split bool) error {
	s := st.store
	defer s.lock(fingerprint)()
	renames := []struct{ from, to string }{{string(RoleUnified), fingerprint}}
	if split {
		renames = []struct{ from, to string }{{string(RoleRootFS), fingerprint + rootFSSuffix}, {string(RoleMetadata), fingerprint}}
	}
	// Reconcile must know before it can see the files.
	s.mu.Lock()
	s.fresh[fingerprint] = true
	s.mu.Unlock()
	for _, r := range renames {
		if err := os.Rename(filepath.Join(st.dir, r.from), filepath.Join(s.cfg.Dir, r.to)); err != nil {
			if !s.Has(fingerprint) {
				_ = os.Remove(s.path(fingerprint) + rootFSSuffix)
			}
			return noRoom(fmt.Errorf("store image %s: %w", short(fingerprint), err))
		}
	}
	if err := syncDir(s.cfg.Dir); err != nil {
		return noRoom(fmt.Errorf("store image %s: %w", short(fingerprint), err))
	}
	return nil
}

// noRoom gives a full disk its kind and says what would help.
func noRoom(err error) error {
	if state.Kind(err) == nil && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) {
		return state.Errorf(state.ErrConflict, "%w: free some space on this member, or delete images that are not needed", err)
	}
	return err
}

// room watches the free space of the file system that holds a file or directory.
type room struct {
	fd      int
	what    string // what is being done, for messages
	reserve int64
	left    int64 // bytes to write until the next look
}

// lookEvery is how many bytes may be written between two looks at the free
// space.
const lookEvery = 8 << 20

func (s *Store) newRoom(f *os.File, what string) *room {
	return &room{fd: int(f.Fd()), what: what, reserve: s.cfg.Reserve}
}

// take is called before n bytes are written. It is state.ErrConflict when they
// would use up the reserve.
func (r *room) take(n int64) error {
	if r.left -= n; r.left > 0 || r.reserve < 0 {
		return nil
	}
	r.left = lookEvery
	return r.need(n)
}

// need is state.ErrConflict unless n more bytes leave the reserve untouched.
func (r *room) need(n int64) error {
	if r.reserve < 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(r.fd, &st); err != nil {
		return fmt.Errorf("%s: ask for the free space: %w", r.what, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free-n < r.reserve {
		return state.Errorf(state.ErrConflict, "%s: no space left on device: %d MiB are free and %d MiB stay in reserve: free some space on this member, or delete images that are not needed", r.what, free>>20, r.reserve>>20)
	}
	return nil
}

// guarded is a writer that leaves the reserve of its file system alone.
type guarded struct {
	w    io.Writer
	room *room
}

func (g guarded) Write(p []byte) (int, error) {
	if err := g.room.take(int64(len(p))); err != nil {
		return 0, err
	}
	n, err := g.w.Write(p)
	return n, noRoom(err)
}
