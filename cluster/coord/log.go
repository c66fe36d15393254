package coord

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"muster/state"
)

const (
	// segmentSize is the size of one file of the log. The log between two
	// snapshots is a few hundred kilobytes.
	segmentSize = 4 << 20
	// keepSnapshots is how many snapshots stay on disk.
	keepSnapshots = 2

	// metaFile is where raft-wal keeps its metadata.
	metaFile = "wal-meta.db"

	lockFile  = "lock"
	cleanFile = "clean"
)

// diskLog is the log and its snapshots in one directory, held by one process.
type diskLog struct {
	dir       string
	lock      *os.File
	meta      *metadb.BoltMetaDB
	wal       checkedLog
	snapshots *raft.FileSnapshotStore
}

// openLog opens the log in dir, making it when missing, and reads all of it
// once: raft itself panics on an entry that it cannot read.
func openLog(dir string, log *slog.Logger) (opened *diskLog, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d := &diskLog{dir: dir}
	defer func() {
		// bbolt, which keeps the log's metadata, panics on some damage.
		if p := recover(); p != nil {
			err = damaged(dir, fmt.Errorf("%v", p))
		}
		if err != nil {
			opened, err = nil, errors.Join(err, d.close())
		}
	}()
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	if err := checkMeta(filepath.Join(dir, metaFile)); err != nil {
		return nil, damaged(dir, err)
	}
	d.meta = &metadb.BoltMetaDB{}
	d.wal.health = newLogHealth()
	d.wal.stored = sync.OnceFunc(func() { markUsed(dir) })
	d.wal.WAL, err = wal.Open(dir, wal.WithLogger(hclogTo(log)), wal.WithMetaStore(d.meta), wal.WithSegmentSize(segmentSize))
	if err != nil {
		return nil, damaged(dir, err)
	}
	// Those that a kill cut off are nobody's.
	unfinished, err := filepath.Glob(filepath.Join(dir, "snapshots", "*.tmp"))
	for _, snapshot := range unfinished {
		err = errors.Join(err, os.RemoveAll(snapshot))
	}
	if err != nil {
		return nil, err
	}
	d.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, keepSnapshots, hclogTo(log))
	if err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, damaged(dir, err)
	}
	return d, nil
}

// usedMark is a file beside the directory, which says that there is a log in it: a
// directory that is gone, because its file system is not mounted, is no new one.
func usedMark(dir string) string { return dir + ".used" }

