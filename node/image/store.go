package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"muster/state"
)

// Config says where a Store keeps its files and what it may use.
type Config struct {
	// Dir is the directory of the store, $MUSTER_DIR/images. Open makes it.
	Dir string
	Log *slog.Logger
	// MaxUnpacked is how many bytes an image may unpack to; 0 means 64 GiB.
	MaxUnpacked int64
	// MaxEntries is how many files, directories and links an image may hold; 0
	// means a million.
	MaxEntries int
	// Reserve is how many bytes of free space an import or unpacking leaves on
	// the file system it writes to; 0 means 128 MiB, less than 0 means none.
	Reserve int64
}

const (
	defaultMaxUnpacked = 64 << 30
	defaultMaxEntries  = 1_000_000
	defaultReserve     = 128 << 20
	chunkSize          = 256 << 10
)

// Store keeps image files in one directory: <fingerprint> for a unified image,
// <fingerprint> and <fingerprint>.rootfs for a split one. All methods may be
// called from many goroutines.
type Store struct {
	cfg    Config
	limits limits

	mu sync.Mutex
	// busy holds a lock for each fingerprint whose files are being changed.
	busy map[string]*busyLock
	// staging names the staging directories that running calls own.
	staging map[string]bool
	// fresh names the images stored since Open; the cluster may not have
	// recorded them yet.
	fresh map[string]bool
}

type busyLock struct {
	sync.Mutex
	users int
}

const (
	stagingDir   = "staging"
	rootFSSuffix = ".rootfs"
)

// Open returns the store in cfg.Dir, which it makes when it is missing. It
// removes nothing: see Reconcile.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("the image store needs a directory")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxUnpacked == 0 {
		cfg.MaxUnpacked = defaultMaxUnpacked
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = defaultMaxEntries
	}
	if cfg.Reserve == 0 {
		cfg.Reserve = defaultReserve
	}
	if cfg.MaxUnpacked < 0 || cfg.MaxUnpacked > 1<<50 || cfg.MaxEntries < 0 {
		return nil, fmt.Errorf("the limits of the image store are out of range: %d bytes, %d entries", cfg.MaxUnpacked, cfg.MaxEntries)
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, stagingDir), 0o700); err != nil {
		return nil, fmt.Errorf("open the image store: %w", err)
	}
	return &Store{
		cfg:     cfg,
		limits:  limits{bytes: cfg.MaxUnpacked, entries: cfg.MaxEntries},
		busy:    map[string]*busyLock{},
		staging: map[string]bool{},
		fresh:   map[string]bool{},
	}, nil
}

// lock keeps others from changing the files of an image until unlock is called.
func (s *Store) lock(fingerprint string) (unlock func()) {
	s.mu.Lock()
	l := s.busy[fingerprint]
	if l == nil {
		l = &busyLock{}
		s.busy[fingerprint] = l
	}
	l.users++
	s.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(s.busy, fingerprint)
		}
	}
}

func (s *Store) path(fingerprint string) string { return filepath.Join(s.cfg.Dir, fingerprint) }

// validFingerprint reports whether a name is 64 lower-case hex digits.
func validFingerprint(name string) bool {
	return len(name) == 2*sha256.Size && strings.Trim(name, "0123456789abcdef") == ""
}

// short is a fingerprint as people say it.
func short(fingerprint string) string { return fingerprint[:min(12, len(fingerprint))] }

// Has reports whether the files of an image are here. It does not read them.
func (s *Store) Has(fingerprint string) bool {
	if !validFingerprint(fingerprint) {
		return false
	}
	info, err := os.Lstat(s.path(fingerprint))
	return err == nil && info.Mode().IsRegular()
}

// Export opens the stored files: one for a unified image, metadata and root
// file system for a split one. The caller closes them. They stay readable when
// the image is deleted meanwhile. An image that is not here is
// state.ErrNotFound.
func (s *Store) Export(fingerprint string) (Files, error) {
	if !validFingerprint(fingerprint) {
		return nil, s.missing(fingerprint)
	}
	defer s.lock(fingerprint)()
	main, err := s.openFile(fingerprint, "")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.missing(fingerprint)
	}
	if err != nil {
		return nil, err
	}
	rootfs, err := s.openFile(fingerprint, rootFSSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		main.Role = RoleUnified
		return Files{main}, nil
	}
	if err != nil {
		_ = main.Close()
		return nil, err
	}
	main.Role, rootfs.Role = RoleMetadata, RoleRootFS
	main.Name = "meta-" + main.Name
	return Files{main, rootfs}, nil
}

func (s *Store) missing(fingerprint string) error {
	return state.Errorf(state.ErrNotFound, "image %s has no files on this member", shown(short(fingerprint)))
}

func (s *Store) openFile(fingerprint, suffix string) (File, error) {
	f, err := os.OpenFile(s.path(fingerprint)+suffix, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return File{}, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return File{}, err
	}
	head := make([]byte, sniffed)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		_ = f.Close()
		return File{}, err
	}
	return File{
		ReadSeekCloser: f,
		Name:           fingerprint + sniff(head[:n]).ending(),
		Size:           info.Size(),
		ModifiedAt:     info.ModTime(),
		file:           f,
	}, nil
}

