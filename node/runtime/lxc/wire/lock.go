package wire

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"muster/state"
)

// starting is the byte of the monitor file that is locked from before the daemon
// starts the shim until the monitor holds the byte before it. That lock belongs
// to the open file (fcntl(2), "Open file description locks"), so the shim
// inherits it with the descriptor: however the daemon ends, whoever looks next
// sees that a container is on its way.
const starting = 1

// Holder returns the process that holds the record lock of the file at path, or
// zero. The kernel answers: a process that is gone holds nothing.
func Holder(path string) (int, error) {
	holder, _, err := Monitoring(path)
	return holder, err
}

// Monitoring returns the process that holds the monitor file at path, or zero,
// and whether one is about to: a shim was started and its monitor does not hold
// the file yet.
func Monitoring(path string) (holder int, coming bool, err error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = file.Close() }()
	// In this order: the monitor takes its byte before it lets go of the other.
	before, err := lockOf(file, starting)
	if err != nil {
		return 0, false, err
	}
	if holder, err = lockOf(file, 0); err != nil {
		return 0, false, err
	}
	return holder, before != 0, nil
}

// lockOf returns who holds the lock of a byte: a process, -1 for an open file, or
// zero.
func lockOf(file *os.File, at int64) (int, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: at, Len: 1}
	if err := unix.FcntlFlock(file.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("ask who holds %s: %w", file.Name(), err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}

// Announce locks the monitor file at path for a shim that is about to be started,
// and returns the file for the shim to inherit. It is state.ErrConflict when a
// shim or a monitor has it.
func Announce(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: starting, Len: 1}
	err = unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) {
		err = state.Errorf(state.ErrConflict, "%s is held: a start is under way", path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
