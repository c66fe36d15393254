package runtime

import (
	"context"
	"io"
	"os"
	"syscall"
)

// ExecSpec is a command to run in a container.
type ExecSpec struct {
	// Command is the program, looked up in PATH of Env inside the container,
	// and its arguments.
	Command []string
	// Env is the whole environment. PATH, HOME, USER and LANG get the usual
	// values when they are missing.
	Env map[string]string
	// Cwd is where the command starts: an absolute path. Empty means HOME, or /
	// when that does not exist.
	Cwd string
	// UID and GID are the container's.
	UID, GID uint32

	// Interactive gives the command a terminal made in the container's own
	// devpts; the streams below are not used then. Width and Height are in
	// characters; zero leaves the kernel's default.
	Interactive   bool
	Width, Height int
	// Stdin, Stdout and Stderr are handed to the command as they are; nil is
	// /dev/null. The caller still owns its copies and closes them when it likes.
	// Give pipes or sockets, never a file of the host: the container could read
	// it back or truncate it.
	Stdin, Stdout, Stderr *os.File
}

// Process is a command that was started in a container.
type Process interface {
	// PID is the host's number of the process.
	PID() int
	// Terminal is the command's terminal, or nil when it is not interactive. Its
	// Read returns io.EOF when the command has ended and all that it wrote was
	// read, even while its descendants keep the terminal open.
	Terminal() Terminal
	// EndInput tells a command on a terminal that no more input comes. It returns nil when
	// the command wants more all the same, which only a hangup can tell it, or has ended:
	// one that reads nothing goes on to its end. The error is ctx's.
	EndInput(ctx context.Context) error
	// Signal sends a signal to the command. One that has ended is no error.
	Signal(signal syscall.Signal) error
	// Hangup tells the command and its process group that their user has gone (SIGHUP), and
	// kills them. One that has ended is no error.
	Hangup() error
	// Wait returns the exit code once the command has ended: 128+n when signal n
	// killed it, 127 when it was not found, 126 when it could not be executed.
	// It may be called by many and again.
	Wait(ctx context.Context) (int, error)
	// Done is closed when Wait would return at once.
	Done() <-chan struct{}
	// Close hangs the command up if it still runs and releases the terminal.
	Close() error
}

// Terminal is the outer end of a terminal.
type Terminal interface {
	io.ReadWriteCloser
	// Resize tells the programs on the terminal its size in characters.
	Resize(width, height int) error
}
