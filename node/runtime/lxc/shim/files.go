package shim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"muster/node/runtime"
	"muster/node/runtime/lxc/wire"
)

// serveFiles is an SFTP server over the file system that the process sees: by
// now that is the container's.
func serveFiles(conn io.ReadWriteCloser) error {
	handler := files{pushed: &pushed{}}
	server := sftp.NewRequestServer(conn, sftp.Handlers{
		FileGet: handler, FilePut: handler, FileCmd: handler, FileList: handler,
	})
	err := server.Serve()
	handler.pushed.remove()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// files answers SFTP requests. Paths arrive absolute and clean; the kernel
// resolves them below the container's root.
type files struct{ pushed *pushed }

// pushed are the files that were made to replace others and have not done so: the client
// may end before it comes to that.
type pushed struct {
	mu    sync.Mutex
	paths map[string]bool // guarded by mu
}

func (p *pushed) add(name string) {
	if !strings.HasPrefix(path.Base(name), runtime.PushPrefix) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paths == nil {
		p.paths = map[string]bool{}
	}
	p.paths[name] = true
}

// drop forgets a file that has another name now, or none.
func (p *pushed) drop(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.paths, name)
}

func (p *pushed) remove() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.paths {
		_ = unix.Unlink(name) // nobody is left to tell
	}
}

var (
	_ sftp.OpenFileWriter       = files{}
	_ sftp.FileReader           = files{}
	_ sftp.PosixRenameFileCmder = files{}
	_ sftp.StatVFSFileCmder     = files{}
	_ sftp.LstatFileLister      = files{}
	_ sftp.ReadlinkFileLister   = files{}
)

// Fileread implements sftp.FileReader.
func (files) Fileread(r *sftp.Request) (io.ReaderAt, error) { return open(r.Filepath, r.Pflags()) }

// Filewrite implements sftp.FileWriter.
func (f files) Filewrite(r *sftp.Request) (io.WriterAt, error) { return f.openForWriting(r) }

// OpenFile implements sftp.OpenFileWriter.
func (f files) OpenFile(r *sftp.Request) (sftp.WriterAtReaderAt, error) { return f.openForWriting(r) }

func (f files) openForWriting(r *sftp.Request) (sftp.WriterAtReaderAt, error) {
	file, err := open(r.Filepath, r.Pflags())
	if err == nil && r.Pflags().Excl {
		f.pushed.add(r.Filepath)
	}
	if err == nil && r.Pflags().Append {
		return appending{file}, nil
	}
	return file, err
}

// appending is a file whose writes go to its end, wherever the client wants them.
type appending struct{ *os.File }

// WriteAt implements io.WriterAt.
func (a appending) WriteAt(p []byte, _ int64) (int, error) { return a.Write(p) }

// open opens a regular file. The file is looked at before it is opened, since a
// device or a pipe acts by being opened: a device node that the container made
// would lead to the host's device, past the rules of its device cgroup. What was
// looked at is then opened itself, not its path again.
func open(path string, want sftp.FileOpenFlags) (*os.File, error) {
	flags := unix.O_CLOEXEC | unix.O_NOCTTY
	switch {
	case want.Read && want.Write:
		flags |= unix.O_RDWR
	case want.Write || want.Append || want.Trunc || want.Creat:
		flags |= unix.O_WRONLY
	}
	if want.Append {
		flags |= unix.O_APPEND
	}
	if want.Creat {
		fd, err := unix.Open(path, flags|unix.O_CREAT|unix.O_EXCL, 0o644)
		if err == nil {
			return os.NewFile(uintptr(fd), path), nil
		}
		if !errors.Is(err, unix.EEXIST) || want.Excl {
			return nil, &os.PathError{Op: "create", Path: path, Err: err}
		}
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("open %s: only regular files can be opened", path)
	}
	if want.Trunc {
		flags |= unix.O_TRUNC
	}
	// "self" is this process, since this is the host's /proc.
	again, err := unix.Openat(wire.Proc, fmt.Sprintf("self/fd/%d", fd), flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(again), path), nil
}

