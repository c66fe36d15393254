package image

import (
	"errors"
	"io"
	"os"
	"sync"
)

// tail reads a file while it grows, and waits at its end until there is more.
// The page cache is the buffer, so neither side holds up the other.
type tail struct {
	file *os.File
	off  int64 // of the reader

	mu sync.Mutex
	// more is signalled when any of the fields below changes.
	more    *sync.Cond
	size    int64
	ended   bool
	err     error // what to read at the end; io.EOF when the file is whole
	stopped bool
}

var errStopped = errors.New("reading has stopped")

func newTail(file *os.File) *tail {
	t := &tail{file: file}
	t.more = sync.NewCond(&t.mu)
	return t
}

// grow says that n more bytes are in the file.
func (t *tail) grow(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.size += n
	t.more.Broadcast()
}

// end says that the file grows no more: it is whole, or err happened. Only the
// first call counts.
func (t *tail) end(err error) {
	if err == nil {
		err = io.EOF
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ended, t.err = true, err
	}
	t.more.Broadcast()
}

// stop ends a Read that waits, from the reader's side.
func (t *tail) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	t.more.Broadcast()
}

// Read implements io.Reader.
func (t *tail) Read(p []byte) (int, error) {
	t.mu.Lock()
	for t.off == t.size && !t.ended && !t.stopped {
		t.more.Wait()
	}
	left, err, stopped := t.size-t.off, t.err, t.stopped
	t.mu.Unlock()
	switch {
	case stopped:
		return 0, errStopped
	case left == 0:
		return 0, err
	}
	n, readErr := t.file.ReadAt(p[:min(int64(len(p)), left)], t.off)
	t.off += int64(n)
	return n, readErr
}
