// Package stream is the form in which a volume with its snapshots travels from
// one member to another, whatever drivers keep it at either end: trees of
// files, each sent as the difference to what the receiver has.
//
// It knows files and directories, not pools: who makes the directories, clones
// a snapshot from the one before and keeps what arrived is the caller's Place.
// It never follows a symbolic link, never leaves the directories it is given,
// and believes nothing of a stream that it has not checked.
package stream

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"muster/state"
)

// version is of the whole protocol. Members of one cluster may differ by one
// release; a receiver says in its inventory what it speaks, and the sender
// refuses what it does not know.
const version = 1

// A content is three things at most. Their names are the first part of every
// path in a stream.
const (
	nameRootFS    = "rootfs"
	nameMetadata  = "metadata.yaml"
	nameTemplates = "templates"
)

// What a stream may claim. Anything above is damage or malice.
const (
	maxFrame  = 1 << 20 // payload of a frame, bytes
	maxPath   = 16 << 10
	maxName   = 255
	maxTarget = 4 << 10
	maxValue  = 64 << 10 // of an extended attribute
	maxAttrs  = 4096
	maxList   = 1 << 16 // contents of a volume
)

const (
	page       = 4 << 10   // the unit in which holes are found
	chunk      = 256 << 10 // data in one frame
	checkpoint = 64 << 20  // how much of a file a crash may cost
)

// Live is the name of the content that is the volume itself; every other name
// is a snapshot's.
const Live = ""

// Start says what a content is made from before the difference is applied.
type Start byte

// The ways in which a content begins.
const (
	FromNothing Start = 'n'
	FromImage   Start = 'i' // the image that the inventory offered
	FromContent Start = 'c' // another content of this volume
	FromItself  Start = 's' // what an earlier stream left
)

// Content is the head of one content in a stream.
type Content struct {
	// Name is Live or the name of a snapshot.
	Name string
	// Token changes whenever the source's snapshot is another one.
	Token string
	Start Start
	// From is the content that FromContent means.
	From string
}

// ErrDamaged marks a stream, inventory or log that does not add up: cut, changed
// on the way, or not ours. Its kind is state.ErrUnavailable: trying again helps.
var ErrDamaged = state.Errorf(state.ErrUnavailable, "the transfer was damaged on the way; try again")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}

// refused is the error for what no honest sender says.
func refused(format string, args ...any) error {
	return state.Errorf(state.ErrInvalid, "the transfer was refused: "+format, args...)
}

// checkPath refuses what must not become a path below a content.
func checkPath(path string) error {
	if len(path) > maxPath {
		return refused("a path is longer than %d bytes", maxPath)
	}
	first := true
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || len(name) > maxName || strings.IndexByte(name, 0) >= 0 {
			return refused("%.100q is no path", path)
		}
		if first && name != nameRootFS && name != nameMetadata && name != nameTemplates {
			return refused("%.100q is not part of a volume", path)
		}
		first = false
	}
	return nil
}

// split returns the directory and the last part of a path.
func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// join is the path of name in dir.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
