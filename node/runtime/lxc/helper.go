package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"muster/node/runtime/lxc/wire"
)

// answers is the daemon's end of the socket that the shim answers on.
type answers struct{ file *os.File }

// socketPair returns the daemon's end, and the shim's as a file to pass on.
func socketPair(kind int) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	// Only our end is not blocking: it belongs to Go's poller.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "daemon"), os.NewFile(uintptr(fds[1]), "shim"), nil
}

// next reads one answer with its descriptors. Empty text means that there are no
// more.
func (a answers) next() (text string, files []*os.File, err error) {
	conn, err := a.file.SyscallConn()
	if err != nil {
		return "", nil, err
	}
	buffer, control := make([]byte, 1024), make([]byte, unix.CmsgSpace(4*4))
	var n, nc int
	var rerr error
	err = conn.Read(func(fd uintptr) bool {
		n, nc, _, _, rerr = unix.Recvmsg(int(fd), buffer, control, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(rerr, unix.EAGAIN)
	})
	if err = errors.Join(err, rerr); err != nil {
		return "", nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:nc])
	if err != nil {
		return "", nil, err
	}
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil {
			return "", nil, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return string(buffer[:n]), files, nil
}

// errNoAnswer means that the shim ended without a word.
var errNoAnswer = errors.New("muster-shim ended without an answer")

// expect reads an answer that begins with word and carries n descriptors, and
// returns what follows the word.
func (a answers) expect(word string, n int) (rest string, files []*os.File, err error) {
	text, files, err := a.next()
	if err != nil {
		return "", nil, err
	}
	first, rest, _ := strings.Cut(text, " ")
	if first == word && len(files) == n {
		return rest, files, nil
	}
	for _, file := range files {
		_ = file.Close()
	}
	switch first {
	case "":
		return "", nil, errNoAnswer
	case "error":
		return "", nil, errors.New(rest)
	case "busy":
		return "", nil, errBusy
	}
	return "", nil, fmt.Errorf("muster-shim answered %q", text)
}

// errBusy means that somebody else has what was asked for.
var errBusy = errors.New("busy")

// helper is a shim process with a socket to it.
type helper struct {
	cmd     *exec.Cmd
	answers answers
}

// startHelper runs the shim with the socket and the further descriptors, which
// it closes here. When ctx ends before release is called, the helper is killed.
func startHelper(ctx context.Context, path string, args []string, stdio [3]*os.File, extra ...*os.File) (h *helper, release func(), err error) {
	ours, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, nil, err
	}
	// Not the context's: it outlives the call.
	cmd := exec.Command(path, args...)
	cmd.Args[0] = "muster-shim"
	cmd.Dir = "/"
	cmd.Env = []string{}
	for i, file := range stdio {
		if file == nil {
			continue
		}
		switch i {
		case 0:
			cmd.Stdin = file
		case 1:
			cmd.Stdout = file
		case 2:
			cmd.Stderr = file
		}
	}
	cmd.ExtraFiles = append([]*os.File{theirs}, extra...)
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("run muster-shim: %w", err), ours.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	return &helper{cmd: cmd, answers: answers{ours}}, func() { stop() }, nil
}

// giveUp ends a helper that is of no use.
func (h *helper) giveUp() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
	_ = h.answers.file.Close()
}

// requestFile returns a request as a file to pass on, which the caller closes.
func requestFile(build func(*wire.Request) error) (*os.File, error) {
	var request wire.Request
	if err := build(&request); err != nil {
		return nil, err
	}
	return request.File()
}
