package stream

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// A frame is its kind, the length of its payload, a checksum and the payload:
//
//	kind u8 | length u32 | CRC-32C u32 | payload
//
// numbers little-endian. The checksum covers the number of the frame too, so a
// frame that was lost, repeated or moved is found like one that was changed.
const (
	frameHello   = 'H' // version, names of all contents in order
	frameContent = 'C' // head of a content
	frameEntry   = 'E' // a file that is new or replaced; data follow a regular one
	frameData    = 'D' // offset u64, bytes
	frameFile    = 'F' // end of a regular file: size, sum
	frameAttr    = 'A' // a file that stays but for its attributes
	frameRemove  = 'R' // path
	frameDigest  = 'T' // end of a content: digest of all its entries
	frameEnd     = 'Z'
	frameTouch   = '~' // in logs: the file at this path is about to change
)

const frameHead = 9

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type frameWriter struct {
	w    *bufio.Writer
	next uint64 // number of the next frame
	head [8 + 5 + 4]byte
	// silent counts nothing and writes nothing.
	silent bool
}

func newFrameWriter(w io.Writer) *frameWriter {
	return &frameWriter{w: bufio.NewWriterSize(w, 64<<10)}
}

// write writes a frame whose payload is the parts one after the other.
func (f *frameWriter) write(kind byte, parts ...[]byte) error {
	if f.silent {
		return nil
	}
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if size > maxFrame {
		return refused("a frame of %d bytes is larger than the largest, %d; the file has too many attributes", size, maxFrame)
	}
	head := f.head[:]
	binary.LittleEndian.PutUint64(head, f.next)
	head[8] = kind
	binary.LittleEndian.PutUint32(head[9:], uint32(size))
	sum := crc32.Update(0, castagnoli, head[:13])
	for _, p := range parts {
		sum = crc32.Update(sum, castagnoli, p)
	}
	binary.LittleEndian.PutUint32(head[13:], sum)
	f.next++
	if _, err := f.w.Write(head[8:]); err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := f.w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func (f *frameWriter) flush() error { return f.w.Flush() }

type frameReader struct {
	r    *bufio.Reader
	next uint64
	buf  []byte
	// read counts the bytes of whole frames.
	read int64
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// frame returns the next frame. The payload is good until the next call. What
// ends between two frames is io.EOF, for which the caller knows whether it may.
func (f *frameReader) frame() (kind byte, payload []byte, err error) {
	var head [8 + frameHead]byte
	binary.LittleEndian.PutUint64(head[:], f.next)
	if _, err := io.ReadFull(f.r, head[8:]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, damaged("read a frame: %w", err)
	}
	size := binary.LittleEndian.Uint32(head[9:])
	if size > maxFrame {
		return 0, nil, damaged("a frame claims %d bytes", size)
	}
	if int(size) > cap(f.buf) {
		f.buf = make([]byte, max(int(size), 16<<10))
	}
	payload = f.buf[:size]
	if _, err := io.ReadFull(f.r, payload); err != nil {
		return 0, nil, damaged("read a frame: %w", err)
	}
	sum := crc32.Update(crc32.Update(0, castagnoli, head[:13]), castagnoli, payload)
	if sum != binary.LittleEndian.Uint32(head[13:]) {
		return 0, nil, damaged("the checksum of frame %d is wrong", f.next)
	}
	f.next++
	f.read += frameHead + int64(size)
	return head[8], payload, nil
}
