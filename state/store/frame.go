package store

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// A snapshot of the log is one LZ4 frame, with a sum of its content that the node
// checks. But it waits without end for the rest of a frame that is cut short, and for
// room to put content that is longer than the frame says, so both are looked for
// before. The node makes snapshots under another name first: an unfinished one is
// never seen here.
//
// The layout is the LZ4 frame format's: a magic number, a byte of flags and one of
// block size, the content's size and a dictionary's ID when flagged, a sum of the
// header; then blocks, each with its size before it and, when flagged, a sum behind
// it; a size of zero ends them, and a sum of the content follows when flagged.
const (
	frameMagic = 0x184d2204

	frameHasDictionary  = 1 << 0
	frameHasContentSum  = 1 << 2
	frameHasContentSize = 1 << 3
	frameHasBlockSums   = 1 << 4

	// blockIsPlain is set in a block's size when the block is not compressed.
	blockIsPlain = 1 << 31
)

// errContentSize says that the blocks of a frame hold more or less than its header says.
var errContentSize = errors.New("holds something else than it says")

// inspectSnapshot refuses a snapshot that the node would wait for.
func (d *directory) inspectSnapshot(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	err = walkFrame(file)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return d.damaged("%s is cut short", filepath.Base(path))
	case errors.Is(err, errContentSize):
		return d.damaged("%s %w", filepath.Base(path), err)
	}
	return err
}

// walkFrame walks over an LZ4 frame; io.EOF or io.ErrUnexpectedEOF mean that it is
// cut short, errContentSize what it says. What is no frame is let pass: the node will
// say what it thinks of it.
func walkFrame(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	var head [14]byte
	if _, err := file.ReadAt(head[:], 0); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(head[:]) != frameMagic {
		return nil
	}
	flags, announced := head[4], binary.LittleEndian.Uint64(head[6:])
	at := int64(7)
	if flags&frameHasContentSize != 0 {
		at += 8
	}
	if flags&frameHasDictionary != 0 {
		at += 4
	}
	var content uint64
	var block []byte
	for {
		var word [4]byte
		if _, err := file.ReadAt(word[:], at); err != nil {
			return err
		}
		at += 4
		size := binary.LittleEndian.Uint32(word[:])
		if size == 0 {
			break
		}
		length := int64(size &^ blockIsPlain)
		if at+length > info.Size() {
			return io.ErrUnexpectedEOF
		}
		if size&blockIsPlain != 0 {
			content += uint64(length)
		} else {
			block = slices.Grow(block[:0], int(length))[:length]
			if _, err := file.ReadAt(block, at); err != nil {
				return err
			}
			unpacked, ok := unpackedSize(block)
			if !ok {
				return errContentSize
			}
			content += unpacked
		}
		at += length
		if flags&frameHasBlockSums != 0 {
			at += 4
		}
	}
	if flags&frameHasContentSum != 0 {
		at += 4
	}
	if at > info.Size() {
		return io.ErrUnexpectedEOF
	}
	if flags&frameHasContentSize != 0 && content != announced {
		return errContentSize
	}
	return nil
}

// unpackedSize is how long a compressed block is when unpacked, unless it breaks off in
// the middle. A block is a row of sequences: a byte with two lengths of four bits, the
// first of bytes that follow as they are, the second of bytes to repeat from as far back
// as the two bytes behind those say. A length of 15 goes on in further bytes up to the
// first that is not 255. The last sequence ends after the bytes as they are.
func unpackedSize(block []byte) (size uint64, ok bool) {
	length := func(bits byte) (n int, ok bool) {
		n = int(bits)
		for more := bits == 15; more; {
			if len(block) == 0 {
				return 0, false
			}
			n += int(block[0])
			more = block[0] == 255
			block = block[1:]
		}
		return n, true
	}
	for len(block) > 0 {
		lengths := block[0]
		block = block[1:]
		plain, ok := length(lengths >> 4)
		if !ok || plain > len(block) {
			return 0, false
		}
		size += uint64(plain)
		block = block[plain:]
		if len(block) == 0 {
			return size, true
		}
		if len(block) < 2 {
			return 0, false
		}
		block = block[2:]
		repeated, ok := length(lengths & 15)
		if !ok {
			return 0, false
		}
		const shortest = 4
		size += uint64(repeated) + shortest
	}
	return 0, false
}