// Verify hashes the stored files again. Damage is state.ErrConflict with a
// sentence that says how to mend it; an image that is not here is
// state.ErrNotFound.
func (s *Store) Verify(ctx context.Context, fingerprint string) error {
	files, err := s.Export(fingerprint)
	if err != nil {
		return err
	}
	defer files.Close()
	return files.verify(ctx, fingerprint)
}

// verify hashes files without moving the positions that others read from.
func (f Files) verify(ctx context.Context, fingerprint string) error {
	hash := sha256.New()
	for _, file := range f {
		if _, err := io.CopyBuffer(hash, &cancellable{ctx, io.NewSectionReader(file.file, 0, file.Size)}, make([]byte, chunkSize)); err != nil {
			return fmt.Errorf("verify image %s: %w", short(fingerprint), err)
		}
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != fingerprint {
		return state.Errorf(state.ErrConflict, "image %s is damaged on this member: its files hash to %s; import the image again to mend it, or delete it", short(fingerprint), short(sum))
	}
	return nil
}

// cancellable is a reader that ends with its context.
type cancellable struct {
	ctx context.Context //nolint:containedctx // an io.Reader has no other way to take one; it lives as long as one copy
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// Info reads an image's metadata from its stored file. An image that is not
// here is state.ErrNotFound.
func (s *Store) Info(ctx context.Context, fingerprint string) (Info, error) {
	files, err := s.Export(fingerprint)
	if err != nil {
		return Info{}, err
	}
	defer files.Close()
	found := errors.New("found")
	var m Metadata
	c := contents{role: files[0].Role, limits: s.limits, visit: func(e entry, body io.Reader) error {
		if e.section != metadataFile {
			return nil
		}
		data, err := io.ReadAll(body)
		if err == nil {
			m, err = ParseMetadata(data)
		}
		if err == nil {
			err = found
		}
		return err
	}}
	switch err := c.read(ctx, io.NewSectionReader(files[0].file, 0, files[0].Size)); {
	case err == nil:
		return Info{}, state.Errorf(state.ErrConflict, "image %s is damaged on this member: it holds no metadata.yaml", short(fingerprint))
	case !errors.Is(err, found):
		return Info{}, fmt.Errorf("read image %s: %w", short(fingerprint), err)
	}
	info := m.info()
	info.Fingerprint, info.Split = fingerprint, len(files) == 2
	for _, file := range files {
		info.Size += file.Size
	}
	return info, nil
}

// Delete removes an image's files. What is not here is no error, so that a
// deletion can be repeated.
func (s *Store) Delete(_ context.Context, fingerprint string) error {
	if !validFingerprint(fingerprint) {
		return nil
	}
	defer s.lock(fingerprint)()
	// The first file makes the image: what a crash leaves after it is gone is
	// no image, and Reconcile removes it.
	for _, suffix := range []string{"", rootFSSuffix} {
		if err := os.Remove(s.path(fingerprint) + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete image %s: %w", short(fingerprint), err)
		}
	}
	s.mu.Lock()
	delete(s.fresh, fingerprint)
	s.mu.Unlock()
	return syncDir(s.cfg.Dir)
}

// Reconcile removes what a crash left: staging files that no running import
// owns, and files of images that are not among known (the fingerprints that the
// cluster says are on this member). Images imported since Open stay.
func (s *Store) Reconcile(ctx context.Context, known []string) (Leftovers, error) {
	var left Leftovers
	keep := map[string]bool{}
	for _, fingerprint := range known {
		keep[fingerprint] = true
		if !s.Has(fingerprint) {
			left.Missing = append(left.Missing, fingerprint)
		}
	}
	staged, err := os.ReadDir(filepath.Join(s.cfg.Dir, stagingDir))
	if err != nil {
		return left, fmt.Errorf("reconcile images: %w", err)
	}
	stored, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return left, fmt.Errorf("reconcile images: %w", err)
	}
	remove := func(name string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(s.cfg.Dir, name)); err != nil {
			return fmt.Errorf("reconcile images: %w", err)
		}
		s.cfg.Log.Info("removed a leftover of the image store", "name", name)
		left.Removed = append(left.Removed, name)
		return nil
	}
	for _, entry := range staged {
		s.mu.Lock()
		owned := s.staging[entry.Name()]
		s.mu.Unlock()
		if !owned {
			if err := remove(filepath.Join(stagingDir, entry.Name())); err != nil {
				return left, err
			}
		}
	}
	for _, entry := range stored {
		fingerprint, isRootFS := strings.CutSuffix(entry.Name(), rootFSSuffix)
		if !validFingerprint(fingerprint) {
			continue
		}
		if err := s.reconcileImage(fingerprint, entry.Name(), isRootFS, keep[fingerprint], remove); err != nil {
			return left, err
		}
	}
	return left, syncDir(s.cfg.Dir)
}

// reconcileImage removes one stored file unless it belongs to an image that
// stays and is whole.
func (s *Store) reconcileImage(fingerprint, name string, isRootFS, known bool, remove func(string) error) error {
	defer s.lock(fingerprint)()
	s.mu.Lock()
	known = known || s.fresh[fingerprint]
	s.mu.Unlock()
	if known && (!isRootFS || s.Has(fingerprint)) {
		return nil
	}
	return remove(name)
}

// syncDir makes renames and removals in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
