package store

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// The node keeps its term and its vote in two files that it writes in turn, each with
// the next version: odd ones into the first, even ones into the second. They carry no
// checksum, and the node ends the process over some of what it can't read. It would take the
// older file when the newer one is short or gone, and could vote twice in one term: so a
// log whose metadata is not what the node writes is refused.
//
// The layout is libraft's (0.15): a word of format, the version, the term, and the
// number of the member voted for.
const (
	metadataSize   = 32
	metadataFormat = 1
)

var metadataFiles = [2]string{"metadata1", "metadata2"}

// metadata is the content of one of the files; version 0 means that it was never
// written.
type metadata struct{ version, term, vote uint64 }

// readMetadata returns the newer metadata. Only the second file may be missing or
// unfinished when there is a log, before it was first written.
func (d *directory) readMetadata(logged bool) (newer metadata, err error) {
	var read [2]metadata
	for i, name := range metadataFiles {
		content, err := os.ReadFile(filepath.Join(d.path, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return metadata{}, err
		case len(content) < metadataSize, !logged && wordAt(content) == 0:
			continue
		case len(content) > metadataSize:
			return metadata{}, d.damaged("%s has %d bytes instead of %d", name, len(content), metadataSize)
		case wordAt(content) != metadataFormat:
			return metadata{}, d.damaged("%s has format %d, which is not known here", name, wordAt(content))
		}
		read[i] = metadata{
			version: binary.LittleEndian.Uint64(content[8:]),
			term:    binary.LittleEndian.Uint64(content[16:]),
			vote:    binary.LittleEndian.Uint64(content[24:]),
		}
		if read[i].version == 0 || read[i].version%2 != uint64(1-i) {
			return metadata{}, d.damaged("%s has version %d, which does not belong there", name, read[i].version)
		}
	}
	older, newer := read[0], read[1]
	if older.version > newer.version {
		older, newer = newer, older
	}
	switch {
	case logged && newer.version == 0:
		return metadata{}, d.damaged("its metadata is gone")
	case newer.version > older.version+1:
		return metadata{}, d.damaged("%s has version %d, and not the one before %d", metadataFiles[newer.version%2], older.version, newer.version)
	case newer.term < older.term:
		return metadata{}, d.damaged("its metadata went back from term %d to term %d", older.term, newer.term)
	}
	return newer, nil
}
