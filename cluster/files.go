package cluster

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"muster/state"
)

// File is a file of an instance as it was found.
type File struct {
	// Type is "file", "directory" or "symlink".
	Type     string
	UID, GID int
	// Mode holds permission bits.
	Mode     uint32
	Size     int64
	Modified time.Time
	// Content is set for files; the caller closes it.
	Content io.ReadCloser
	// Entries are the names in a directory, sorted.
	Entries []string
	// Target is where a symbolic link points.
	Target string
}

// FileSpec says what to write.
type FileSpec struct {
	// Type is "file" (when empty), "directory" or "symlink".
	Type string
	// UID, GID and Mode are kept, or the usual ones for something new, when nil.
	UID, GID *int
	Mode     *uint32
	Append   bool
	// Content is what the file holds, or the link's target.
	Content io.Reader
}

// Files serves SFTP over an instance's files, running or not.
func (c *Cluster) Files(ctx context.Context, project, instance string) (io.ReadWriteCloser, error) {
	inst, err := c.onNode(ctx, project, instance)
	if err != nil {
		return nil, err
	}
	return c.node.Files(ctx, inst)
}

// absolute is a path inside an instance: clients leave the first slash out.
func absolute(name string) string { return path.Clean("/" + name) }

// dial opens a file client on an instance, for a path in it.
func (c *Cluster) dial(ctx context.Context, project, instance, name string) (*sftp.Client, error) {
	if name == "" || strings.ContainsRune(name, 0) {
		return nil, state.Errorf(state.ErrInvalid, "path %q: want a path inside the instance", name)
	}
	conn, err := c.Files(ctx, project, instance)
	if err != nil {
		return nil, err
	}
	client, err := sftp.NewClientPipe(conn, conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return client, nil
}

// ReadFile opens a file of an instance, or describes a directory or a symbolic
// link.
func (c *Cluster) ReadFile(ctx context.Context, project, instance, name string) (*File, error) {
	client, err := c.dial(ctx, project, instance, name)
	if err != nil {
		return nil, err
	}
	read, err := readFile(client, absolute(name))
	if err != nil || read.Content == nil {
		_ = client.Close()
	}
	return read, fileError(err, name)
}

func readFile(client *sftp.Client, name string) (*File, error) {
	info, err := client.Lstat(name)
	if err != nil {
		return nil, err
	}
	read := &File{Type: "file", Size: info.Size(), Mode: permissions(info.Mode()), Modified: info.ModTime()}
	if stat, ok := info.Sys().(*sftp.FileStat); ok {
		read.UID, read.GID = int(stat.UID), int(stat.GID)
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		read.Type = "symlink"
		read.Target, err = client.ReadLink(name)
		return read, err
	case info.IsDir():
		read.Type = "directory"
		entries, err := client.ReadDir(name)
		for _, entry := range entries {
			read.Entries = append(read.Entries, entry.Name())
		}
		slices.Sort(read.Entries)
		return read, err
	case !info.Mode().IsRegular():
		return nil, state.Errorf(state.ErrInvalid, "path %q is a device, pipe or socket: it can't be read", name)
	}
	file, err := client.Open(name)
	if err != nil {
		return nil, err
	}
	read.Content = &remoteFile{File: file, client: client}
	return read, nil
}

// permissions are the mode bits that chmod knows.
func permissions(mode fs.FileMode) uint32 {
	bits := uint32(mode.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&flag != 0 {
			bits |= bit
		}
	}
	return bits
}

// remoteFile closes its connection with itself.
type remoteFile struct {
	*sftp.File
	client *sftp.Client
}

func (f *remoteFile) Close() error { return errors.Join(f.File.Close(), f.client.Close()) }

// Read is the one method besides Close that callers may use.
func (f *remoteFile) Read(buffer []byte) (int, error) { return f.File.Read(buffer) }

// DeleteFile removes a file or an empty directory of an instance.
func (c *Cluster) DeleteFile(ctx context.Context, project, instance, name string) error {
	client, err := c.dial(ctx, project, instance, name)
	if err != nil {
		return err
	}
	defer client.Close()
	name = absolute(name)
	info, err := client.Lstat(name)
	if err != nil {
		return fileError(err, name)
	}
	if info.IsDir() {
		err = client.RemoveDirectory(name)
	} else {
		err = client.Remove(name)
	}
	return fileError(err, name)
}

// fileError gives an error of the file server the kind that callers act on.
func fileError(err error, name string) error {
	var status *sftp.StatusError
	switch {
	case err == nil || state.Kind(err) != nil:
		return err
	case errors.Is(err, fs.ErrNotExist):
		return state.Errorf(state.ErrNotFound, "path %q does not exist in the instance", name)
	case errors.Is(err, fs.ErrPermission):
		return state.Errorf(state.ErrForbidden, "path %q: permission denied in the instance", name)
	case errors.Is(err, fs.ErrExist):
		return state.Errorf(state.ErrExists, "path %q exists already", name)
	case errors.As(err, &status):
		return state.Errorf(state.ErrInvalid, "path %q: %w", name, err)
	}
	return err
}

// Logs returns the names of an instance's log files.
func (c *Cluster) Logs(ctx context.Context, project, instance string) ([]string, error) {
	inst, err := c.onNode(ctx, project, instance)
	if err != nil {
		return nil, err
	}
	return c.node.Logs(inst)
}

// OpenLog opens one of them.
func (c *Cluster) OpenLog(ctx context.Context, project, instance, log string) (*os.File, error) {
	inst, err := c.onNode(ctx, project, instance)
	if err != nil {
		return nil, err
	}
	return c.node.OpenLog(inst, log)
}

// DeleteLog removes a recorded output.
func (c *Cluster) DeleteLog(ctx context.Context, project, instance, log string) error {
	inst, err := c.onNode(ctx, project, instance)
	if err != nil {
		return err
	}
	return c.node.DeleteLog(inst, log)
}
