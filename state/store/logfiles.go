package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A kill may come between any two steps of the node, and the node does not start on
// everything that it leaves (libraft 0.15). logFiles is what the directory holds and
// what must be done before the node meets it. What no kill explains is damage, and is
// refused: the node would end the process, wait without end, or forget it in silence.
//
// The node takes the newest snapshot that has both its files, and then the entries that
// go on from it. What kills leave besides:
//
//   - tmp-*: files that were written before they get their name. The node never reads
//     them, and fails when it wants to write one of the same name.
//   - Open segments without entries, of any size (see openExtent).
//   - Two closed segments with the same first entry: the log's end was being cut off,
//     the shorter one was written and the longer one not removed yet. Cutting is done
//     again when the leader asks again.
//   - Closed segments behind a gap: the log's end was being cut off, and its later
//     segments were not removed yet.
//   - Closed segments that end before the snapshot: it came from the leader, and the
//     entries that it replaces were not removed yet.
//   - A snapshot without the file that describes it: it was being removed.
type logFiles struct {
	// begun says that something of a log is there, if only its metadata; logged says
	// that there are entries or a snapshot.
	begun, logged bool
	// segments are the names of those that hold entries, oldest first, and metas those of the
	// files that describe snapshots.
	segments, metas []string
	// lastTerm is the term of the newest entry.
	lastTerm uint64
	metadata metadata
	// useless are the names of files to be removed, and short the sizes that others are to
	// be truncated to.
	useless []string
	short   map[string]int64
}

// snapshot is a snapshot's name taken apart; it sorts as the node sorts.
type snapshot struct {
	name              string
	term, index, time uint64
}

// segment is a segment's name taken apart: the entries of a closed one, and the number
// of an open one.
type segment struct {
	name                string
	first, last, number uint64
	extent
}

var (
	// closedSegment is the name of a part of the log: its first and last entry.
	closedSegment = regexp.MustCompile(`^[0-9]{16}-[0-9]{16}$`)
	openSegment   = regexp.MustCompile(`^open-[0-9]+$`)
	// snapshotFile is the name of a snapshot: its term, last entry and time. What
	// describes it has another ending.
	snapshotFile = regexp.MustCompile(`^snapshot-[0-9]+-[0-9]+-[0-9]+$`)
)

const snapshotMeta = ".meta"

// readLog looks at the files of the log, changes nothing, and reports damage.
func (d *directory) readLog() (*logFiles, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	found := &logFiles{short: map[string]int64{}}
	var snapshots []snapshot
	var closed, open []segment
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case strings.HasPrefix(name, "tmp-"):
			found.useless = append(found.useless, name)
		case openSegment.MatchString(name):
			s := segment{name: name}
			_, err = fmt.Sscanf(name, "open-%d", &s.number)
			open = append(open, s)
		case closedSegment.MatchString(name):
			s := segment{name: name}
			_, err = fmt.Sscanf(name, "%d-%d", &s.first, &s.last)
			closed = append(closed, s)
		case snapshotFile.MatchString(name):
			s := snapshot{name: name}
			_, err = fmt.Sscanf(name, "snapshot-%d-%d-%d", &s.term, &s.index, &s.time)
			snapshots = append(snapshots, s)
		// Metadata alone is what a crash leaves in the first instant of a new log.
		case name == "metadata1" || name == "metadata2":
			found.begun = true
		}
		if err != nil {
			return nil, d.damaged("%s is no name that the log gives: %w", name, err)
		}
	}
	newest, err := d.readSnapshots(found, snapshots)
	if err != nil {
		return nil, err
	}
	written, err := d.readOpen(found, open)
	if err != nil {
		return nil, err
	}
	found.logged = newest.name != "" || len(closed) > 0 || len(written) > 0
	found.begun = found.begun || found.logged
	if found.metadata, err = d.readMetadata(found.logged); err != nil {
		return nil, err
	}
	if err := d.readClosed(found, closed, newest, written); err != nil {
		return nil, err
	}
	for _, s := range written {
		found.segments = append(found.segments, s.name)
	}
	if found.logged && max(found.lastTerm, newest.term) > found.metadata.term {
		return nil, d.damaged("its metadata is of term %d, and its entries of term %d", found.metadata.term, max(found.lastTerm, newest.term))
	}
	return found, nil
}

// readSnapshots returns the newest snapshot that the node would take, or a zero one, and
// refuses it when the node would wait for it.
func (d *directory) readSnapshots(found *logFiles, snapshots []snapshot) (newest snapshot, err error) {
	slices.SortFunc(snapshots, func(a, b snapshot) int {
		return cmp.Or(cmp.Compare(a.term, b.term), cmp.Compare(a.index, b.index), cmp.Compare(a.time, b.time))
	})
	var undescribed []snapshot
	for _, s := range snapshots {
		_, err := os.Stat(filepath.Join(d.path, s.name+snapshotMeta))
		if errors.Is(err, fs.ErrNotExist) {
			undescribed = append(undescribed, s)
			continue
		}
		info, err := os.Stat(filepath.Join(d.path, s.name))
		if err != nil {
			return snapshot{}, err
		}
		if info.Size() > 0 { // the node passes over an empty one
			newest = s
			found.metas = append(found.metas, s.name+snapshotMeta)
		}
	}
	for _, s := range undescribed {
		// A newer one was not being removed: somebody may find its other file.
		if s.term < newest.term || s.term == newest.term && s.index < newest.index {
			found.useless = append(found.useless, s.name)
		}
	}
	if newest.name == "" {
		return newest, nil
	}
	return newest, d.inspectSnapshot(filepath.Join(d.path, newest.name))
}

