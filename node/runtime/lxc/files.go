package lxc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/state"
)

// Files implements runtime.Runtime.
func (r *Runtime) Files(ctx context.Context, id string) (io.ReadWriteCloser, error) {
	c, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	defer c.close()
	conn, err := r.serveFiles(ctx, []string{"files", strconv.Itoa(c.init.pid)}, nil, c.init.file)
	if err != nil {
		return nil, fmt.Errorf("reach the files of container %s: %w", id, err)
	}
	return conn, nil
}

// RootFiles implements runtime.Runtime.
func (r *Runtime) RootFiles(ctx context.Context, root string, ids *runtime.IDMap) (io.ReadWriteCloser, error) {
	if !filepath.IsAbs(root) {
		return nil, state.Errorf(state.ErrInvalid, "root file system %q: want an absolute path", root)
	}
	args := []string{"rootfiles", root}
	if ids != nil {
		if err := ids.Validate(); err != nil {
			return nil, err
		}
		args = append(args, strconv.FormatUint(uint64(ids.Host), 10), strconv.FormatUint(uint64(ids.Size), 10))
	}
	conn, err := r.serveFiles(ctx, args)
	if err != nil {
		return nil, fmt.Errorf("reach the files in %s: %w", root, err)
	}
	return conn, nil
}

// serveFiles runs an SFTP server and returns the connection to it.
func (r *Runtime) serveFiles(ctx context.Context, args []string, extra ...*os.File) (io.ReadWriteCloser, error) {
	ours, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	h, release, err := startHelper(ctx, r.shim, args, [3]*os.File{theirs}, extra...)
	_ = theirs.Close()
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	defer release()
	if _, _, err := h.answers.expect("ready", 0); err != nil {
		h.giveUp()
		return nil, errors.Join(err, ours.Close())
	}
	_ = h.answers.file.Close()
	return &fileServer{File: ours, cmd: h.cmd}, nil
}

// fileServer is the connection to an SFTP server, and its process.
type fileServer struct {
	*os.File
	cmd     *exec.Cmd
	closing sync.Once
	err     error
}

// Close implements io.Closer. It may be called twice.
func (s *fileServer) Close() error {
	s.closing.Do(func() {
		// The server ends by itself when its connection does, unless a file system
		// in the container holds it up.
		s.err = errors.Join(s.File.Close(), s.cmd.Process.Kill())
		_ = s.cmd.Wait()
	})
	return s.err
}
