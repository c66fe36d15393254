package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/canonical/go-dqlite"

	"muster/state"
)

// The consensus log forgives too much: files that are gone are a log that is
// shorter, an empty directory is a new database. So the store keeps two files
// of its own beside the log: whose it is, and the newest revision that was
// acknowledged or shown here. A state that ends before that revision is refused.
const (
	identityFile = "member.json"
	markFile     = "revision"
)

// identity is the content of identityFile.
type identity struct {
	MemberID string `json:"member_id"`
	// NodeID is the member's number in the log.
	NodeID uint64 `json:"node_id"`
	// Sum is the CRC-32C of the two, so that a damaged number is not taken for another
	// member's, which would wait for a leader without end. Zero is a file of a release
	// that wrote none.
	Sum uint32 `json:"crc32c,omitempty"`
}

func (i identity) sum() uint32 {
	return crc32.Checksum(fmt.Appendf(nil, "%s %d", i.MemberID, i.NodeID), crc32.MakeTable(crc32.Castagnoli))
}

// directory is the store's directory.
type directory struct {
	path  string
	owner identity
	// mark is open for writing; marked, which mu guards, is what it holds.
	mark   *os.File
	mu     sync.Mutex
	marked state.Revision
	// logged says that there is a log, which mu guards too: a member that was not taken
	// in yet has none, though its View shows what others have.
	logged bool
	closed bool
}

// usedMark is a file beside the directory, which says that there is a log in it: a
// directory that is gone, because its file system is not mounted, is no new one.
func usedMark(path string) string { return path + ".used" }

// Gone reports that a store's directory holds no database though it did, as an error that
// says so.
func Gone(path string) error {
	if _, err := os.Stat(usedMark(path)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); openSegment.MatchString(name) || closedSegment.MatchString(name) || snapshotFile.MatchString(name) {
			return nil
		}
	}
	return state.Errorf(state.ErrConflict, "the database in %s was in use, and now it is gone: mount or restore it; to go on without what it held, run \"musterd init --forget-database\"", path)
}

// Forget removes the mark beside a database, so that Gone no longer refuses to start without it.
func Forget(path string) error {
	if err := os.Remove(usedMark(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// openDirectory makes the directory the owner's or checks that it is, before the
// node touches it.
func openDirectory(path string, owner identity) (*directory, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	d := &directory{path: path, owner: owner}
	log, err := d.readLog()
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(path, identityFile))
	switch {
	case errors.Is(err, fs.ErrNotExist) && log.begun:
		return nil, d.damaged("%s is gone, so nobody can tell whose the database is", identityFile)
	case errors.Is(err, fs.ErrNotExist):
		if err := d.claim(); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		err := json.Unmarshal(raw, &d.owner)
		if err != nil || d.owner.MemberID == "" || d.owner.NodeID == 0 || d.owner.Sum != 0 && d.owner.Sum != d.owner.sum() {
			return nil, d.damaged("%s does not say whose the database is", identityFile)
		}
		if d.owner.MemberID != owner.MemberID {
			return nil, state.Errorf(state.ErrInvalid, "the database in %s belongs to member %s, not to %s", path, d.owner.MemberID, owner.MemberID)
		}
	}
	if d.mark, err = os.OpenFile(filepath.Join(path, markFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := d.readMark(); err != nil {
		return nil, errors.Join(err, d.mark.Close())
	}
	if d.logged = log.logged; d.logged {
		d.markUsed()
	}
	if d.marked > 0 && !d.logged {
		err := d.damaged("it reached revision %d, and now its log is gone", d.marked)
		return nil, errors.Join(err, d.mark.Close())
	}
	if err := errors.Join(d.mend(log), d.beginAgain(log)); err != nil {
		return nil, errors.Join(err, d.mark.Close())
	}
	return d, nil
}

// beginAgain removes the metadata of a cluster's first member whose log was never begun: the
// node writes its first term and then its first entry, and would do neither when it finds the
// former. Nobody else can have counted on that member's vote.
func (d *directory) beginAgain(log *logFiles) error {
	if log.logged || !log.begun || d.owner.NodeID != dqlite.BootstrapID {
		return nil
	}
	for _, name := range metadataFiles {
		if err := os.Remove(filepath.Join(d.path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// claim writes down whose the directory is, for good.
func (d *directory) claim() error {
	d.owner.Sum = d.owner.sum()
	raw, err := json.Marshal(d.owner)
	if err != nil {
		return err
	}
	draft := filepath.Join(d.path, identityFile+".new")
	file, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(raw, '\n'))
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(d.path, identityFile))
}

// readMark reads the mark. Nothing, or less than a whole number, is what a power
// cut may leave of a file that is never flushed, and means no more than no mark.
func (d *directory) readMark() error {
	raw, err := os.ReadFile(d.mark.Name())
	if err != nil {
		return err
	}
	marked, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err == nil {
		d.marked = state.Revision(marked)
	}
	return nil
}

// raiseMark records that the revision was acknowledged or shown. It costs a write
// to the page cache and no flush: after a power cut the mark may be older than the
// state, never newer, because the state is flushed first.
func (d *directory) raiseMark(revision state.Revision) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if revision <= d.marked || d.closed {
		return nil
	}
	if !d.logged {
		if d.logged = d.hasLog(); !d.logged {
			// A member that has no part in the consensus yet shows what others remember; a
			// mark would say that it has lost that when it starts again.
			return nil
		}
		d.markUsed()
	}
	if _, err := d.mark.WriteAt(fmt.Appendf(nil, "%020d\n", revision), 0); err != nil {
		return err
	}
	d.marked = revision
	return nil
}

// markUsed says beside the directory that it holds a log. It may fail, on a disk that is full:
// the next start says it again.
func (d *directory) markUsed() {
	if file, err := os.OpenFile(usedMark(d.path), os.O_WRONLY|os.O_CREATE, 0o600); err == nil {
		_ = file.Close()
	}
}

// checkMark refuses a state that ends before what was acknowledged.
func (d *directory) checkMark(revision state.Revision) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if revision >= d.marked {
		return nil
	}
	return d.damaged("it reached revision %d, and now it ends at %d", d.marked, revision)
}

func (d *directory) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return d.mark.Close()
}

// damaged is the error for a database that must not be used.
func (d *directory) damaged(format string, args ...any) error {
	return fmt.Errorf("the database in %s is damaged or incomplete: %w; restore it from a backup; to go on without what it held, move the directory away and run \"musterd init --forget-database\"",
		d.path, fmt.Errorf(format, args...))
}
