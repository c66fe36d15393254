// Package shim is muster-shim: the small program between the daemon and the
// containers. Its C half runs before the Go runtime: start (the monitor that
// stays with a container), exec, console and device end there; files and
// rootfiles only enter a container there and go on here as an SFTP server. check,
// proxy and version are Go alone.
//
// It never decides anything and never reads the daemon's state: what it needs
// comes as arguments and descriptors, and it trusts nothing that a container
// shows it. No other program may link it, since the C half runs by itself.
package shim

// The C half includes liblxc; go-lxc says how to link it.

// #include "shim.h"
import "C"

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lxc/go-lxc"

	"muster/node/runtime/lxc/wire"
)

// Main runs the subcommand of args (os.Args) and returns the exit code. Those of
// the C half have run already when it is called.
func Main(args []string) int {
	command := ""
	if len(args) > 1 {
		command = args[1]
	}
	var err error
	switch command {
	case "files", "rootfiles":
		err = serveFiles(stdio{})
	case "check":
		err = check(os.Stdin)
	case "proxy":
		err = proxy()
	case "version":
		_, err = fmt.Println(lxc.Version())
	default:
		err = errors.New("muster-shim is run by musterd, not by hand")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return wire.Failed
	}
	return 0
}

// stdio is the connection that the daemon handed over as standard input.
type stdio struct{}

func (stdio) Read(p []byte) (int, error)  { return os.Stdin.Read(p) }
func (stdio) Write(p []byte) (int, error) { return os.Stdin.Write(p) }
func (stdio) Close() error                { return os.Stdin.Close() }

var _ io.ReadWriteCloser = stdio{}