// readOpen returns the open segments that hold entries, in order.
func (d *directory) readOpen(found *logFiles, open []segment) (written []segment, err error) {
	slices.SortFunc(open, func(a, b segment) int { return cmp.Compare(a.number, b.number) })
	torn := ""
	for _, s := range open {
		var mend int64
		if s.extent, mend, err = d.openExtent(s.name); err != nil {
			return nil, err
		}
		switch {
		case mend == 0:
			found.useless = append(found.useless, s.name)
		case mend > 0:
			found.short[s.name] = mend
		}
		if s.entries > 0 {
			// The node goes on to the next segment when it has written the one before.
			if torn != "" {
				return nil, d.damaged("%s is unreadable at its end, and there is more in %s", torn, s.name)
			}
			written = append(written, s)
			found.lastTerm = max(found.lastTerm, s.lastTerm)
		}
		if s.torn {
			torn = s.name
		}
	}
	return written, nil
}

// readClosed finds the closed segments that the node is to take, and checks them.
func (d *directory) readClosed(found *logFiles, closed []segment, newest snapshot, open []segment) error {
	slices.SortFunc(closed, func(a, b segment) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(b.last, a.last)) })
	// runs are closed segments without a gap between them.
	var runs [][]segment
	for i, s := range closed {
		if i > 0 && s.first == closed[i-1].first {
			found.useless = append(found.useless, s.name)
			closed[i] = closed[i-1]
			continue
		}
		if s.first == 0 || s.last < s.first {
			return d.damaged("%s is no name that the log gives", s.name)
		}
		if len(runs) > 0 {
			run := &runs[len(runs)-1]
			before := (*run)[len(*run)-1]
			if s.first <= before.last {
				return d.damaged("%s and %s hold the same entries", before.name, s.name)
			}
			if s.first == before.last+1 {
				*run = append(*run, s)
				continue
			}
		}
		runs = append(runs, []segment{s})
	}
	if len(runs) == 0 {
		return d.readRun(found, nil)
	}
	last := runs[len(runs)-1]
	if end := last[len(last)-1].last; end < newest.index {
		// The snapshot came from the leader, with everything in these. Open segments were
		// closed before it was taken in, so what they hold now came after it.
		if len(open) > 0 && open[0].firstTerm < newest.term {
			return d.damaged("%s may be older or newer than %s", open[0].name, newest.name)
		}
		for _, s := range closed {
			found.useless = append(found.useless, s.name)
		}
		return nil
	}
	if last[0].first <= newest.index+1 {
		return d.readRun(found, last)
	}
	// The first entries of the last run are gone. The entries before the gap must go on
	// from the snapshot, and those behind it be older than this member's term: a leader of
	// a newer one had the log's end cut off.
	var before []segment
	if len(runs) > 1 {
		before = runs[len(runs)-2]
	}
	if len(before) == 0 || before[0].first > newest.index+1 || before[len(before)-1].last < newest.index || len(open) > 0 {
		return d.damaged("the entries before %d are gone", last[0].first)
	}
	for _, s := range last {
		behind, err := d.closedExtent(s)
		if err != nil {
			return err
		}
		if behind.lastTerm >= found.metadata.term {
			return d.damaged("the entries from %d to %d are gone", before[len(before)-1].last+1, last[0].first-1)
		}
		found.useless = append(found.useless, s.name)
	}
	return d.readRun(found, before)
}

// readRun checks the closed segments that the node takes.
func (d *directory) readRun(found *logFiles, run []segment) error {
	for _, s := range run {
		held, err := d.closedExtent(s)
		if err != nil {
			return err
		}
		found.segments = append(found.segments, s.name)
		found.lastTerm = max(found.lastTerm, held.lastTerm)
	}
	return nil
}

// mend does what must be done before the node meets the files.
func (d *directory) mend(found *logFiles) error {
	for _, name := range found.useless {
		if err := os.Remove(filepath.Join(d.path, name)); err != nil {
			return err
		}
	}
	for name, size := range found.short {
		if err := truncate(filepath.Join(d.path, name), size); err != nil {
			return err
		}
	}
	if len(found.useless) == 0 {
		return nil
	}
	return syncDir(d.path)
}

// truncate cuts a file to a size, for good.
func truncate(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(size), file.Sync(), file.Close())
}

// syncDir makes the names in a directory outlive a power cut.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// hasLog reports whether there is a log while the node is at work on it, by names alone: a closed
// segment or a snapshot. An open segment may have been prepared only, and a member that is killed
// then has no log when it starts again; to read it would put what the node writes past the page
// cache at risk.
func (d *directory) hasLog() bool {
	entries, err := os.ReadDir(d.path)
	return err == nil && slices.ContainsFunc(entries, func(entry fs.DirEntry) bool {
		return snapshotFile.MatchString(entry.Name()) || closedSegment.MatchString(entry.Name())
	})
}