// Filecmd implements sftp.FileCmder.
func (f files) Filecmd(r *sftp.Request) error {
	switch r.Method {
	case "Setstat":
		return setstat(r)
	case "Rename":
		// Version 3 of the protocol does not let this one replace a file.
		return unix.Renameat2(unix.AT_FDCWD, r.Filepath, unix.AT_FDCWD, r.Target, unix.RENAME_NOREPLACE)
	case "Rmdir":
		return unix.Rmdir(r.Filepath)
	case "Remove":
		f.pushed.drop(r.Filepath)
		return unix.Unlink(r.Filepath)
	case "Mkdir":
		return unix.Mkdir(r.Filepath, 0o755)
	case "Link":
		return unix.Link(r.Filepath, r.Target)
	case "Symlink":
		return unix.Symlink(r.Filepath, r.Target)
	}
	return sftp.ErrSSHFxOpUnsupported
}

// PosixRename implements sftp.PosixRenameFileCmder.
func (f files) PosixRename(r *sftp.Request) error {
	err := unix.Rename(r.Filepath, r.Target)
	if err == nil {
		f.pushed.drop(r.Filepath)
	}
	return err
}

// StatVFS implements sftp.StatVFSFileCmder.
func (files) StatVFS(r *sftp.Request) (*sftp.StatVFS, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(r.Filepath, &s); err != nil {
		return nil, err
	}
	return &sftp.StatVFS{
		Bsize: uint64(s.Bsize), Frsize: uint64(s.Frsize),
		Blocks: s.Blocks, Bfree: s.Bfree, Bavail: s.Bavail,
		Files: s.Files, Ffree: s.Ffree, Favail: s.Ffree,
		Namemax: uint64(s.Namelen),
	}, nil
}

// setstat changes what the client names of a file. The mode comes last, since a
// change of owner clears the set-user-ID bits.
func setstat(r *sftp.Request) error {
	flags, attrs := r.AttrFlags(), r.Attributes()
	if flags.Size {
		if err := os.Truncate(r.Filepath, int64(attrs.Size)); err != nil {
			return err
		}
	}
	if flags.UidGid {
		if err := os.Chown(r.Filepath, int(attrs.UID), int(attrs.GID)); err != nil {
			return err
		}
	}
	if flags.Permissions {
		if err := unix.Chmod(r.Filepath, attrs.Mode&0o7777); err != nil {
			return err
		}
	}
	if flags.Acmodtime {
		return os.Chtimes(r.Filepath, time.Unix(int64(attrs.Atime), 0), time.Unix(int64(attrs.Mtime), 0))
	}
	return nil
}

// Filelist implements sftp.FileLister.
func (files) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	if r.Method != "List" {
		info, err := os.Stat(r.Filepath)
		return list{info}, err
	}
	entries, err := os.ReadDir(r.Filepath)
	if err != nil {
		return nil, err
	}
	var l list
	for _, entry := range entries {
		// One that went away meanwhile is no longer in the directory.
		if info, err := entry.Info(); err == nil {
			l = append(l, info)
		}
	}
	slices.SortFunc(l, func(a, b os.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
	return l, nil
}

// Lstat implements sftp.LstatFileLister.
func (files) Lstat(r *sftp.Request) (sftp.ListerAt, error) {
	info, err := os.Lstat(r.Filepath)
	return list{info}, err
}

// Readlink implements sftp.ReadlinkFileLister.
func (files) Readlink(path string) (string, error) { return os.Readlink(path) }

// list is what was found, all at once.
type list []os.FileInfo

// ListAt implements sftp.ListerAt.
func (l list) ListAt(into []os.FileInfo, offset int64) (int, error) {
	if offset >= int64(len(l)) {
		return 0, io.EOF
	}
	n := copy(into, l[offset:])
	if n < len(into) {
		return n, io.EOF
	}
	return n, nil
}
