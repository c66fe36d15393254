package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// The log's newest entries are in "open segments": files of a fixed size, written
// in batches from the front, the rest zero. When the node starts, it takes the
// batches up to the first that is broken and forgets what follows: right for a
// batch that a power cut tore, and a silent loss for damage before the end. A
// whole batch behind a broken one tells the two apart.
//
// The layout is libraft's (0.15, disk format 1; checked against files it wrote):
// a word of format, then batches of: CRC of the header, CRC of the data, number
// of entries; for each entry its term, and a word with its type and, in the upper
// half, its size; then the data.
const (
	segmentSize   = 8 << 20
	segmentFormat = 1
	// batchEntriesMax bounds the entries of a batch for the search; the node
	// writes far fewer at once.
	batchEntriesMax = 1 << 16
)

// inspectOpenSegment refuses an open segment that is cut short, which would make
// the node end the process, or that is damaged before its end.
func (d *directory) inspectOpenSegment(path string) error {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another one of ours is at it, and the node will say so
	}
	if err != nil {
		return err
	}
	// A segment is prepared ahead of need; a kill may leave one with no size yet.
	if len(content) == 0 {
		return nil
	}
	if len(content) != segmentSize {
		// Killed while it was given its size, which takes a while: nothing was ever
		// written to it, and the node would end the process over it.
		if len(bytes.Trim(content, "\x00")) == 0 {
			return os.Remove(path)
		}
		return d.damaged("%s has %d bytes of %d", filepath.Base(path), len(content), segmentSize)
	}
	if binary.LittleEndian.Uint64(content) != segmentFormat {
		return nil // empty, or a format that this check does not know
	}
	at := 8
	for size := batchAt(content[at:]); size > 0; size = batchAt(content[at:]) {
		at += size
	}
	for broken := at; at+16 <= len(content); at += 8 {
		if batchAt(content[at:]) > 0 {
			return d.damaged("%s is unreadable from byte %d, and there is more behind", filepath.Base(path), broken)
		}
	}
	return nil
}

// batchAt returns the size of the whole, sound batch that b starts with, or 0.
func batchAt(b []byte) int {
	if len(b) < 16 {
		return 0
	}
	entries := binary.LittleEndian.Uint64(b[8:])
	if entries == 0 || entries > batchEntriesMax || 16+16*entries > uint64(len(b)) {
		return 0
	}
	header := b[8 : 16+16*entries]
	if crc(header) != binary.LittleEndian.Uint32(b) {
		return 0
	}
	size := uint64(0)
	for i := range entries {
		size += uint64(binary.LittleEndian.Uint32(header[8+16*i+12:]))
	}
	start := 16 + 16*entries
	if start+size > uint64(len(b)) || crc(b[start:start+size]) != binary.LittleEndian.Uint32(b[4:]) {
		return 0
	}
	return int(start + size)
}

// crc is CRC-32 with the usual polynomial, most significant bit first, starting at
// zero: not the reflected one of hash/crc32.
func crc(b []byte) uint32 {
	sum := uint32(0)
	for _, c := range b {
		sum = sum<<8 ^ crcTable[byte(sum>>24)^c]
	}
	return sum
}

var crcTable = func() (table [256]uint32) {
	for i := range table {
		sum := uint32(i) << 24
		for range 8 {
			carry := sum&(1<<31) != 0
			sum <<= 1
			if carry {
				sum ^= 0x04c11db7
			}
		}
		table[i] = sum
	}
	return table
}()
