package store

// #cgo LDFLAGS: -lraft -luv -ldl
// #include <stdlib.h>
// #include "fence.h"
import "C"

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"
)

// fence stands between libraft 0.15 and its directory. libraft goes on after a write that
// failed: it makes the next segment with another number and names it by the entry that it
// believes to be next on disk, so that later entries stand where lost ones should (seen:
// entries 2040 and on in a segment named 387, after a disk that was full for ten seconds).
// The log is then another than its leader's without anybody noticing. So the first write
// that the disk refuses is the last one: the fence fails all others, and what is on disk
// stays what was acknowledged. The node is closed then and opened anew on what it has.
//
// The calls of libc and libuv by which libraft writes are defined in fence.c again. The
// dynamic linker takes those of the program before those of a library.
type fence struct {
	number C.int
	// dir is the directory's path as the kernel has it: libraft's files are known by it.
	dir string
}

// openFence sets a fence up around the directory. reserve is given up before a write fails
// for want of room; it may be nil.
func openFence(dir string, reserve *os.File) (fence, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return fence{}, err
	}
	path := C.CString(real)
	defer C.free(unsafe.Pointer(path))
	fd := C.int(-1)
	if reserve != nil {
		fd = C.int(reserve.Fd())
	}
	number := C.fence_open(path, fd)
	if number < 0 {
		return fence{}, fmt.Errorf("too many databases in one process, or the path is too long: %s", dir)
	}
	return fence{number, real}, nil
}

// close takes the fence away. The node must be closed before.
func (f fence) close() { C.fence_close(f.number) }

// hold has writes that are refused wait until release: a leader that hears of one crashes
// (libraft 0.15 takes the entries back that others acknowledge, and looks for a snapshot
// that is not there). Once it does not lead any more, release tells it.
func (f fence) hold()    { C.fence_hold(f.number, 1) }
func (f fence) release() { C.fence_hold(f.number, 0) }

// err is why the disk refused a write, or nil.
func (f fence) err() error {
	if number := C.fence_error(f.number); number != 0 {
		return syscall.Errno(number)
	}
	return nil
}
