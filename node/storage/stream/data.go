package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"

	"golang.org/x/sys/unix"
)

// summer sums a file up: SHA-256 over each page that is not all zeros with its
// number before it, and the size. So the sum does not depend on where a file
// system keeps holes, and costs nothing for them.
type summer struct {
	h    hash.Hash
	head [8]byte
}

func newSummer() *summer { return &summer{h: sha256.New()} }

var zeros [page]byte

func blank(p []byte) bool { return bytes.Equal(p, zeros[:len(p)]) }

// add counts data at an offset that is a multiple of the page size.
func (s *summer) add(offset int64, data []byte) {
	for len(data) > 0 {
		n := min(page, len(data))
		if !blank(data[:n]) {
			binary.LittleEndian.PutUint64(s.head[:], uint64(offset/page))
			s.h.Write(s.head[:])
			s.h.Write(data[:n])
		}
		offset += int64(n)
		data = data[n:]
	}
}

// sum returns the sum of a file of this size; more may be added after.
func (s *summer) sum(size int64) Sum {
	// SHA-256 can always be cloned.
	h, err := s.h.(hash.Cloner).Clone()
	if err != nil {
		panic(err)
	}
	binary.LittleEndian.PutUint64(s.head[:], uint64(size))
	h.Write(s.head[:])
	return Sum(h.Sum(nil))
}

// runs calls each for the parts of data that are not zeros, whole pages of them.
func runs(offset int64, data []byte, each func(offset int64, data []byte) error) error {
	for at := 0; at < len(data); {
		n := min(page, len(data)-at)
		if blank(data[at : at+n]) {
			at += n
			continue
		}
		start := at
		for at < len(data) {
			n := min(page, len(data)-at)
			if blank(data[at : at+n]) {
				break
			}
			at += n
		}
		if err := each(offset+int64(start), data[start:at]); err != nil {
			return err
		}
	}
	return nil
}

// readData calls each for the data of an open file from start, a multiple of
// the page size, to end; holes are left out. It returns where the data end, which
// is before end when the file became shorter meanwhile.
func readData(ctx context.Context, fd int, buf []byte, start, end int64, holes bool, each func(offset int64, data []byte) error) (int64, error) {
	stop := end // of the data at hand
	for at := start; at < end; {
		if err := ctx.Err(); err != nil {
			return at, err
		}
		if holes && (at == start || at >= stop) {
			data, hole, err := extent(fd, at, end)
			if err != nil {
				return at, err
			}
			if data >= end {
				break
			}
			at, stop = data, hole
		}
		n, err := ignoringEINTR(func() (int, error) {
			return unix.Pread(fd, buf[:min(stop-at, int64(len(buf)))], at)
		})
		if err != nil {
			return at, err
		}
		if n == 0 {
			return at, nil
		}
		// A short read in the middle would leave the grid of pages.
		if at+int64(n) < stop && n%page != 0 {
			more, err := ignoringEINTR(func() (int, error) {
				return unix.Pread(fd, buf[n:min(stop-at, int64(len(buf)))], at+int64(n))
			})
			if err != nil {
				return at, err
			}
			n += more
			if more == 0 || n%page != 0 && at+int64(n) < stop {
				// Shorter now; what is there is what there is.
				return at + int64(n), each(at, buf[:n])
			}
		}
		if err := each(at, buf[:n]); err != nil {
			return at, err
		}
		at += int64(n)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return end, err
	}
	return min(end, st.Size), nil
}

// extent returns the next part that is not a hole, in whole pages, from at on.
func extent(fd int, at, end int64) (data, hole int64, err error) {
	data, err = unix.Seek(fd, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return end, end, nil // nothing but a hole is left
	case errors.Is(err, unix.EINVAL):
		return at, end, nil // a file system that does not tell
	case err != nil:
		return 0, 0, err
	}
	data = max(at, data&^(page-1))
	if hole, err = unix.Seek(fd, data, unix.SEEK_HOLE); err != nil || hole <= data {
		hole = end // it changes while we look
	}
	return data, min((hole+page-1)&^(page-1), end), nil
}

// sparse reports whether the file may have holes.
func sparse(st *unix.Stat_t) bool { return st.Blocks*512 < st.Size }

// sumFile sums up the first size bytes of an open file.
func sumFile(ctx context.Context, fd int, buf []byte, st *unix.Stat_t, size int64) (*summer, int64, error) {
	s := newSummer()
	end, err := readData(ctx, fd, buf, 0, size, sparse(st), func(offset int64, data []byte) error {
		s.add(offset, data)
		return nil
	})
	return s, end, err
}
