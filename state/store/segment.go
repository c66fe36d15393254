package store

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"os"
	"path/filepath"
)

// The log's newest entries are in "open segments": files of a fixed size, written
// in batches from the front, the rest zero. When the node starts, it takes the
// batches up to the first that is broken and forgets what follows: right for a
// batch that a power cut tore, and a silent loss for damage before the end. A
// whole batch behind a broken one tells the two apart.
//
// Older entries are in "closed segments", which have the same layout and end with
// their last batch. An open segment becomes a closed one when it is truncated to its
// last batch, flushed and renamed, in that order: so a kill may leave one that is short
// and still has the name of an open one. The node takes it as it is. One that is short and
// ends within a batch, be it the first, was cut by something else.
//
// The layout is libraft's (0.15, disk format 1; checked against files it wrote):
// a word of format, then batches of: CRC of the header, CRC of the data, number
// of entries; for each entry its term, and a word with its type and, in the upper
// half, its size; then the data.
const (
	segmentSize   = 8 << 20
	segmentFormat = 1
	// segmentHead is the size of the word of format.
	segmentHead = 8
	// batchEntriesMax bounds the entries of a batch for the search; the node
	// writes far fewer at once.
	batchEntriesMax = 1 << 16
)

// extent is what a segment holds.
type extent struct {
	// entries is how many there are in whole batches from the front; firstTerm and
	// lastTerm are the terms of the first and the last.
	entries, firstTerm, lastTerm uint64
	// end is where the last whole batch ends.
	end int
	// torn says that something other than zeros follows, but no whole batch.
	torn bool
}

// openExtent reads an open segment. It reports damage that no kill and no power cut
// explains; mend is what the file must be truncated to before the node meets it, or -1.
func (d *directory) openExtent(name string) (found extent, mend int64, err error) {
	content, err := os.ReadFile(filepath.Join(d.path, name))
	if err != nil {
		return extent{}, -1, err
	}
	if len(bytes.Trim(content, "\x00")) == 0 {
		// Prepared ahead of need and not used yet; a kill may have come before it had its
		// size. The node would end the process over a short one.
		return extent{}, 0, nil
	}
	switch format := wordAt(content); {
	case len(content) < segmentHead:
		return extent{}, -1, d.damaged("%s has %d bytes of %d", name, len(content), segmentSize)
	case format == 0:
		// The first block of the first write never reached the disk, or was lost later.
		found.end = segmentHead
	case format != segmentFormat:
		return extent{}, -1, d.damaged("%s has format %d, which is not known here", name, format)
	default:
		found = walkBatches(content)
	}
	for at := found.end; at+16 <= len(content); at += 8 {
		if batchAt(content[at:]) > 0 {
			return extent{}, -1, d.damaged("%s is unreadable from byte %d, and there is more behind", name, found.end)
		}
	}
	found.torn = len(bytes.Trim(content[found.end:], "\x00")) > 0
	switch {
	case len(content) != segmentSize && (found.torn || found.entries == 0):
		// An open segment has its full size, flushed, before its first write, and loses it
		// behind a batch that is whole; one without a batch is removed and not truncated.
		return extent{}, -1, d.damaged("%s has %d bytes of %d", name, len(content), segmentSize)
	case found.entries == 0:
		return found, 0, nil // only a first batch, which was never finished
	case len(content) == segmentSize || len(content) == found.end:
		return found, -1, nil
	}
	return found, int64(found.end), nil
}

// closedExtent reads a closed segment, and reports one that does not hold the entries
// that it should. The node would put it aside, refuse to start, and start without it
// the next time.
func (d *directory) closedExtent(s segment) (extent, error) {
	name, entries := s.name, s.last-s.first+1
	content, err := os.ReadFile(filepath.Join(d.path, name))
	if err != nil {
		return extent{}, err
	}
	if len(content) < segmentHead || wordAt(content) != segmentFormat {
		return extent{}, d.damaged("%s does not begin as it should", name)
	}
	found := walkBatches(content)
	if found.end != len(content) {
		return extent{}, d.damaged("%s is unreadable from byte %d", name, found.end)
	}
	if found.entries != entries {
		return extent{}, d.damaged("%s holds %d entries instead of %d", name, found.entries, entries)
	}
	return found, nil
}

// wordAt returns the word that b starts with, or 0.
func wordAt(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

// walkBatches walks over the whole batches of a segment.
func walkBatches(content []byte) (found extent) {
	found.end = segmentHead
	for size := batchAt(content[found.end:]); size > 0; size = batchAt(content[found.end:]) {
		entries := binary.LittleEndian.Uint64(content[found.end+8:])
		if found.entries == 0 {
			found.firstTerm = binary.LittleEndian.Uint64(content[found.end+16:])
		}
		found.entries += entries
		found.lastTerm = binary.LittleEndian.Uint64(content[found.end+16*int(entries):]) //nolint:gosec // batchAt bounds it
		found.end += size
	}
	return found
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
// zero. That of hash/crc32 is the same with every bit the other way round, and takes
// the complement of where it starts.
func crc(b []byte) uint32 {
	var turned [4096]byte
	sum := ^uint32(0)
	for len(b) > 0 {
		n := min(len(b), len(turned))
		for i, c := range b[:n] {
			turned[i] = bits.Reverse8(c)
		}
		sum = crc32.Update(sum, crc32.IEEETable, turned[:n])
		b = b[n:]
	}
	return bits.Reverse32(^sum)
}
