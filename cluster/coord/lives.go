package coord

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"

	"muster/state"
)

// lives are the names of the lives of this member's daemon, in a file beside the log's
// directory: the one that the log recorded last, and then others, the newest first. The log
// records each life when it begins. A life in the log that is not here was begun from a copy of
// this directory, or after it was put aside: whoever still has the older state must not take
// part.
//
// The file has a fixed size and is written in place, in one sector: a full disk takes it, and a
// power cut leaves the one state or the other.
type lives struct {
	path  string
	names []string
}

const (
	livesSize = 512
	livesKept = 8
)

// livesFile is where the lives of the log in dir are.
func livesFile(dir string) string { return dir + ".lives" }

// livesContent is the content of the file. One whose sum is wrong says nothing.
type livesContent struct {
	Names []string `json:"names"`
	Sum   uint32   `json:"sum"`
}

func sumOf(names []string) uint32 {
	sum := uint32(0)
	for _, name := range names {
		sum = crc32.Update(sum, castagnoli, append([]byte(name), 0))
	}
	return sum
}

// openLives reads the file; without one nothing is known.
func openLives(dir string) (*lives, error) {
	l := &lives{path: livesFile(dir)}
	data, err := os.ReadFile(l.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var found livesContent
	if json.Unmarshal(bytes.TrimRight(data, " \n"), &found) == nil && found.Sum == sumOf(found.Names) {
		l.names = found.Names
	}
	return l, nil
}

// knows reports whether a life that the log recorded was one of this directory.
func (l *lives) knows(name string) bool {
	return name == "" || len(l.names) == 0 || slices.Contains(l.names, name)
}

// begin notes a life that is about to be recorded.
func (l *lives) begin(name string) error {
	return l.write(slices.Insert(slices.Clone(l.names), min(1, len(l.names)), name))
}

// record notes that the log has recorded a life.
func (l *lives) record(name string) error {
	others := slices.DeleteFunc(slices.Clone(l.names), func(other string) bool { return other == name })
	return l.write(append([]string{name}, others...))
}

func (l *lives) write(names []string) error {
	names = names[:min(len(names), livesKept)]
	data, err := json.Marshal(livesContent{Names: names, Sum: sumOf(names)})
	if err != nil {
		return err
	}
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	padded := append(data, bytes.Repeat([]byte{' '}, livesSize-len(data))...)
	_, err = file.WriteAt(padded, 0)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		l.names = names
	}
	return err
}

// KnowsLife reports whether a life of the member, as another member's log has it, is one of the
// directory beside which the log in dir is.
func KnowsLife(dir, life string) (bool, error) {
	l, err := openLives(dir)
	if err != nil {
		return false, err
	}
	return l.knows(life), nil
}

// errReplaced is why a daemon stops when its member lives on elsewhere.
var errReplaced = state.Errorf(state.ErrForbidden, "this member was started from a copy of its directory, and that daemon is the member now: this one stops and must not be started again with this directory")

// ErrOutdated is why a daemon does not start when its member lived on elsewhere.
var ErrOutdated = state.Errorf(state.ErrForbidden, "this directory is a copy, or an older state, of a member that was started elsewhere since: it must not take part any more; if the other one is gone for good, remove the member with --force and let this server join again as a new one (\"musterd cluster forget --yes\")")

// Replaced says once that this member was started elsewhere, from a copy of its directory, and
// that this daemon is to end.
func (n *Node) Replaced() <-chan error { return n.replaced }

// Life returns the life of a member that the log recorded last, or "".
func (r *Replica) Life(member string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.content.Lives[member]
}

// hearLife takes note of what the log says of this member's own life.
func (n *Node) hearLife(life string) {
	switch {
	case life == n.boot:
		n.recorded.Store(true)
	case life != "" && n.recorded.Load():
		n.replace(errReplaced)
	}
}

func (n *Node) replace(why error) {
	select {
	case n.replaced <- why:
	default: // it was said
	}
}
