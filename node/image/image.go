// Package image keeps image files on one member: it takes them in, checks and
// verifies them, unpacks them, makes them from containers, and renders the
// templates they carry.
//
// It never records what an image is called, who may use it or which members
// hold it: that is the state plane's. It never touches a running container: it
// fills directories that nobody uses yet, and hands out the contents of
// templates for others to write.
package image

import (
	"io"
	"os"
	"strings"
	"time"

	"muster/state"
)

// Type is the only kind of image that muster runs.
const Type = "container"

// Info says what an image file is. Everything in it was read from the file.
type Info struct {
	// Fingerprint is the lower-case hex SHA-256 of the file, or of metadata
	// and root file system one after the other when the image is split.
	Fingerprint string
	// Size is the bytes of all files of the image, as stored.
	Size int64
	// Architecture is the name the kernel uses: x86_64, aarch64 …
	Architecture string
	CreatedAt    time.Time
	// ExpiresAt is zero when the image does not expire.
	ExpiresAt  time.Time
	Properties map[string]string
	// Templates maps an absolute path in the container to what renders it.
	Templates map[string]Template
	// Split says that metadata and root file system are two files.
	Split bool
	// Type is always "container".
	Type string
}

// Role says what a part of an upload is.
type Role string

// The parts an image comes in: one unified tarball, or a metadata tarball and
// a root file system (tarball or squashfs).
const (
	RoleUnified  Role = "unified"
	RoleMetadata Role = "metadata"
	RoleRootFS   Role = "rootfs"
)

// Part is one file of an image on its way in.
type Part struct {
	Role Role
	Body io.Reader
}

// Parts yields the given parts one after the other, as ImportSpec.Next.
func Parts(parts ...Part) func() (Part, error) {
	return func() (Part, error) {
		if len(parts) == 0 {
			return Part{}, io.EOF
		}
		part := parts[0]
		parts = parts[1:]
		return part, nil
	}
}

// ImportSpec says what to import.
type ImportSpec struct {
	// Next yields the parts in the order they arrive and io.EOF after the
	// last. A part is read to its end, or given up, before the next is asked
	// for, so a multipart.Reader can feed it. An error of Next or of a body is
	// a broken upload.
	Next func() (Part, error)
	// Fingerprint is what the image must hash to (64 hex digits, any case), or
	// empty when the uploader did not say.
	Fingerprint string
	// Progress is told how many bytes have arrived so far; it may be nil.
	Progress func(received int64)
}

// Leftovers is what Reconcile found on disk.
type Leftovers struct {
	// Removed names the files and staging directories that were removed.
	Removed []string
	// Missing lists the known fingerprints whose files are not here.
	Missing []string
}

// File is a stored file of an image, open for reading. It may be read and
// sought by one reader at a time.
type File struct {
	io.ReadSeekCloser
	Role Role
	// Name is a name to offer for the file, with the ending of its format:
	// "<fingerprint>.tar.xz", "meta-<fingerprint>.tar.gz", "<fingerprint>.squashfs".
	Name string
	// Size is in bytes.
	Size       int64
	ModifiedAt time.Time

	file *os.File
}

// Files are the stored files of one image, metadata before root file system.
type Files []File

// Close closes all files.
func (f Files) Close() error {
	var first error
	for _, file := range f {
		if err := file.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Compression is a way to compress a tarball: the name of an algorithm, which
// options may follow ("xz -1").
type Compression string

// The algorithms of published images; the values are those of the server key
// images.compression_algorithm.
const (
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	XZ    Compression = "xz"
	Bzip2 Compression = "bzip2"
	LZMA  Compression = "lzma"
	None  Compression = "none"
)

// ParseCompression reads the value of images.compression_algorithm; the empty
// string means gzip. Anything unknown is state.ErrInvalid.
func ParseCompression(text string) (Compression, error) {
	algorithm, options, err := state.ParseCompression(text)
	if err != nil {
		return "", err
	}
	return Compression(strings.Join(append([]string{algorithm}, options...), " ")), nil
}

// split returns the algorithm and its options.
func (c Compression) split() (algorithm Compression, options []string) {
	words := strings.Fields(string(c))
	if len(words) == 0 {
		return Gzip, nil
	}
	return Compression(words[0]), words[1:]
}

// PublishSpec says what image to make.
type PublishSpec struct {
	// RootFS is the directory to pack. It should not change while it is read:
	// the container is stopped, or this is a snapshot.
	RootFS string
	// IDs unshifts the owners of RootFS, of its POSIX ACLs and file
	// capabilities.
	IDs IDMap
	// Metadata becomes metadata.yaml, as it is.
	Metadata Metadata
	// TemplatesDir holds the files that Metadata.Templates names; empty when
	// there are none.
	TemplatesDir string
	// Compression is Gzip when empty.
	Compression Compression
	// Progress is told how many bytes of files have been read so far; it may
	// be nil.
	Progress func(read int64)
}

// Trigger is the moment at which templates are rendered.
type Trigger string

// The triggers that a template may ask for in "when".
const (
	TriggerCreate Trigger = "create"
	TriggerCopy   Trigger = "copy"
	TriggerRename Trigger = "rename"
	TriggerStart  Trigger = "start"
)

// RenderSpec is what templates may see.
type RenderSpec struct {
	Trigger  Trigger
	Metadata Metadata
	// TemplatesDir is the templates directory that belongs to the metadata.
	TemplatesDir string
	// Name, Architecture, Privileged and Ephemeral are the instance's.
	Name         string
	Architecture string
	Privileged   bool
	Ephemeral    bool
	// Config and Devices are the expanded ones.
	Config  state.Config
	Devices state.Devices
}

// Rendered is a file to be written into a container, owned by its root and, when
// it is new, with mode 0644.
type Rendered struct {
	// Path is absolute and clean, as seen in the container.
	Path    string
	Content []byte
	// CreateOnly says to leave a file alone that exists already.
	CreateOnly bool
}
