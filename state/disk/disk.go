// Package disk says whether the file system under a log can be written and how much room
// it has, and keeps a reserve of room there.
//
// It never decides what follows from that.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// reserveFile is written in full, so that its blocks are this directory's for certain.
	reserveFile = "reserve"
	// probeFile is overwritten to learn whether the disk takes a write.
	probeFile = "probe"
	probeSize = 4096
)

// Low is how much room a file system has left, the reserve not counted, when a member
// should give its part in the logs to others. On a small file system it is less.
const Low = 32 << 20

// On a small file system these bound a reserve and Low: one in so many bytes. What the logs
// always use must fit beside Low and two reserves, or writes are refused for ever.
const (
	largestShare = 10
	lowShare     = 5
)

// Disk is the file system under one directory.
type Disk struct {
	dir string
	// size is that of the whole reserve.
	size int64
	// low is Low on this file system.
	low            int64
	probe, reserve *os.File

	mu     sync.Mutex // held by who writes the reserve
	closed bool
}

// Open opens the files that the other methods need; it needs no room. size is how large
// the reserve is to be.
func Open(dir string, size int64) (*Disk, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return nil, fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	total := int64(fs.Blocks) * fs.Bsize //nolint:gosec // no file system is that large
	d := &Disk{dir: dir, size: min(size, total/largestShare), low: lowOf(total)}
	var err error
	if d.reserve, err = OpenReserve(dir); err != nil {
		return nil, err
	}
	if d.probe, err = os.OpenFile(filepath.Join(dir, probeFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, errors.Join(err, d.reserve.Close())
	}
	return d, nil
}

// lowOf is Low on a file system of that many bytes. Below floor it would never be seen.
func lowOf(total int64) int64 { return min(Low, max(total/lowShare, floor)) }

// OpenReserve opens the reserve's file, for whoever gives it up where a write fails.
func OpenReserve(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, reserveFile), os.O_RDWR|os.O_CREATE, 0o600)
}

// Close closes the files; the reserve stays. It may be called twice.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	return errors.Join(d.probe.Close(), d.reserve.Close())
}

// Probe writes a block and waits until the disk has it. No room for the first block is no
// error: Room says so.
func (d *Disk) Probe() error {
	block := make([]byte, probeSize)
	copy(block, time.Now().UTC().Format(time.RFC3339Nano)+"\n")
	_, err := d.probe.WriteAt(block, 0)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil
	}
	if err == nil {
		err = with(d.probe, unix.Fdatasync)
	}
	if err != nil {
		return fmt.Errorf("write to the disk of %s: %w", d.dir, err)
	}
	return nil
}

// with calls do with a file's descriptor, which is not closed meanwhile.
func with(file *os.File, do func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return os.ErrClosed // of all that Control says, only this can be
	}
	return failed
}

// Room is how many bytes the file system has left, the reserve not counted.
func (d *Disk) Room() (int64, error) {
	var fs unix.Statfs_t
	if err := with(d.reserve, func(fd int) error { return unix.Fstatfs(fd, &fs) }); err != nil {
		return 0, err
	}
	return int64(fs.Bavail) * fs.Bsize, nil //nolint:gosec // no file system is that large
}

// Held is how many bytes of the reserve are there.
func (d *Disk) Held() int64 {
	info, err := d.reserve.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// Whole reports whether the reserve is complete.
func (d *Disk) Whole() bool { return d.Held() >= d.size }

// GiveUp makes the reserve's room free.
func (d *Disk) GiveUp() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reserve.Truncate(0)
}

// TakeBack writes the reserve again if the file system then is not low. It writes
// at most step bytes, so that it may be stopped; call it until Whole.
func (d *Disk) TakeBack(step int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	held := d.Held()
	missing := d.size - held
	room, err := d.Room()
	if err != nil || missing <= 0 || room < missing+d.low {
		return err
	}
	// Not zeros: some file systems keep no blocks for those.
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i*7 + i>>8 + 1)
	}
	for written := int64(0); missing > 0 && written < step; {
		n, err := d.reserve.WriteAt(block[:min(missing, int64(len(block)))], held)
		if err != nil {
			return errors.Join(fmt.Errorf("write the reserve in %s: %w", d.dir, err), d.reserve.Truncate(0))
		}
		held, missing, written = held+int64(n), missing-int64(n), written+int64(n)
	}
	return unix.Fdatasync(int(d.reserve.Fd()))
}
