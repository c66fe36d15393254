package image

import (
	"context"
	"time"
)

// BusyboxSpec says what image to build from a static busybox.
type BusyboxSpec struct {
	// BusyboxPath is a statically linked busybox that this machine can run;
	// empty means /bin/busybox (Debian's package busybox-static).
	BusyboxPath string
	// Architecture is the kernel's name for what BusyboxPath is built for, or
	// empty to take it from the file.
	Architecture string
	// OutDir is where the files go; it must exist.
	OutDir string
	// Compression is Gzip when empty.
	Compression Compression
	// Split makes two files instead of a unified tarball.
	Split bool
	// Squashfs makes the root file system a squashfs; it implies Split and
	// needs sqfstar of squashfs-tools.
	Squashfs bool
	// CreatedAt is the image's creation date and the time of all its files. The
	// zero value means 2026-01-01, so that the same busybox always gives the
	// same image.
	CreatedAt time.Time
}

// Built is an image that BuildBusybox made.
type Built struct {
	Fingerprint string
	// Unified is the path of a unified tarball; empty when the image is split,
	// and then Metadata and RootFS are the two files.
	Unified, Metadata, RootFS string
	// Size is in bytes, of all files.
	Size int64
}

// BuildBusybox makes a small system container image (about 2 MB) whose init is
// busybox: DHCP on eth0 in the background, a shell on the console, a clean and
// quick halt on SIGPWR. Existing files are replaced whole.
func BuildBusybox(ctx context.Context, spec BusyboxSpec) (Built, error) {
	return Built{}, errNotBuilt
}
