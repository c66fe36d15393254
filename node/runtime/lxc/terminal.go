package lxc

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
)

// terminal is the outer end of a pseudoterminal.
type terminal struct {
	file *os.File
	// hold is kept open as long as the terminal, or nil.
	hold  *os.File
	ended atomic.Bool
	// unfinished says that what was written last is not the end of a line.
	unfinished atomic.Bool
}

var _ runtime.Terminal = (*terminal)(nil)

// newTerminal makes a terminal of a descriptor that was passed.
func newTerminal(file, hold *os.File) (*terminal, error) {
	// A file that was not opened here is with Go's poller only when it does not
	// block; then Close and end can interrupt a Read.
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if err := file.Close(); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &terminal{file: os.NewFile(uintptr(fd), "terminal"), hold: hold}, nil
}

// raw makes the terminal pass everything on as it is: what is behind the console
// of a container is a terminal already, and two would each add to what passes.
func (t *terminal) raw() error {
	conn, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	// Linux applies this to the inner end (ioctl_tty(2), pty(7)).
	cerr := conn.Control(func(fd uintptr) {
		var mode *unix.Termios
		if mode, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err != nil {
			return
		}
		mode.Iflag, mode.Oflag, mode.Lflag = unix.IGNPAR, 0, 0
		err = unix.IoctlSetTermios(int(fd), unix.TCSETS, mode)
	})
	return errors.Join(cerr, err)
}

// end says that what comes out of the terminal from now on is not the command's:
// what it wrote is read, and then there is no more.
func (t *terminal) end() {
	t.ended.Store(true)
	_ = t.file.SetReadDeadline(time.Unix(1, 0))
}

// Read implements io.Reader.
func (t *terminal) Read(p []byte) (int, error) {
	n, err := t.file.Read(p)
	if n > 0 {
		return n, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && t.ended.Load() {
		return t.drain(p)
	}
	// The kernel says EIO when nobody holds the other end (Linux, pty(7)).
	if errors.Is(err, unix.EIO) {
		return 0, io.EOF
	}
	return n, err
}

// drain reads what is there. Terminals pass data on in the background; poll(2)
// waits for what was written before it was called, read(2) does not.
func (t *terminal) drain(p []byte) (n int, err error) {
	conn, err := t.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := conn.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			_, err = unix.Poll(poll, 0)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if err != nil || poll[0].Revents&unix.POLLIN == 0 {
			return
		}
		n, err = unix.Read(int(fd), p)
	})
	switch {
	case cerr != nil:
		return 0, cerr
	case n > 0:
		return n, nil
	case err == nil, errors.Is(err, unix.EIO), errors.Is(err, unix.EAGAIN):
		return 0, io.EOF
	}
	return 0, err
}

// Write implements io.Writer.
func (t *terminal) Write(p []byte) (int, error) {
	n, err := t.file.Write(p)
	if n > 0 {
		t.unfinished.Store(p[n-1] != '\n')
	}
	return n, err
}

// Resize implements runtime.Terminal.
func (t *terminal) Resize(width, height int) error {
	conn, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(width), Row: uint16(height)})
	})
	return errors.Join(cerr, err)
}

// Close implements io.Closer.
func (t *terminal) Close() error {
	err := t.file.Close()
	if t.hold != nil {
		err = errors.Join(err, t.hold.Close())
	}
	return err
}