// Gone reports that dir holds no log though it did, as an error that says so.
func Gone(dir string) error {
	if _, err := os.Stat(usedMark(dir)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	_, err := os.Stat(filepath.Join(dir, metaFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return state.Errorf(state.ErrConflict, "the coordination log in %s was in use, and now it is gone: mount or restore it; to go on without what it held, run \"musterd init --forget-database\"", dir)
}

// Forget removes the mark beside a log, so that Gone no longer refuses to start without it.
func Forget(dir string) error {
	if err := os.Remove(usedMark(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// markUsed says beside the directory that it holds a log. It may fail, on a disk that is full:
// the next start says it again.
func markUsed(dir string) {
	if file, err := os.OpenFile(usedMark(dir), os.O_WRONLY|os.O_CREATE, 0o600); err == nil {
		_ = file.Close()
	}
}

func damaged(dir string, err error) error {
	return state.Errorf(state.ErrConflict, "the coordination log in %s is damaged: %w; restore the directory from a backup; to go on without what it held (running operations are forgotten, instances are not), move it away and run \"musterd init --forget-database\"", dir, err)
}

// takeLock keeps a second process out: bbolt would wait for the first without
// a word.
func (d *diskLog) takeLock() error {
	lock, err := os.OpenFile(filepath.Join(d.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(state.Errorf(state.ErrConflict, "the coordination log in %s is in use by another process", d.dir), lock.Close())
	}
	d.lock = lock
	return nil
}

// check reads every entry and compares the ends of the log with what must be
// there.
func (d *diskLog) check() error {
	first, err := d.wal.FirstIndex()
	if err != nil {
		return err
	}
	last, err := d.wal.LastIndex()
	if err != nil {
		return err
	}
	var entry raft.Log
	for index := first; index <= last && last > 0; index++ {
		if err := d.wal.GetLog(index, &entry); err != nil {
			return err
		}
	}
	snapshots, err := d.snapshots.List()
	if err != nil {
		return err
	}
	var covered uint64
	for _, snapshot := range snapshots { // the newest first; raft takes the first that is whole
		if err = d.checkSnapshot(snapshot.ID); err == nil {
			covered = snapshot.Index
			break
		}
	}
	if err != nil && (last == 0 || first > covered+1) {
		return err
	}
	if last > 0 && first > covered+1 {
		return fmt.Errorf("it begins at entry %d, and no snapshot holds what was before", first)
	}
	// raft would not start, or would vote twice in one term.
	term, err := d.wal.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return err
	}
	if last > 0 && entry.Term > term {
		return fmt.Errorf("%s is of term %d, and its last entry of term %d", metaFile, term, entry.Term)
	}
	if stopped := d.cleanIndex(); max(last, covered) < stopped {
		return fmt.Errorf("it ends at entry %d, but entry %d was applied before", max(last, covered), stopped)
	}
	return nil
}

// checkSnapshot reads a snapshot, which has a checksum.
func (d *diskLog) checkSnapshot(id string) error {
	_, content, err := d.snapshots.Open(id)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", id, err)
	}
	return content.Close()
}

// cleanIndex returns the index that was applied when the log was last closed in
// order. Later entries may be there; earlier ones must.
func (d *diskLog) cleanIndex() uint64 {
	data, err := os.ReadFile(filepath.Join(d.dir, cleanFile))
	if err != nil {
		return 0
	}
	// An unreadable number says nothing: the file is written without a sync.
	index, _ := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	return index
}

// markClean records how far the log had been applied. A member that stops before it has
// heard from the others knows less than it did before, and takes nothing back.
func (d *diskLog) markClean(applied uint64) error {
	if applied <= d.cleanIndex() {
		return nil
	}
	path := filepath.Join(d.dir, cleanFile)
	if err := os.WriteFile(path+".tmp", strconv.AppendUint(nil, applied, 10), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func (d *diskLog) close() error {
	var errs []error
	if d.wal.WAL != nil {
		errs = append(errs, d.wal.Close())
	}
	if d.meta != nil {
		errs = append(errs, d.meta.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// checkedLog is the log with a CRC-32C behind the data of every entry. raft-wal
// checks only its newest write; with this, an entry that has changed on disk is
// found wherever it stands. (A wal.Codec would be the place for it, but raft-wal
// v0.4.0 refuses to reopen a log that was written with one.)
type checkedLog struct {
	*wal.WAL
	// stored is called when entries were stored.
	stored func()
	health *logHealth
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is over everything in an entry that raft acts on.
func sum(entry *raft.Log, data []byte) uint32 {
	var head [17]byte
	binary.LittleEndian.PutUint64(head[0:], entry.Index)
	binary.LittleEndian.PutUint64(head[8:], entry.Term)
	head[16] = byte(entry.Type)
	crc := crc32.Update(0, castagnoli, head[:])
	crc = crc32.Update(crc, castagnoli, data)
	return crc32.Update(crc, castagnoli, entry.Extensions)
}

// StoreLog implements raft.LogStore.
func (l checkedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l checkedLog) StoreLogs(entries []*raft.Log) error {
	checked := make([]*raft.Log, len(entries))
	for i, entry := range entries {
		// The entries belong to raft, which goes on to apply them.
		withSum := *entry
		withSum.Data = make([]byte, 0, len(entry.Data)+4)
		withSum.Data = append(withSum.Data, entry.Data...)
		withSum.Data = binary.LittleEndian.AppendUint32(withSum.Data, sum(entry, entry.Data))
		checked[i] = &withSum
	}
	if err := l.health.write(func() error { return l.WAL.StoreLogs(checked) }); err != nil {
		return err
	}
	l.stored()
	return nil
}

// DeleteRange implements raft.LogStore.
func (l checkedLog) DeleteRange(first, last uint64) error {
	return l.health.write(func() error { return l.WAL.DeleteRange(first, last) })
}

// Set implements raft.StableStore.
func (l checkedLog) Set(key, value []byte) error {
	return l.health.must(func() error { return l.WAL.Set(key, value) })
}

// SetUint64 implements raft.StableStore.
func (l checkedLog) SetUint64(key []byte, value uint64) error {
	return l.health.must(func() error { return l.WAL.SetUint64(key, value) })
}

// GetLog implements raft.LogStore.
func (l checkedLog) GetLog(index uint64, entry *raft.Log) error {
	if err := l.WAL.GetLog(index, entry); err != nil {
		return err
	}
	end := len(entry.Data) - 4
	if end < 0 {
		return fmt.Errorf("entry %d is too short", index)
	}
	data := entry.Data[:end:end]
	if entry.Index != index || sum(entry, data) != binary.LittleEndian.Uint32(entry.Data[end:]) {
		return fmt.Errorf("entry %d has a wrong checksum", index)
	}
	entry.Data = data
	return nil
}
