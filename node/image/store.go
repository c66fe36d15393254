package image

import (
	"context"
	"log/slog"

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

// Store keeps image files in one directory: <fingerprint> for a unified image,
// <fingerprint> and <fingerprint>.rootfs for a split one. All methods may be
// called from many goroutines.
type Store struct {
	cfg Config
}

// Open returns the store in cfg.Dir, which it makes when it is missing. It
// removes nothing: see Reconcile.
func Open(cfg Config) (*Store, error) {
	return &Store{cfg: cfg}, nil
}

var errNotBuilt = state.Errorf(state.ErrUnavailable, "the image store is not built yet")

// Import takes an image in: it checks and stores what spec.Next yields and says
// what it is. The file is on disk and whole when it returns. Importing what is
// stored already is no error and mends a damaged file.
//
// Whatever goes wrong, nothing is kept. A broken, truncated or unacceptable
// upload and a wrong fingerprint are state.ErrInvalid, and the message names
// the entry at fault; a full disk is state.ErrConflict.
func (s *Store) Import(ctx context.Context, spec ImportSpec) (Info, error) {
	return Info{}, errNotBuilt
}

// Has reports whether the files of an image are here. It does not read them.
func (s *Store) Has(fingerprint string) bool { return false }

// Info reads an image's metadata from its stored file. An image that is not
// here is state.ErrNotFound.
func (s *Store) Info(ctx context.Context, fingerprint string) (Info, error) {
	return Info{}, errNotBuilt
}

// Verify hashes the stored files again. Damage is state.ErrConflict with a
// sentence that says how to mend it; an image that is not here is
// state.ErrNotFound.
func (s *Store) Verify(ctx context.Context, fingerprint string) error { return errNotBuilt }

// Unpack verifies an image and fills dir with its rootfs/, metadata.yaml and
// templates/. Owners are those in the image, unshifted, so it needs root. dir is
// made when it is missing (mode 0700) and must be empty; when Unpack fails, dir
// is as it was. progress is told how many bytes have been written so far; it may
// be nil. What was written is not synced to disk.
//
// Damage is state.ErrConflict as from Verify, and so is a lack of space; an
// image that is not here is state.ErrNotFound.
func (s *Store) Unpack(ctx context.Context, fingerprint, dir string, progress func(written int64)) error {
	return errNotBuilt
}

// Export opens the stored files: one for a unified image, metadata and root
// file system for a split one. The caller closes them. They stay readable when
// the image is deleted meanwhile. An image that is not here is
// state.ErrNotFound.
func (s *Store) Export(fingerprint string) (Files, error) { return nil, errNotBuilt }

// Delete removes an image's files. What is not here is no error, so that a
// deletion can be repeated.
func (s *Store) Delete(ctx context.Context, fingerprint string) error { return errNotBuilt }

// Publish packs a container's tree as a new unified image. The same tree and
// metadata give the same fingerprint. Device nodes and sockets are left out: an
// image may not hold them.
//
// On failure nothing is kept. A full disk and a file whose owner spec.IDs does
// not cover are state.ErrConflict.
func (s *Store) Publish(ctx context.Context, spec PublishSpec) (Info, error) {
	return Info{}, errNotBuilt
}

// Reconcile removes what a crash left: staging files that no running import
// owns, and files of images that are not among known (the fingerprints that the
// cluster says are on this member). Images imported since Open stay.
func (s *Store) Reconcile(ctx context.Context, known []string) (Leftovers, error) {
	return Leftovers{}, errNotBuilt
}
