package store

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// A snapshot of the log is one LZ4 frame, with a sum of its content that the node
// checks. A frame that is cut short the node waits for without end, so that is
// looked for before. The node makes snapshots under another name first: an
// unfinished one is never seen here.
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

// inspectSnapshot refuses a snapshot that is cut short.
func (d *directory) inspectSnapshot(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	err = skipFrame(file)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return d.damaged("%s is cut short", filepath.Base(path))
	}
	return err
}

// skipFrame walks over an LZ4 frame; io.EOF or io.ErrUnexpectedEOF mean that it is
// cut short. What is no frame is let pass: the node will say what it thinks of it.
func skipFrame(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	var head [6]byte
	if _, err := file.ReadAt(head[:], 0); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(head[:]) != frameMagic {
		return nil
	}
	flags := head[4]
	at := int64(len(head)) + 1
	if flags&frameHasContentSize != 0 {
		at += 8
	}
	if flags&frameHasDictionary != 0 {
		at += 4
	}
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
		at += int64(size &^ blockIsPlain)
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
	return nil
}
